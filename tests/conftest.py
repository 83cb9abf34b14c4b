"""Small worlds and configs that several rooms' tests use."""

import os

import cv2
import pytest
from hypothesis import settings

# OpenCV waits forever for its threads in a process that was forked from one that had them, as some
# tests do.
cv2.setNumThreads(0)

# The same examples on every machine; the fuzz suite at its full count looks for new ones
# (docs/TESTING.md).
settings.register_profile('repeatable', derandomize=True)
if 'FUZZ' not in os.environ:
    settings.load_profile('repeatable')


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    """A MiniDrive of 12 scenes with 6 frames each; do not write into it."""
    from adadedup_mm.cli.make_minidrive import main

    folder = tmp_path_factory.mktemp('minidrive') / 'world'
    main([str(folder), '--scenes', '12', '--frames', '6', '--formats', 'coco'])
    return folder
