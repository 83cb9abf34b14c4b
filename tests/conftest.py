"""Small worlds and configs that several rooms' tests use."""

import pytest


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    """A MiniDrive of 12 scenes with 6 frames each; do not write into it."""
    from adadedup_mm.cli.make_minidrive import main

    folder = tmp_path_factory.mktemp('minidrive') / 'world'
    main([str(folder), '--scenes', '12', '--frames', '6', '--formats', 'coco'])
    return folder
