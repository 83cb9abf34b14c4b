"""What the parts of ``benchmarks/speed.py`` measure.

Figures stand beside what they are compared with and what is asked of them.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        name: what is measured.
        reference: what it is compared with, in the same run.
        value: the ratio, or whatever ``form`` says.
        target: what is asked for; None where nothing is.
        at_most: whether the target is an upper bound.
        form: how value and target are written.
    """

    name: str
    reference: str
    value: float
    target: float | None = None
    at_most: bool = False
    form: str = '{:.2f} x'

    @property
    def met(self) -> bool | None:
        """None without a target; what is no number meets none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def parse(
    description: str | None, parser: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """The command line that all parts share.

    Args:
        description: help text.
        parser: one with further options.
    """
    parser = parser or argparse.ArgumentParser()
    parser.description = (description or '').splitlines()[0]
    parser.add_argument('--quick', action='store_true', help='small cases, few repeats')
    parser.add_argument(
        '--figures', type=Path, help='write what was measured into this file, as JSON lines'
    )
    return parser.parse_args()


def save(figures: Iterable[Figure], path: Path | None) -> None:
    """Writes a part's figures where ``--figures`` says, if it does."""
    if path is not None:
        lines = [json.dumps(dataclasses.asdict(figure)) + '\n' for figure in figures]
        path.write_text(''.join(lines), encoding='utf-8')


def load(path: Path) -> list[Figure]:
    """What ``save`` wrote."""
    return [Figure(**json.loads(line)) for line in path.read_text(encoding='utf-8').splitlines()]


def table(figures: Iterable[Figure]) -> str:
    """A markdown table."""
    lines = ['| figure | reference | ours | target | met |', '|---|---|---:|---:|---|']
    for figure in figures:
        bound = '≤' if figure.at_most else '≥'
        target = '-' if figure.target is None else f'{bound} {figure.form.format(figure.target)}'
        met = {None: '-', True: 'yes', False: '**no**'}[figure.met]
        lines.append(
            f'| {figure.name} | {figure.reference} | {figure.form.format(figure.value)} | {target} '
            f'| {met} |'
        )
    return '\n'.join(lines)


def peak_memory() -> float:
    """The most memory that this process has held, in MB of 10**6 bytes; mapped files count."""
    status = Path('/proc/self/status').read_text().splitlines()
    line = next(line for line in status if line.startswith('VmHWM'))
    kibibytes = int(line.split()[1])
    return kibibytes * 1024 / 1e6


def one_thread() -> None:
    """One BLAS thread in this process and those that it starts.

    NumPy and torch must not be imported yet.
    """
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ[name] = '1'
