"""How well the probe predicts trainings: rank correlation of two benchmarks' results.

    python benchmarks/probe_trust.py TRAININGS.parquet PROBE.parquet

Both are ``results.parquet`` of ``tools/benchmark.py``, one of trainings, the other of the probe,
with the same variants, keep ratios and seeds. Correlated are, inside each keep ratio, single
trainings and the means of the variants over seeds.
"""

import argparse
import json

import pandas as pd
import pyarrow.parquet as pq

MEASURES = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50'}
_SAME = ['variant', 'keep_ratio', 'seed']


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('trainings')
    parser.add_argument('probe')
    args = parser.parse_args()
    trained = read(args.trainings)
    probed = read(args.probe)
    both = trained.merge(probed, on=_SAME, suffixes=('_trained', '_probed'))
    both = both.dropna(subset=['keep_ratio'])
    print('| kept | trainings | single: AP | AP50 | means of variants: AP | AP50 |')
    print('|---|---:|---:|---:|---:|---:|')
    for ratio, rows in both.groupby('keep_ratio'):
        single = [correlation(rows, measure) for measure in MEASURES]
        means = rows.groupby('variant').mean(numeric_only=True)
        of_means = [correlation(means, measure) for measure in MEASURES]
        figures = ' | '.join(f'{value:.2f}' for value in (*single, *of_means))
        print(f'| {ratio:.0%} | {len(rows)} | {figures} |')


def read(path: str) -> pd.DataFrame:
    """Variant, keep ratio, seed and the measures of the results that are there."""
    table = pq.read_table(path).to_pandas()
    done = table[table['status'] == 'done'].copy()
    metrics = done['metrics'].map(json.loads)
    for name, key in MEASURES.items():
        done[name] = [values.get(key) for values in metrics]
    return done[[*_SAME, *MEASURES]]


def correlation(rows: pd.DataFrame, measure: str) -> float:
    """Spearman's rank correlation of what was trained and what was predicted."""
    return rows[f'{measure}_trained'].corr(rows[f'{measure}_probed'], 'spearman')


if __name__ == '__main__':
    main()
