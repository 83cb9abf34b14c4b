"""What the report makes of a run: its verdict, who loses much, in which order clusters stand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from adadedup_mm.base import words
from adadedup_mm.report.losers import LEVEL, loser_notes, loses_much
from adadedup_mm.report.ranking import highest_gap_first, most_pruned_first, telling_gaps
from adadedup_mm.report.sections import glossary, keep_ratio_note, similarity_word
from adadedup_mm.report.verdict import Conclusion, conclude
from adadedup_mm.workdir.manifest import GapReliability, Manifest, NearDuplicates, UpdateFacts


def manifest(**changes: Any) -> Manifest:
    facts: dict[str, Any] = dict(
        adadedup_mm='1',
        versions={},
        strategy='adadedup',
        keep_ratio=0.8,
        seed=0,
        samples=1000,
        kept=800,
        pruned=200,
        options={},
        inputs=[],
        files=[],
        stages={},
        seconds=1.0,
        break_even=None,
        notes=[],
        gap_reliability=None,
        threshold_curve=None,
        started='',
        finished='',
        layout=0.3,
        near_duplicates=NearDuplicates(0.97, 0.2, 0.99),
    )
    return Manifest(**facts | changes)


def finished(
    suspects: int = 0,
    clusters: dict[str, Any] | None = None,
    classes: dict[str, Any] | None = None,
    **changes: Any,
) -> Any:
    told = manifest(**changes)
    return SimpleNamespace(
        manifest=told,
        samples=dict(
            label_suspect=np.arange(told.samples) < suspects,
            image_similarity=np.full(told.samples, np.nan),
        ),
        clusters=clusters or dict(cluster=np.arange(3), gap=np.array([0.1, np.nan, 0.3])),
        classes=classes or {},
    )


def update(*due: str) -> UpdateFacts:
    return UpdateFacts(
        of='old',
        full_samples=900,
        old=900,
        new=100,
        new_kept=75,
        gone=0,
        far=0,
        growth=0.1,
        full_run_due=list(due),
    )


def probe(strategy: str = 'clip_dedup', keep_ratio: float | None = 0.5) -> Any:
    told = SimpleNamespace(
        sentences=('At 50 % no loss can be measured.', 'clip_dedup is better than random.'),
        next_step='python tools/prune.py CONFIG --keep-ratio 0.5',
        strategy=strategy,
        keep_ratio=keep_ratio,
    )
    return None, told


def text(conclusion: Conclusion) -> str:
    return ' '.join(conclusion.sentences).replace(words.SPACE, ' ')


def commands(conclusion: Conclusion) -> list[str]:
    return [command for _, command in conclusion.steps]


@pytest.mark.parametrize(
    ('share', 'sentence'),
    [
        (0.9, 'Of the 200 samples that went, 90 % have a near-duplicate among what stayed: mostly'),
        (0.2, '20 % have a near-duplicate among what stayed; the others are distinct images'),
        (0.01, 'Train on all of them, or expect to lose what random pruning loses.'),
        (None, 'the features can hardly tell these images apart'),
    ],
)
def test_the_verdict_says_how_much_was_redundant_and_what_to_expect(
    share: float | None, sentence: str
) -> None:
    assert sentence in text(conclude(finished(near_duplicates=NearDuplicates(0.97, share))))


def test_what_no_run_has_recorded_is_called_unknown_with_the_reason() -> None:
    assert 'an older version' in text(conclude(finished(near_duplicates=UNSET)))
    no_clusters = dict(cluster=np.array([]))
    random = finished(near_duplicates=UNSET, strategy='random', clusters=no_clusters)
    assert 'the strategy random does not compare images' in text(conclude(random))


def test_the_next_command_trains_and_a_probe_comes_first_where_it_is_not_plain() -> None:
    training = "python tools/train.py 'my dir/config.py'"
    plain = conclude(finished(near_duplicates=NearDuplicates(0.97, 0.9)), work_dir='my dir')
    assert commands(plain) == [training]
    doubtful = conclude(finished(), work_dir='my dir')
    assert commands(doubtful) == [
        "python tools/probe.py CONFIG --work-dir 'my dir'",
        training,
    ]
    whole = conclude(finished(kept=1000, pruned=0, near_duplicates=UNSET))
    assert commands(whole) == ['python tools/train.py WORK_DIR/config.py']
    assert text(whole) == 'Nothing was pruned: this is a training on all samples.'


def test_a_probe_has_the_first_word_and_nothing_contradicts_it() -> None:
    few = finished(near_duplicates=NearDuplicates(0.97, 0.01))
    conclusion = conclude(few, probe())
    assert conclusion.sentences[0] == 'At 50 % no loss can be measured.'
    assert 'Train on all' not in text(conclusion)
    assert commands(conclusion)[0] == 'python tools/prune.py CONFIG --keep-ratio 0.5'


def test_a_run_that_is_what_the_probe_advises_is_trained_on() -> None:
    conclusion = conclude(finished(), probe('adadedup', 0.8))
    assert commands(conclusion) == ['python tools/train.py WORK_DIR/config.py']


def test_a_full_run_that_is_due_and_suspects_are_said() -> None:
    conclusion = conclude(finished(suspects=2, update=update('the data has grown by 40%')))
    assert 'A full run is due: the data has grown by 40%.' in conclusion.sentences
    assert '2 label suspects should be looked at before training.' in conclusion.sentences
    assert commands(conclusion)[0].startswith('python tools/prune.py CONFIG')


@given(
    share=st.none() | st.floats(0, 1),
    suspects=st.integers(0, 3),
    is_due=st.booleans(),
    is_probed=st.booleans(),
)
def test_a_verdict_has_one_to_three_sentences_and_ends_with_the_training(
    share: float | None, suspects: int, is_due: bool, is_probed: bool
) -> None:
    run = finished(
        suspects,
        near_duplicates=NearDuplicates(0.97, share),
        update=update('new classes: bus') if is_due else UNSET,
    )
    conclusion = conclude(run, probe() if is_probed else None)
    assert 1 <= len(conclusion.sentences) <= 3
    assert all(sentence.endswith('.') for sentence in conclusion.sentences)
    assert commands(conclusion)[-1] == 'python tools/train.py WORK_DIR/config.py'


def losers(shares: list[float], draws: list[int], average: float = 0.8) -> list[bool]:
    return loses_much(np.array(shares, float), np.array(draws), average).tolist()


def test_who_loses_much_by_more_than_chance_is_found() -> None:
    # Person, DontCare, and as little of two samples, which says nothing.
    assert losers([0.717, 0.508, 0.5, 0.79], [1100, 60, 2, 5000]) == [True, True, False, False]


def test_a_small_difference_is_not_much_however_sure_it_is() -> None:
    assert losers([0.75], [10**6]) == [False]
    assert losers([np.nan, 1.0], [0, 5]) == [False, False]


@settings(max_examples=20, deadline=None)
@given(draws=st.lists(st.integers(1, 300), min_size=1, max_size=40), seed=st.integers(0, 10**6))
def test_chance_alone_hardly_ever_loses_much(draws: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = np.array(draws)
    tables = generator.binomial(sizes, 0.7, (200, len(sizes)))
    found = [loses_much(kept / sizes, sizes, 0.7).any() for kept in tables]
    # Six standard errors above the level.
    assert np.mean(found) <= LEVEL + 6 * (LEVEL / 200) ** 0.5


@given(
    kept=st.lists(st.integers(0, 100), min_size=2, max_size=2, unique=True),
    size=st.integers(100, 400),
)
def test_who_keeps_more_is_no_loser_where_who_keeps_less_is_none(
    kept: list[int], size: int
) -> None:
    less, more = losers([min(kept) / size, max(kept) / size], [size, size])
    assert less or not more


CLASSES = {
    'class': np.array(['Car', 'Person', 'Bus', 'DontCare'], object),
    'instances': np.array([20000, 12000, 3, 130]),
    'instances_kept': np.array([16500, 8604, 1, 66]),
    'images': np.array([950, 600, 3, 60]),
    'images_kept': np.array([780, 440, 1, 30]),
}


def test_classes_and_scenes_that_lose_much_are_named_with_their_numbers() -> None:
    scenes = [
        dict(scene='night', samples=100, kept=40, copies=45),
        dict(scene='day', samples=900, kept=760, copies=0),
    ]
    notes = loser_notes(finished(classes=CLASSES), scenes)
    assert [note.replace(words.SPACE, ' ') for note in notes] == [
        'Some classes keep much less than the average of 80.0 %: DontCare 50.8 % (66 of 130 '
        'objects), Person 71.7 % (8,604 of 12,000 objects).',
        'Some scenes keep much less than the average of 80.0 %: night 40.0 % (40 of 100 samples). '
        'Of what these lost, 75 % has a near-duplicate among what stayed.',
    ]


def test_only_the_hardest_hit_are_named() -> None:
    scenes = [dict(scene=f's{kept}', samples=100, kept=kept, copies=0) for kept in range(10, 17)]
    note = loser_notes(
        finished(classes={name: values[:0] for name, values in CLASSES.items()}), scenes
    )
    assert len(note) == 1 and 's10' in note[0] and note[0].endswith('and 2 more.')


def test_gaps_without_signal_order_nothing() -> None:
    assert np.isnan(telling_gaps(finished())).all()
    silent = finished(gap_reliability=GapReliability(signal_share=0.0))
    assert np.isnan(telling_gaps(silent)).all()
    telling = finished(gap_reliability=GapReliability(signal_share=0.3))
    assert telling_gaps(telling)[2] == 0.3


def test_clusters_stand_by_share_of_what_went_then_by_count() -> None:
    size = np.array([10, 100, 4, 10, 0])
    kept = np.array([5, 50, 1, 10, 0])
    assert most_pruned_first(size, kept).tolist() == [2, 1, 0, 3, 4]
    gap = np.array([np.nan, 0.1, np.nan, 0.2, np.nan])
    assert highest_gap_first(gap, size, kept).tolist() == [3, 1, 2, 0, 4]


def test_an_update_explains_why_its_share_is_not_the_keep_ratio() -> None:
    assert keep_ratio_note(finished()) == ''
    note = keep_ratio_note(finished(keep_ratio=0.7, kept=783, pruned=217, update=update()))
    plain = note.replace(words.SPACE, ' ')
    assert 'Keep ratio 70.0 %' in plain and '75 of 100 new samples' in plain and '78.3 %' in plain


def test_the_glossary_has_one_word_for_each_similarity() -> None:
    told = dict(glossary(finished()))
    assert list(told) == ['Density score', 'Image similarity', 'Near-duplicate bound']
    assert '30' in told['Density score'] and '0.97' in told['Near-duplicate bound']
    assert 'labels' not in dict(glossary(finished(layout=0.0)))['Density score']
    assert not glossary(finished(clusters=dict(cluster=np.array([]))))


def test_what_stands_on_pictures_is_called_what_it_is() -> None:
    blended = finished()
    assert similarity_word(blended) == 'density score'
    assert similarity_word(finished(layout=0.0)) == 'image similarity'
    blended.samples['image_similarity'][3] = 0.9
    assert similarity_word(blended) == 'image similarity'
