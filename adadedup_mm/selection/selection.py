"""What a strategy returns."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..feedback import Gaps


@dataclass
class Selection:
    """Which of N samples stay and why, and what the decision was made of.

    Attributes:
        kept: (N,) bool; what does not come from the strategy goes through ``change``.
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
        without_feedback: (N,) bool, what density alone would keep; None where no proxy was
            asked.
        reliability: how far the gaps can be trusted, for the manifest; None likewise.
        signal: whose losses these are: ``'probe'``, ``'proxy'`` or ``'both'``.
        layout: share of the label layout in the density scores.
        notes: sentences for the report.
        update: facts for the manifest where an older run's decisions stay; guards must not touch
            such a selection.
        reason: (N,) str objects, a short phrase a sample: why it stays or goes. Empty where nobody
            has said so; ``explain`` then does.
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
    without_feedback: np.ndarray | None = None
    reliability: dict[str, Any] | None = None
    signal: str = 'proxy'
    layout: float = 0.0
    notes: list[str] = field(default_factory=list)
    update: dict[str, Any] | None = None
    reason: np.ndarray = field(default_factory=lambda: np.empty(0, object))

    def __post_init__(self) -> None:
        # Not of numpy's texts, which longer ones would not fit into.
        given = self.reason if len(self.reason) else [''] * len(self.kept)
        self.reason = np.array(given, object)

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
        threshold = self.thresholds[self.assignment]
        return self.similarity.astype(np.float64) - threshold

    @property
    def decisions_changed(self) -> int:
        """How many samples are kept that would go without the proxy's feedback; 0 without one."""
        if self.without_feedback is None:
            return 0
        return int((self.kept & ~self.without_feedback).sum())

    @property
    def unexplained(self) -> np.ndarray:
        """(N,) bool, samples without a reason."""
        return self.reason == ''

    def change(self, kept: np.ndarray, why_kept: str, why_pruned: str) -> None:
        """Decides anew; samples whose decision changes get the reason for it.

        Args:
            kept: (N,) bool.
            why_kept: of samples that were not kept before.
            why_pruned: of samples that were.
        """
        added = kept & ~self.kept
        removed = ~kept & self.kept
        self.reason[added] = why_kept
        self.reason[removed] = why_pruned
        self.kept = kept

    def explain(self, strategy: str) -> None:
        """Gives the samples without a reason that of the strategy: its threshold, or its choice.

        Args:
            strategy: its name.
        """
        kept = self.unexplained & self.kept
        pruned = self.unexplained & ~self.kept
        if self.has_scores:
            self.reason[kept] = 'below the threshold'
            self.reason[kept & (self.order == 0)] = 'first of its cluster'
            self.reason[pruned] = 'above the threshold'
        else:
            self.reason[kept] = f'chosen by {strategy}'
            self.reason[pruned] = f'not chosen by {strategy}'
