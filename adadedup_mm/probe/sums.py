"""Ridge regression on cells by sums that add up over samples, and what leaving samples out changes.

For cells X, weights w and targets Y of a set of samples, G = X' diag(w) X and H = X' diag(w) Y are
sums over the samples. The head W of any subset is (G + P)^-1 H with the penalty P; a subset's sums
are a difference away from the whole set's. No steps, no seed and no learning rate are involved.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Rows that are multiplied at a time in single precision; their sums are added in double.
BLOCK = 32768
# Relative to the diagonal: keeps the system solvable where fewer cells than channels are kept.
_FLOOR = 1e-7


@dataclass(frozen=True)
class Sums:
    """Sums over cells.

    Attributes:
        gram: (D, D) float64, G.
        cross: (D, C) float64, H.
        weight: sum of the weights.
    """

    gram: np.ndarray
    cross: np.ndarray
    weight: float

    def __add__(self, other: 'Sums') -> 'Sums':
        return Sums(self.gram + other.gram, self.cross + other.cross, self.weight + other.weight)

    def __sub__(self, other: 'Sums') -> 'Sums':
        return Sums(self.gram - other.gram, self.cross - other.cross, self.weight - other.weight)


def no_sums(channels: int, targets: int) -> Sums:
    """The sums of no cells at all."""
    return Sums(np.zeros((channels, channels)), np.zeros((channels, targets)), 0.0)


def sum_cells(
    features: np.ndarray, weight: np.ndarray, targets: np.ndarray, device: str = 'cpu'
) -> Sums:
    """The sums of n cells.

    Args:
        features: (n, D) float16 or float32.
        weight: (n,) float32, not negative.
        targets: (n, C) float32.
        device: of torch, where the products are formed.
    """
    channels, answers = features.shape[1], targets.shape[1]
    gram = torch.zeros(channels, channels, dtype=torch.float64, device=device)
    cross = torch.zeros(channels, answers, dtype=torch.float64, device=device)
    for start in range(0, len(features), BLOCK):
        part = slice(start, start + BLOCK)
        add_products(
            gram,
            cross,
            torch.from_numpy(features[part]).to(device).float(),
            torch.from_numpy(weight[part]).to(device),
            torch.from_numpy(targets[part]).to(device),
        )

    return Sums(gram.cpu().numpy(), cross.cpu().numpy(), float(weight.sum(dtype=np.float64)))


def add_products(
    gram: Tensor, cross: Tensor, rows: Tensor, weight: Tensor, targets: Tensor
) -> None:
    """Adds the products of at most ``BLOCK`` cells, in place.

    Args:
        gram: (D, D) float64, G.
        cross: (D, C) float64, H.
        rows: (n, D) float32.
        weight: (n,) float32, not negative.
        targets: (n, C) float32.
    """
    root = weight.sqrt()[:, None]
    scaled = rows * root
    gram += _with_itself(scaled)
    cross += scaled.T @ (targets * root)


def _with_itself(rows: Tensor) -> Tensor:
    """X' X; NumPy sees that the result is symmetric and computes half of it."""
    if rows.device.type != 'cpu':
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


def penalty_of(whole: Sums, strength: float) -> np.ndarray:
    """The ridge penalty: (D,) float64, for a mean loss, in units of each channel's variance.

    It makes the head independent of the channels' scales, as if they were standardised. The last
    channel is the constant one, which is not penalised.

    Args:
        whole: of all cells of the set.
        strength: lambda; 0 is plain least squares.
    """
    if not whole.weight:
        return np.zeros(len(whole.gram))
    mean = whole.gram[-1] / whole.weight
    variance = (np.diag(whole.gram) / whole.weight - mean**2).clip(0)
    # A channel that never varies says nothing; without a penalty the system would be singular.
    variance = np.where(variance > 0, variance, 1.0)
    variance[-1] = 0
    return (strength + _FLOOR) * variance


def solve(sums: Sums, penalty: np.ndarray) -> np.ndarray:
    """The head of these cells: (D, C) float64, W = (G + weight * diag(penalty))^-1 H.

    Args:
        sums: of the cells.
        penalty: (D,) float64, see ``penalty_of``.
    """
    if not sums.weight:
        return np.zeros_like(sums.cross)
    matrix = _regular(sums, penalty)
    return np.linalg.solve(matrix, sums.cross)


