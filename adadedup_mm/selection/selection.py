"""What a strategy returns."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..feedback import Gaps


@dataclass(frozen=True)
class Update:
    """What a selection took over from an older run.

    Attributes:
        facts: for the manifest.
        reason: N phrases, None for samples that were decided now.
    """

    facts: dict[str, Any]
    reason: list[str | None]


@dataclass
class Selection:
    """Which of N samples stay, and what the decision was made of.

    Attributes:
        kept: (N,) bool.
        assignment: (N,) int32, cluster of each sample; -1 where the strategy uses none.
        order: (N,) int32, position inside the cluster; -1 likewise.
        similarity: (N,) float32 density scores; NaN likewise.
        thresholds: (K,) float64, tau_k.
        initial: (N,) bool, the initial set; None for strategies without a proxy.
        score: (N,) float64, higher stays; None for strategies that do not rank samples by one
            number.
        loss: (N,) float32 proxy losses, NaN where none was computed; None likewise.
        gaps: per-cluster losses and gaps; None likewise.
        shift: (K,) float64, tau_k - tau_0 before the budget is met; None likewise.
        reliability: how far the gaps can be trusted, for the manifest; None likewise.
        layout: share of the label layout in the density scores.
        notes: sentences for the report.
        update: set where an older run's decisions stay; guards must not touch such a selection.
    """

    kept: np.ndarray
    assignment: np.ndarray
    order: np.ndarray
    similarity: np.ndarray
    thresholds: np.ndarray
    initial: np.ndarray | None = None
    score: np.ndarray | None = None
    loss: np.ndarray | None = None
    gaps: Gaps | None = None
    shift: np.ndarray | None = None
    reliability: dict[str, Any] | None = None
    layout: float = 0.0
    notes: list[str] = field(default_factory=list)
    update: Update | None = None

    @classmethod
    def without_features(cls, kept: np.ndarray) -> 'Selection':
        """A selection that looked at no image."""
        n = len(kept)
        return cls(
            kept,
            np.full(n, -1, np.int32),
            np.full(n, -1, np.int32),
            np.full(n, np.nan, np.float32),
            np.empty(0),
        )

    @property
    def has_scores(self) -> bool:
        """Whether samples were chosen by density scores."""
        return len(self.thresholds) > 0

    @property
    def margin(self) -> np.ndarray:
        """(N,) float64, s_i - tau_k: how redundant each sample is; larger goes first."""
        return self.similarity.astype(np.float64) - self.thresholds[self.assignment]
