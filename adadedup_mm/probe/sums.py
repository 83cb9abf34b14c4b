"""Ridge regression on cells by sums that add up over samples, and what leaving samples out changes.

For cells X, weights w and targets Y of a set of samples, G = X' diag(w) X and H = X' diag(w) Y are
sums over the samples. The head W of any subset is (G + P)^-1 H with the penalty P; a subset's sums
are a difference away from the whole set's. No steps, no seed and no learning rate are involved.
"""

from dataclasses import dataclass

import numpy as np
import torch

# Rows that are multiplied at a time in single precision; their sums are added in double.
BLOCK = 16384
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
        weight: (n,) float32.
        targets: (n, C) float32.
        device: of torch, where the products are formed.
    """
    sums = no_sums(features.shape[1], targets.shape[1])
    for start in range(0, len(features), BLOCK):
        part = slice(start, start + BLOCK)
        rows = torch.from_numpy(np.ascontiguousarray(features[part], np.float32)).to(device)
        weights = torch.from_numpy(weight[part]).to(device)
        weighted = rows * weights[:, None]
        answers = torch.from_numpy(targets[part]).to(device)
        gram = (weighted.T @ rows).double().cpu().numpy()
        cross = (weighted.T @ answers).double().cpu().numpy()
        sums += Sums(gram, cross, float(weight[part].sum(dtype=np.float64)))

    return sums


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
    """

    def __init__(self, sums: Sums, penalty: np.ndarray) -> None:
        self._weight = sums.weight
        self._matrix = _regular(sums, penalty)
        self._inverse = np.linalg.inv(self._matrix)
        self.head = self._inverse @ sums.cross

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
        rows = features.astype(np.float64)
        residual = targets - rows @ self.head
        if not learned:
            return residual
        # A head of no cells says nothing (see ``solve``).
        if weight.sum(dtype=np.float64) > (1 - _FLOOR) * self._weight:
            return targets.astype(np.float64)
        weighted = rows * weight[:, None]
        if len(rows) <= rows.shape[1]:
            leverage = rows @ self._inverse @ weighted.T
            return np.linalg.solve(np.eye(len(rows)) - leverage, residual)
        # The same by the Woodbury identity, with a system of the channels' size.
        rest = self._matrix - weighted.T @ rows
        return residual + rows @ np.linalg.solve(rest, weighted.T @ residual)
