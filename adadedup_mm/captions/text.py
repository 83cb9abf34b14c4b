"""Features of captions: CLIP's text side, or hashed n-grams where there is no text model."""

import functools
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from ..base.checks import choose
from ..base.errors import UserError
from ..base.files import write_array, write_rows
from ..features import OpenCLIPEmbedder
from ..stages import Done, Shards

# Texts per piece. Batches end where pieces end, so that the features do not depend on who computes
# which piece.
SHARD = 256
RESULT = 'text.npy'
DIM = 512
# Texts that the network sees at a time.
_BATCH = 64
# Samples whose features are written at a time.
_ROWS = 8192


class TextEncoder(Protocol):
    """Turns texts into features.

    Attributes:
        key: what the features depend on besides the text.
        source: what they are, in words for the report.
    """

    key: dict[str, Any]
    source: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, unit rows; zero for a text without a word."""


def make_encoder(kind: str, embedder: Any, texts: Sequence[str]) -> TextEncoder:
    """The text side that belongs to an embedder.

    Args:
        kind: ``'clip'``: the text side of the embedder's model; ``'ngrams'``; ``'auto'``: the first
            if the embedder has one, otherwise the second.
        embedder: from the config.
        texts: all of them, different ones.

    Raises:
        UserError: the kind is unknown, or the embedder has no text side.
    """
    choose(kind, ('auto', 'clip', 'ngrams'), 'adadedup.strategy.text')
    has_text = isinstance(embedder, OpenCLIPEmbedder)
    if kind == 'clip' and not has_text:
        raise UserError(
            f"adadedup.strategy.text is 'clip', but {type(embedder).__name__} has no text side: "
            "use OpenCLIPEmbedder, or text='ngrams'"
        )
    return ClipText(embedder) if has_text and kind != 'ngrams' else NgramText(texts)


class ClipText:
    """The text side of the embedder's CLIP, in float32; loaded when the first text comes.

    Args:
        embedder: whose model and weights are used.
    """

    def __init__(self, embedder: OpenCLIPEmbedder) -> None:
        self.embedder = embedder
        identity = {name: value for name, value in embedder.key.items() if name != 'precision'}
        self.key: dict[str, Any] = dict(identity, type='ClipText')
        self.source = f'the text side of {embedder.model}'

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """See ``TextEncoder``."""
        model, tokenizer = self._network
        rows = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            tokens = tokenizer(batch).to(self.embedder.device)
            features = model.encode_text(tokens).float()
            unit = functional.normalize(features, dim=1)
            rows.append(unit.cpu().numpy())

        return np.concatenate(rows)

    @functools.cached_property
    def _network(self) -> tuple[Any, Callable[[list[str]], torch.Tensor]]:
        return self.embedder.load_text()


class NgramText:
    """Words and pairs of neighbouring words, hashed into ``DIM`` columns with signs.

    Weinberger et al. 2009.

    A column's value is (1 + log count) * log((1 + n) / (1 + texts with this n-gram)) + 1, the usual
    tf-idf.

    Args:
        texts: n texts, from which the rarity of n-grams is taken.
    """

    source = 'hashed n-grams'

    def __init__(self, texts: Sequence[str]) -> None:
        self.key: dict[str, Any] = dict(
            type='NgramText',
            dim=DIM,
            version=1,
        )
        self.total = len(texts)
        self.documents = np.zeros(DIM, np.int64)
        for text in texts:
            columns = {_column(gram)[0] for gram in _ngrams(text)}
            self.documents[list(columns)] += 1

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """See ``TextEncoder``."""
        rarity = np.log((1 + self.total) / (1 + self.documents)) + 1
        rows = np.zeros((len(texts), DIM))
        for row, text in zip(rows, texts, strict=True):
            for gram, count in Counter(_ngrams(text)).items():
                column, sign = _column(gram)
                frequency = 1 + math.log(count)
                row[column] += sign * frequency * rarity[column]

        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / np.maximum(lengths, 1e-12)

        return unit.astype(np.float32)


def _ngrams(text: str) -> list[str]:
    words = re.findall(r'\w+', text.lower())
    pairs = [f'{first} {second}' for first, second in itertools.pairwise(words)]
    return words + pairs


@functools.lru_cache(maxsize=1 << 16)
def _column(gram: str) -> tuple[int, int]:
    """The column of an n-gram, and its sign there."""
    number = zlib.crc32(gram.encode())
    sign = -1 if number >> 31 else 1
    return number % DIM, sign


def text_shards(texts: Sequence[str], rows: np.ndarray, encoder: TextEncoder) -> Shards:
    """The work of the stage ``text``, which writes ``text.npy``, (N, d) float32.

    Args:
        texts: different ones.
        rows: (N,) int64, which text each sample has.
        encoder: see ``TextEncoder``.
    """
    parts = [texts[start : start + SHARD] for start in range(0, len(texts), SHARD)]
    files = [f'text_{number:05d}.npy' for number in range(len(parts))]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        for piece in pieces:
            features = encoder(parts[piece])
            done(len(features))
            write_array(folder / files[piece], features)

    def lead(folder: Path, share: Callable[[], None]) -> None:
        share()
        if (folder / RESULT).exists():
            return
        features = np.concatenate([np.load(folder / file) for file in files])
        blocks = (features[rows[start : start + _ROWS]] for start in range(0, len(rows), _ROWS))
        write_rows(folder / RESULT, (len(rows), features.shape[1]), blocks)

    sizes = [len(part) for part in parts]

    return Shards(files, sizes, compute, lead, RESULT, label='text features', unit='text')