def _regular(sums: Sums, penalty: np.ndarray) -> np.ndarray:
    return sums.gram + np.diag(sums.weight * penalty)


class LeftOut:
    """What is wrong about groups of cells by a head that never saw them.

    Exact: of a group with cells X, weights w and residuals r = Y - X W of the head of all cells,
    the residuals of the head without it are (I - X A^-1 X' diag(w))^-1 r, where A = G + P and the
    penalty P stays that of all cells (the leave-one-out formula of linear smoothers; see Hastie,
    Tibshirani and Friedman, The Elements of Statistical Learning, 7.10). One factorisation serves
    all groups.

    Args:
        sums: of all cells that the head learned from.
        penalty: (D,) float64, see ``penalty_of``.
        device: of torch, where the products are formed.
    """

    def __init__(self, sums: Sums, penalty: np.ndarray, device: str = 'cpu') -> None:
        self.device = device
        self._weight = sums.weight
        self._matrix = _regular(sums, penalty)
        inverse = np.linalg.inv(self._matrix)
        self.head = inverse @ sums.cross
        self._inverse = torch.from_numpy(inverse).to(device)
        self._head = torch.from_numpy(self.head).to(device)

    def residuals(
        self, features: np.ndarray, weight: np.ndarray, targets: np.ndarray, learned: bool
    ) -> np.ndarray:
        """(n, C) float64, targets minus what a head without these cells says.

        Args:
            features: (n, D) of the group.
            weight: (n,) likewise.
            targets: (n, C) likewise.
            learned: whether the group is among the cells that the head learned from.
        """
        return self.of_groups(features, weight, targets, [len(features)], [learned])

    def of_groups(
        self,
        features: np.ndarray,
        weight: np.ndarray,
        targets: np.ndarray,
        sizes: Sequence[int],
        learned: Sequence[bool],
    ) -> np.ndarray:
        """(n, C) float64, the residuals of several groups that stand one after another.

        Args:
            features: (n, D) of all groups.
            weight: (n,) likewise.
            targets: (n, C) likewise.
            sizes: K numbers of cells, n together.
            learned: of each group whether it is among the cells that the head learned from.
        """
        rows = torch.from_numpy(features).to(self.device).double()
        residual = targets - (rows @ self._head).cpu().numpy()
        is_seen = np.repeat(learned, sizes)
        seen = rows[torch.from_numpy(is_seen).to(self.device)]
        turned = (seen @ self._inverse).cpu().numpy()
        seen_rows = seen.cpu().numpy()
        left = residual[is_seen]
        weight_of_seen = weight[is_seen]
        targets_of_seen = targets[is_seen]
        ends = np.cumsum(np.asarray(sizes)[np.asarray(learned, bool)])
        for start, end in itertools.pairwise([0, *ends]):
            own = slice(start, end)
            own_weight = weight_of_seen[own]
            # A head of no cells says nothing (see ``solve``).
            if own_weight.sum(dtype=np.float64) > (1 - _FLOOR) * self._weight:
                left[own] = targets_of_seen[own]
            else:
                left[own] = self._without(seen_rows[own], turned[own], own_weight, left[own])
        residual[is_seen] = left
        return residual

    def _without(
        self, rows: np.ndarray, turned: np.ndarray, weight: np.ndarray, residual: np.ndarray
    ) -> np.ndarray:
        """The residuals of a group that the head has seen, of a head that has not.

        Args:
            rows: (n, D) float64.
            turned: (n, D) float64, the rows times the inverse.
            weight: (n,).
            residual: (n, C) float64, of the head that has seen them.
        """
        weighted = rows * weight[:, None]
        if len(rows) <= rows.shape[1]:
            rest_of_cells = np.eye(len(rows)) - turned @ weighted.T
            return np.linalg.solve(rest_of_cells, residual)
        # The same by the Woodbury identity, with a system of the channels' size.
        rest = self._matrix - weighted.T @ rows
        return residual + rows @ np.linalg.solve(rest, weighted.T @ residual)
