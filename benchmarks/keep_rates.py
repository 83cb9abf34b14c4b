"""Puts what a benchmark's variants keep, by class and kind of scene, into a section of a page.

    python benchmarks/keep_rates.py work_dirs/minidrive docs/RESULTS.md

The section is what stands between ``<!-- minidrive_rates -->`` and
``<!-- end of minidrive_rates -->``, after the name of the work dir; the rates of each selection go
to ``results/minidrive_rates.csv`` beside the page. Kinds of scenes are those of MiniDrive's
``truth.parquet``; for other data there are classes only. ``signal`` is the share of the variance of
the proxy's gaps that is told from noise.
"""

import argparse
import csv
import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sections import fill_section, split_page

from adadedup_mm.base.files import atomic_open
from adadedup_mm.benchmark.jobs import folder_name
from adadedup_mm.benchmark.results import RESULTS, Row, read_results
from adadedup_mm.benchmark.tables import Table, markdown
from adadedup_mm.workdir.manifest import known_manifest
from adadedup_mm.workdir.tables import CLASSES, SAMPLES

COLUMNS = ('variant', 'keep_ratio', 'seed', 'group', 'name', 'all', 'kept')


def read_rates(work_dir: Path, rows: Sequence[Row]) -> Iterator[tuple]:
    """``COLUMNS`` of each selection of the first model.

    They are objects of each class, images of each kind of scene, and the signal.
    """
    for row in rows:
        if row['keep_ratio'] is None or row['status'] != 'done' or row['model'] != rows[0]['model']:
            continue
        folder = work_dir / 'jobs' / folder_name(row) / 'adadedup'
        if not folder.exists():  # pruned while training
            continue
        start = (row['variant'], row['keep_ratio'], row['seed'])
        for one in CLASSES.read(folder).to_pylist():
            yield (*start, 'class', one['class'], one['instances'], one['instances_kept'])
        kinds = _kinds(json.loads(row['settings'])['data'].get('root', ''))
        if kinds:
            samples = SAMPLES.read(folder).select(['sample_id', 'kept']).to_pydict()
            kind = np.array([kinds[sample] for sample in samples['sample_id']])
            for name in sorted(set(kind)):
                kept = np.array(samples['kept'])[kind == name]
                yield (*start, 'scene', name, len(kept), int(kept.sum()))
        manifest = known_manifest(folder)
        reliability = manifest.gap_reliability if manifest else None
        if reliability and reliability.signal_share is not None:
            yield (*start, 'gaps', 'signal', 1, reliability.signal_share)


@functools.cache
def _kinds(root: str) -> dict[str, str]:
    """Sample -> kind of its scene; empty for other data than MiniDrive."""
    truth = Path(root, 'truth.parquet')
    if not truth.exists():
        return {}
    return dict(
        zip(*pq.read_table(truth).select(['sample_id', 'kind']).to_pydict().values(), strict=True)
    )


def tables(rates: Sequence[Sequence[str]]) -> str:
    """Markdown with a table for each keep ratio, a row for each variant.

    Args:
        rates: as in the CSV file.
    """
    shares = defaultdict(list)
    for variant, ratio, _, group, name, count, kept in rates:
        if int(count):
            shares[ratio, variant, group, name].append(float(kept) / int(count))
    columns = list(dict.fromkeys((group, name) for _, _, group, name in shares))
    by_ratio = []
    for ratio in sorted({ratio for ratio, *_ in shares}, key=float):
        variants = dict.fromkeys(variant for other, variant, *_ in shares if other == ratio)
        rows = [
            [
                variant,
                *(
                    f'{np.mean(values):.0%}' if (values := shares[ratio, variant, *column]) else '-'
                    for column in columns
                ),
            ]
            for variant in variants
        ]
        title = (
            f'{float(ratio):.0%} kept: the objects of each class and the images of each kind of '
            'scene that stay, '
            "and the signal in the proxy's gaps; mean over seeds"
        )
        by_ratio.append(Table('rates', title, ['', *(name for _, name in columns)], rows))
    return markdown(by_ratio)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path)
    parser.add_argument('page', type=Path)
    args = parser.parse_args()
    name = f'{args.work_dir.resolve().name}_rates'
    split_page(args.page, name)  # before there is anything to undo
    rates = [*read_rates(args.work_dir, read_results(args.work_dir / RESULTS))]
    with atomic_open(args.page.parent / 'results' / f'{name}.csv', 'w') as file:
        csv.writer(file, lineterminator='\n').writerows([COLUMNS, *rates])
    fill_section(args.page, name, tables(rates))


if __name__ == '__main__':
    main()
