"""Sections of pages that scripts fill in.

A section is what stands between ``<!-- name -->`` and ``<!-- end of name -->``.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from adadedup_mm.base.errors import UserError
from adadedup_mm.base.files import atomic_open
from adadedup_mm.benchmark.results import RESULTS, Row, read_results


def fill(description: str | None, section: Callable[[str, Path, list[Row]], str]) -> None:
    """The command line WORK_DIR PAGE: fills the section with the name of a benchmark's work dir.

    Args:
        description: help text.
        section: markdown from the section's name, the page and the results.

    Raises:
        UserError: the page has no such section, or the results cannot be read.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path)
    parser.add_argument('page', type=Path)
    args = parser.parse_args()
    name = args.work_dir.resolve().name
    split_page(args.page, name)  # before there is anything to undo
    fill_section(args.page, name, section(name, args.page, read_results(args.work_dir / RESULTS)))


def fill_section(page: Path, name: str, text: str) -> None:
    """Replaces a section of a page by a text, atomically.

    Raises:
        UserError: the page has no such section.
    """
    before, after = split_page(page, name)
    with atomic_open(page, 'w') as file:
        file.write(f'{before}\n{text}\n{after}')


def split_page(page: Path, name: str) -> tuple[str, str]:
    """The page up to the section and from its end on, both with their markers.

    Raises:
        UserError: the page has no such section.
    """
    start, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
    text = page.read_text(encoding='utf-8')
    if start not in text or end not in text:
        raise UserError(f'{page} has no section between {start} and {end}')
    return text.split(start)[0] + start, end + text.split(end)[1]
