"""The strategy ``vlm_sse``: a greedy choice by images' features inside clusters of captions."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.checks import whole
from ..base.errors import UserError
from ..base.files import read_array, write_array
from ..captions import (
    caption_shards,
    captions_key,
    make_encoder,
    text_shards,
)
from ..clusters import SphericalKMeans
from ..density import greedy_budget
from ..feedback import keep_count
from ..pool import choose_views, pool_key
from ..registry import STRATEGIES
from ..selection import Selection

if TYPE_CHECKING:
    from .run import Run

# Samples for each cluster of captions at least, on average.
_LEAST = 10


@STRATEGIES.register_module()
def vlm_sse(
    run: 'Run',
    captions: dict[str, Any] | str | None = None,
    text: str = 'auto',
    num_clusters: int = 300,
) -> Selection:
    """VLM-SSE (arXiv 2409.13860): samples that are described alike compete by how alike they look.

    The paper's: a caption for each image, k-means of the captions' text features with k=300, and
    inside each cluster the greedy rule that an image goes if 1 - cos(v_i, v_j) < epsilon for a kept
    image i, v being CLIP's image features. Ours: the order of the greedy choice (the dataset's),
    epsilon by bisection so that the budget is met exactly (see ``greedy_budget``), spherical
    k-means, at most a cluster for ten samples, and other sources of captions and features than the
    paper's LLaVA and MPNet.

    Args:
        run: the pruning run.
        captions: a file with captions, or a dict built from ``CAPTIONERS``; None makes sentences of
            the annotations.
        text: ``'clip'``, ``'ngrams'`` or ``'auto'`` (see ``make_encoder``).
        num_clusters: at most this many, and at most a tenth of the number of samples.

    Raises:
        UserError: an argument is wrong, or a sample has no caption.
    """
    whole(num_clusters, 'adadedup.strategy.num_clusters', 1)
    if run.options.on_bad_image == 'error':
        _ = run.unreadable  # What is refused should come to light before captions are made.
    most = len(run.pool) // _LEAST
    clusterer = SphericalKMeans(max(1, min(num_clusters, most)))
    texts, source = _captions(run, captions)
    labels, described = _text_clusters(run, texts, text, clusterer)
    kept, similarity, tau = _choose(run, labels)
    clusters = labels.max() + 1
    selection = Selection(kept, labels, _positions(labels), similarity, np.full(clusters, tau))
    selection.notes.append(
        f'Captions: {source}. Text features: {described}. {clusters} clusters of captions; '
        f'epsilon {1 - tau:.4f}.'
    )

    return selection


def _choose(run: 'Run', labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The stage ``greedy``: what ``greedy_budget`` returns for these clusters."""
    usable = ~run.dropped
    budget = keep_count(run.options.keep_ratio, len(usable))
    count = min(budget, int(usable.sum()))
    features = run.features  # Their stage has a key from now on.

    def compute(folder: Path) -> None:
        kept, similarity, tau = greedy_budget(features, labels, count, usable)
        write_array(folder / 'kept.npy', kept)
        write_array(folder / 'similarity.npy', similarity)
        write_array(folder / 'threshold.npy', np.array(tau))

    inputs = dict(
        clusters=run.ledger.used['clusters'], features=run.ledger.used['features'], count=count
    )
    if run.dropped.any():
        inputs['dropped'] = np.flatnonzero(run.dropped).tolist()
    folder = run.stage('greedy', inputs, compute)
    kept = read_array(folder / 'kept.npy')
    similarity = read_array(folder / 'similarity.npy')
    tau = read_array(folder / 'threshold.npy')

    return kept, similarity, float(tau)


def _captions(run: 'Run', captions: dict[str, Any] | str | None) -> tuple[list[str], str]:
    """The N captions, and where they come from in words."""
    from ..registry import CAPTIONERS, build  # which registers this module's strategy

    if not captions and not run.pool.labelled.all():
        raise UserError(
            'strategy vlm_sse makes captions of the annotations, but some samples have no '
            'labels: give adadedup.strategy.captions, or use another strategy'
        )

    options = captions or dict(type='AnnotationCaptioner')
    if isinstance(options, str):
        options = dict(type='CaptionFile', file=options)
    if not isinstance(options, dict) or not isinstance(options.get('type'), str):
        raise UserError(
            f'adadedup.strategy.captions is {captions!r}, but must be a file, or a dict with a '
            "'type'"
        )

    captioner = build(CAPTIONERS, options, 'adadedup.strategy.captions')
    column = choose_views(run.pool.views, run.options.views)[0]
    paths = [views[column] if views else '' for views in run.pool.image_paths]
    if options['type'] == 'CaptionFile':
        run.ledger.inputs[str(captioner.file)] = captioner.key['sha256']

    inputs = dict(
        captioner=captions_key(captioner, options),
        column=column,
        images=run.image_stages.images_key,
        annotations=pool_key(run.pool),
        sizes=run.pool.image_sizes.tolist(),
    )
    folder = run.stage('captions', inputs, caption_shards(captioner, run.pool, paths))
    texts = json.loads((folder / 'captions.json').read_text(encoding='utf-8'))
    source = getattr(captioner, 'source', f'made by {options["type"]}')

    return texts, source


def _text_clusters(
    run: 'Run', texts: list[str], kind: str, clusterer: SphericalKMeans
) -> tuple[np.ndarray, str]:
    """(N,) int32 clusters of the captions, and what their features are in words."""
    different = sorted(set(texts))
    position = {text: row for row, text in enumerate(different)}
    rows = np.array([position[text] for text in texts])
    encoder = make_encoder(kind, run.image_stages.embedder, different)
    text_inputs = dict(captions=run.ledger.used['captions'], encoder=encoder.key)
    folder = run.stage('text', text_inputs, text_shards(different, rows, encoder))
    features = read_array(folder / 'text.npy', mmap_mode='r')
    inputs = dict(text=run.ledger.used['text'], num_clusters=clusterer.num_clusters)
    labels = run.density_stages.cluster(clusterer, features, inputs)

    return labels, encoder.source


def _positions(labels: np.ndarray) -> np.ndarray:
    """(N,) int32, the place of each sample among those of its label."""
    order = np.argsort(labels, kind='stable')
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    positions = np.empty(len(labels), np.int32)
    positions[order] = np.arange(len(labels)) - starts[labels[order]]
    return positions
