"""The predicted quality of selections of several strategies, beside random and the whole set."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from ..base.errors import UserError
from ..base.files import sha256_items
from ..base.progress import progress
from ..datasets import read_pool
from ..features.alike import share_made_alike
from ..features.stage import file_stamp
from ..images import Reader
from ..images.training import training_reader
from ..pool import Pool
from ..probe.curve import NO_DUPLICATES, NOISY_COPIES, WHOLE, Curve, Point
from ..probe.folds import FOLDS, scene_blocks
from ..probe.pictures import Pictures, pictures_of
from ..probe.precision import Precision, Truth
from ..probe.predict import detection_shards, read_detections
from ..registry import EMBEDDERS, STRATEGIES, bind, build
from ..settings.options import Options
from ..stages import ReadingStore
from ..strategies.needs import needs_of
from ..strategies.run import Run
from .rules import apply_rules

# Validation pictures that are looked at; more make the result hardly more certain.
MOST_PICTURES = 2000
# Fewer near-duplicates among the samples are called none.
_FEW = 0.02
# From this share of samples on that only noise keeps from being near-duplicates, it is told.
_MANY = 0.1


@dataclasses.dataclass(frozen=True)
class Target:
    """What heads are asked about.

    Attributes:
        pictures: see ``Pictures``.
        chosen: (n,) int64, which of them are looked at.
        fold: (n,) int64, whose heads look at them.
        of_fold: (N,) int64, the fold of each training sample, -1 for none; its heads
            do not see it.
        blocks: blocks of scenes, as indices into ``chosen``.
        reader: how the images are read.
        words: what it is, for people.
    """

    pictures: Pictures
    chosen: np.ndarray
    fold: np.ndarray
    of_fold: np.ndarray
    blocks: list[np.ndarray]
    reader: Reader
    words: str


def measure_curve(
    config: Config,
    options: Options,
    work_dir: Path,
    strategies: Sequence[str],
    keep_ratios: Sequence[float],
    seeds: int = 3,
) -> Curve:
    """Measures selections by the probe, on the config's validation set or by cross-validation.

    Stages are kept in ``work_dir/probe`` and used again; those of a pruning run in ``work_dir`` are
    used as well. ``random`` is drawn ``seeds`` times, the others once.

    Args:
        config: a training config.
        options: its ``adadedup`` dict, resolved.
        work_dir: where stages go.
        strategies: their names.
        keep_ratios: in (0, 1).
        seeds: how often random selections are drawn.

    Raises:
        UserError: the input is wrong, there are no boxes, or a strategy trains detectors.
    """
    started = time.time()
    pool, sources = read_pool(config)
    store = ReadingStore(work_dir / 'probe' / 'stages', also=work_dir / 'stages')
    run = Run(config, options, store, pool, sources)
    selections = _select(run, strategies, keep_ratios, seeds)
    target = target_of(run)
    results = precisions_of(run, target, np.array([kept for _, kept in selections]))
    points = []
    for (name, kept), result in zip(selections, results, strict=True):
        strategy, ratio, seed = name
        point = Point(
            strategy=strategy,
            keep_ratio=ratio,
            seed=seed,
            samples=int(kept.sum()),
            quality=result.ap50,
            by_scene=tuple(result.without.tolist()),
        )
        points.append(point)

    return Curve(
        measure='AP50',
        validation=target.words,
        samples=len(pool),
        points=tuple(points),
        seconds=time.time() - started,
        notes=_notes(run),
    )


Named = tuple[tuple[str, float, int], np.ndarray]


def _select(
    run: Run, strategies: Sequence[str], keep_ratios: Sequence[float], seeds: int
) -> list[Named]:
    """Every strategy's choice at every ratio, the whole set last."""
    wanted = []
    for strategy in strategies:
        _refuse_trainings(run, strategy)
        for ratio in keep_ratios:
            draws = range(seeds) if strategy == 'random' else [run.options.seed]
            wanted += [(strategy, ratio, seed) for seed in draws]

    selections = []
    with progress(len(wanted), 'selections', 'selection') as bar:
        for name in wanted:
            selections.append((name, selected(run, *name)))
            bar.update()

    everything = np.ones(len(run.pool), bool)
    selections.append(((WHOLE, 1.0, 0), everything))
    return selections


def _refuse_trainings(run: Run, strategy: str) -> None:
    """Raises UserError for a strategy that takes far longer than measuring its selections."""
    other = _with(run, strategy=_strategy_options(run, strategy))
    if needs_of(other, run.options.keep_ratio).trained:
        raise UserError(
            f'--strategies: {strategy} trains detectors, which takes far longer than the probe: '
            'compare it by tools/benchmark.py'
        )


def _strategy_options(run: Run, strategy: str) -> dict[str, Any] | str:
    """The options of a strategy: the config's own if it names it."""
    return run.options.strategy if run.options.strategy_name == strategy else strategy


def selected(run: Run, strategy: str, keep_ratio: float, seed: int) -> np.ndarray:
    """(N,) bool, what a strategy keeps, guards included.

    Args:
        run: whose data, options and stages are used.
        strategy: its name.
        keep_ratio: in (0, 1].
        seed: of the selection.
    """
    other = _with(
        run,
        strategy=_strategy_options(run, strategy),
        keep_ratio=keep_ratio,
        seed=seed,
    )
    return kept_by(other)


def kept_by(run: Run) -> np.ndarray:
    """(N,) bool, what a run's strategy keeps, guards included."""
    choose = bind(STRATEGIES, run.options.strategy, 'adadedup.strategy')
    selection = choose(run)
    apply_rules(run, selection)
    return selection.kept


