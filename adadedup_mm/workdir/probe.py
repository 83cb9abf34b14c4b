"""``probe.json`` and ``probe.csv``: the curve that a probe has left in a work dir."""

import json
from pathlib import Path

import msgspec

from ..base.errors import UserError
from ..base.files import atomic_open, write_json
from ..base.words import one_line
from ..probe.curve import Curve
from ..probe.statistics import CurveSummary, summarise
from ..probe.tables import curve_csv
from ..probe.verdict import Verdict, judge

# Where a probe's own stages and its lock lie.
FOLDER = 'probe'
JudgedCurve = tuple[CurveSummary, Verdict]
# Of an error's text; longer ones repeat the file.
_LONGEST = 200


def curve_path(work_dir: Path) -> Path:
    """Where the curve of a work dir is."""
    return work_dir / 'probe.json'


def write_curve(work_dir: Path, summary: CurveSummary) -> None:
    """Writes ``probe.csv`` and then ``probe.json``, each atomically."""
    with atomic_open(work_dir / 'probe.csv', 'w') as file:
        file.write(curve_csv(summary))
    write_json(curve_path(work_dir), msgspec.to_builtins(summary.curve))


def read_curve(work_dir: Path) -> Curve | None:
    """The curve that a probe has left; None if there was none.

    Raises:
        UserError: the file cannot be read, or does not hold a curve.
    """
    path = curve_path(work_dir)
    try:
        # Python's parser, because msgspec's ends at numbers of hundreds of digits without a word.
        content = json.loads(path.read_text(encoding='utf-8'))
        return msgspec.convert(content, Curve)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise UserError(
            f'{path} cannot be read ({one_line(error, _LONGEST)}): run tools/probe.py again, '
            'or remove the file'
        ) from None


def read_judged_curve(work_dir: Path) -> JudgedCurve | None:
    """The curve of a work dir with its statistics and verdict; None if there is none.

    Raises:
        UserError: as ``read_curve``.
    """
    curve = read_curve(work_dir)
    if curve is None:
        return None
    summary = summarise(curve)
    return summary, judge(summary)
