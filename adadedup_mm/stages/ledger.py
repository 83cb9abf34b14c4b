"""The book of a run: the stages that it used, and what their keys are made of."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import sha256_file, sha256_items, sha256_value
from .shards import Work
from .store import StageStore


class Ledger:
    """Gives stages their keys, runs them, and remembers them for the manifest.

    Args:
        store: where stages live.
        seed: of every random choice of the run.

    Attributes:
        used: keys of the stages that the run asked for, by name, in their order.
        inputs: SHA-256 of the files that they read besides the dataset, by path.
        facts: hashes of what else they look at, by name.
    """

    def __init__(self, store: StageStore, seed: int) -> None:
        self.store = store
        self.seed = seed
        self.used: dict[str, str] = {}
        self.inputs: dict[str, str] = {}
        self.facts: dict[str, str] = {}
        # What the keys are hashes of.
        self._made_of: dict[str, dict[str, Any]] = {}

    def generator(self, purpose: str) -> np.random.Generator:
        """A random generator of its own for each purpose."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])

    def key(self, name: str, inputs: dict[str, Any], seeded: bool = True) -> str:
        """A stage's key, noted so that the stages after it can depend on it.

        Args:
            name: the stage.
            inputs: JSON-like values of everything that the result depends on besides the seed.
            seeded: whether the result depends on the seed.
        """
        seed = self.seed if seeded else None
        made_of = dict(inputs, stage=name, seed=seed)
        key = sha256_value(made_of)
        self.used[name] = key
        self._made_of[key] = made_of
        return key

    def run(self, name: str, key: str, work: Work) -> Path:
        """Runs a stage whose key is from ``key``, unless it is finished; see ``StageStore.run``."""
        return self.store.run(name, key, work, self._made_of[key])

    def stage(self, name: str, inputs: dict[str, Any], work: Work) -> Path:
        """``key`` and ``run`` in one; returns the stage's folder."""
        key = self.key(name, inputs)
        return self.run(name, key, work)

    def is_finished(self, name: str, key: str) -> bool:
        """Whether a stage need not be run any more."""
        return self.store.is_finished(name, key)

    def digest(self, path: str) -> str:
        """SHA-256 of a file, which is among the run's inputs from now on."""
        self.inputs[path] = sha256_file(path)
        return self.inputs[path]

    def costs(self) -> dict[str, dict[str, float]]:
        """Seconds and bytes of the stages that this run used, in their order."""
        costs = {}
        for name, key in self.used.items():
            record = self.store.record(name)
            # A given checkpoint stands beside the proxy that an earlier run has trained here.
            if record.get('key') == key:
                costs[name] = dict(seconds=record['seconds'], bytes=record['bytes'])
        return costs


def mask_key(mask: np.ndarray) -> str:
    """Hash of a (N,) bool."""
    return sha256_items(np.flatnonzero(mask))