def _with(run: Run, **changes: Any) -> Run:
    """The same run with other options; what it asks for feedback is the probe."""
    feedback = dataclasses.replace(run.options.feedback, signal='probe')
    options = dataclasses.replace(run.options, feedback=feedback, **changes)
    return Run(run.config, options, run.store, run.pool, run.sources)


def target_of(run: Run) -> Target:
    """The validation set if it has boxes of the same classes, otherwise the training set itself."""
    loader = run.config.get('val_dataloader')
    if loader and 'dataset' in loader:
        validation = Config(dict(run.config._cfg_dict, train_dataloader=loader))
        pool, sources = read_pool(validation)
        if all(pool.image_paths) and pool.classes == run.pool.classes:
            pictures = pictures_of(pool, sources, run.options.views)
            if len(pictures.boxes):
                return _validation_set(run, pool, pictures, training_reader(validation))
    return _cross_validation(run)


def _validation_set(run: Run, pool: Pool, pictures: Pictures, reader: Reader) -> Target:
    chosen = _spread(pool, pictures)
    blocks, words = _blocks(pool, pictures, chosen)
    return Target(
        pictures=pictures,
        chosen=chosen,
        fold=np.zeros(len(chosen), np.int64),
        of_fold=np.full(len(run.pool), -1),
        blocks=blocks,
        reader=reader,
        words=f'{len(chosen)} images of the validation set, {words}',
    )


def _cross_validation(run: Run) -> Target:
    pool = run.pool
    of_fold = run.folds(FOLDS)
    pictures = run.probe_stages.pictures
    chosen = _spread(pool, pictures)
    blocks, words = _blocks(pool, pictures, chosen)
    kind = 'scene' if pool.has_several_scenes else 'cluster'
    return Target(
        pictures=pictures,
        chosen=chosen,
        fold=of_fold[pictures.sample[chosen]],
        of_fold=of_fold,
        blocks=blocks,
        reader=run.image_stages.reader,
        words=f'{of_fold.max() + 1}-fold cross-validation by {kind}, {words}',
    )


def _spread(pool: Pool, pictures: Pictures) -> np.ndarray:
    """(n,) int64, pictures of labelled samples at equal distances."""
    labelled = np.flatnonzero(pool.labelled[pictures.sample])
    count = min(len(labelled), MOST_PICTURES)
    places = np.linspace(0, len(labelled) - 1, count).round().astype(np.int64)
    return labelled[places]


def _blocks(pool: Pool, pictures: Pictures, chosen: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Blocks of scenes as indices into the chosen pictures, and what they are in words."""
    block_of_sample = scene_blocks(pool.scenes, len(pool))
    block = block_of_sample[pictures.sample[chosen]]
    blocks = [np.flatnonzero(block == number) for number in np.unique(block)]
    if pool.scenes and pool.has_several_scenes:
        return blocks, f'{len(set(pool.scenes))} scenes'
    return blocks, 'no scenes known'


def precisions_of(run: Run, target: Target, kept: np.ndarray) -> list[Precision]:
    """How good the heads of S selections are, all measured in one pass over the pictures.

    Args:
        run: whose probe is asked.
        target: what the heads are asked about.
        kept: (S, N) bool, the selections.
    """
    probe = run.probe_stages
    folds = np.unique(target.fold)
    # Of all folds at once: their selections share most of their pictures.
    seen = np.concatenate([kept & (target.of_fold != fold) for fold in folds])
    of_all_folds = probe.heads(seen[:, probe.pictures.sample])
    starts = range(0, len(of_all_folds), len(kept))
    heads = [of_all_folds[start : start + len(kept)] for start in starts]

    found = detection_shards(
        target.pictures,
        target.chosen,
        probe.backbone,
        target.reader,
        probe.size,
        heads,
        np.searchsorted(folds, target.fold),
    )
    inputs = dict(
        probe=run.ledger.used['probe'],
        kept=sha256_items(kept),
        pictures=_pictures_key(target),
        reader=target.reader.key,
        folds=sha256_items(target.of_fold),
    )
    folder = run.ledger.stage('detections', inputs, found)
    objects = [target.pictures.objects(picture) for picture in target.chosen]
    truth = Truth(
        [boxes for boxes, _ in objects],
        [labels for _, labels in objects],
        len(run.pool.classes),
    )
    results = []
    with progress(len(kept), 'precision', 'selection') as bar:
        for head in range(len(kept)):
            detections = read_detections(folder, len(target.chosen), head)
            results.append(truth.precision(detections, target.blocks))
            bar.update()

    return results


def _pictures_key(target: Target) -> str:
    """Hash of the pictures that are looked at, as ``ImageStages.images_key`` has it."""
    paths = [target.pictures.paths[picture] for picture in target.chosen]
    return sha256_items((path, *file_stamp(path)) for path in paths)


def _notes(run: Run) -> tuple[str, ...]:
    """What the verdict is to know about the data."""
    if not run.image_stages.looked_at_features:
        return ()
    notes = []
    if len(run.near_duplicates) < _FEW * len(run.pool):
        notes.append(NO_DUPLICATES)
    if _has_noisy_copies(run):
        notes.append(NOISY_COPIES)
    return tuple(notes)


def _has_noisy_copies(run: Run) -> bool:
    """Whether many samples look like copies once a median filter has taken the noise away."""
    images = run.image_stages
    if getattr(images.embedder, 'median', None) != 0:
        return False
    filtered = build(EMBEDDERS, dict(run.options.embedder, median=5), 'adadedup.embedder')
    share = share_made_alike(
        run.features,
        run.clusters,
        [paths[images.columns[0]] for paths in run.pool.image_paths],
        filtered,
        images.reader,
        images.embedder.near_duplicate,
    )
    return share >= _MANY
