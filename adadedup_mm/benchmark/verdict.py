"""What a benchmark comes to, in a sentence or two for each model."""

from collections.abc import Sequence

import numpy as np

from ..base.words import number
from .config import FULL, RANDOM
from .statistics import LEVEL, IntervalEstimate, paired_difference
from .tables import Results

_ONE_SEED = (
    'there is one seed, and two trainings of the same samples differ, too: no difference between '
    'variants can be told from chance; name more seeds'
)
_ONE_SELECTION = (
    'there is one seed: which of these differences another world or another draw would show is '
    'unknown; name more seeds'
)


def verdict_text(every: Sequence[Results]) -> str:
    """A paragraph for each model: what differs from the references by more than noise."""
    parts = []
    for results in every:
        sentences = ' '.join(verdict_sentences(results))
        if sentences:
            parts.append(f'**{results.model}**: {sentences}\n')
    return '\n'.join(parts)


def verdict_sentences(results: Results) -> list[str]:
    """One sentence for random and one for the variant that all are compared with.

    A caution in their place where there is a single seed.
    """
    if results.seeds < 2:
        caution = _ONE_SELECTION if results.is_probe else _ONE_SEED
        return [f'{caution}.']
    sentences = []
    for reference in dict.fromkeys((RANDOM, results.compare_with)):
        compared = _compared(results, reference)
        if compared:
            sentences.append(_sentence(results, reference, compared))
    return sentences


def mean_difference(
    results: Results, variant: str, reference: str, level: float = LEVEL
) -> IntervalEstimate:
    """The difference between two variants: the mean over keep ratios, paired by seed.

    Seeds in which a ratio has failed are left out.

    Args:
        results: of one model.
        variant: the first.
        reference: what is subtracted.
        level: of the interval.
    """
    by_seed: dict[int, list[float]] = {}
    for ratio in results.columns:
        values = results.values(variant, ratio)
        others = results.reference(reference, ratio)
        for seed in values.keys() & others.keys():
            by_seed.setdefault(seed, []).append(values[seed] - others[seed])

    most = max(map(len, by_seed.values()), default=0)
    complete = [by_seed[seed] for seed in sorted(by_seed) if len(by_seed[seed]) == most]
    differences = np.array([np.mean(of_seed) for of_seed in complete])
    return paired_difference(differences, np.zeros(len(differences)), level)


def _compared(results: Results, reference: str) -> dict[str, IntervalEstimate]:
    """The differences from a reference; the intervals cover all of them at once (Bonferroni)."""
    if reference not in results.variants:
        return {}
    variants = []
    for variant in results.variants:
        is_other = variant not in (FULL, reference)
        if is_other and mean_difference(results, variant, reference).seeds > 1:
            variants.append(variant)
    level = 1 - (1 - LEVEL) / max(len(variants), 1)
    return {name: mean_difference(results, name, reference, level) for name in variants}


def _sentence(results: Results, reference: str, compared: dict[str, IntervalEstimate]) -> str:
    better = {name: value for name, value in compared.items() if value.low > 0}
    worse = {name: value for name, value in compared.items() if value.high < 0}
    same = [name for name in compared if name not in better | worse]
    parts = []
    if better:
        parts.append(f'{_with_values(better)} better')
    if worse:
        parts.append(f'{_with_values(worse)} worse')
    if same and parts:
        parts.append(f'{", ".join(same)} the same but for noise')
    outcome = '; '.join(parts) or f'nothing differs by more than noise ({", ".join(same)})'

    seeds = max(value.seeds for value in compared.values())
    unit = f'{"points of " if results.scale == 100 else ""}{results.metric}'
    basis = f'{unit}, mean over keep ratios, {seeds} seeds, 95 % for all at once'
    return f'Against {reference} ({basis}): {outcome}.'


def _with_values(estimates: dict[str, IntervalEstimate]) -> str:
    """Names with their differences, the largest first."""
    names = sorted(estimates, key=lambda name: -abs(estimates[name].value))
    return ', '.join(f'{name} {number(estimates[name].value, 2, sign=True)}' for name in names)
