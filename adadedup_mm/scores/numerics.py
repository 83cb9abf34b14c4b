"""The formulas of static scores, of objects and of samples."""

from itertools import combinations

import numpy as np
from scipy.stats import rankdata


def error_norms(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """EL2N (arXiv 2107.07075): the norm ||p - y|| of each prediction's error, y the one-hot label.

    Args:
        probabilities: (n, C) float, in [0, 1]; with a softmax rows add up to 1.
        labels: (n,) int, in 0..C-1.

    Returns:
        (n,) float64, in [0, sqrt(2)] with a softmax, in [0, sqrt(C)] otherwise.
    """
    errors = probabilities.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    return np.linalg.norm(errors, axis=1)


def last_layer_gradient_norms(
    probabilities: np.ndarray, labels: np.ndarray, inputs: np.ndarray
) -> np.ndarray:
    """GraNd (arXiv 2107.07075) for the last layer of a classifier.

    The layer is a linear one under a softmax cross-entropy. With the error g = p - y and the
    layer's input h, the gradient is g for the bias and the outer product of g and h for the
    weights, so that its norm is ||g|| sqrt(||h||^2 + 1).

    Args:
        probabilities: (n, C) float, rows add up to 1.
        labels: (n,) int, in 0..C-1.
        inputs: (n, h) float.

    Returns:
        (n,) float64.
    """
    inputs = inputs.astype(np.float64)
    squares = np.square(inputs).sum(axis=1)
    return error_norms(probabilities, labels) * np.sqrt(squares + 1)


def forgetting_counts(correct: np.ndarray) -> np.ndarray:
    """How often each instance was forgotten (arXiv 1812.05159): right once and wrong the next time.

    Args:
        correct: (E, n) bool, at E evaluations in the order of time.

    Returns:
        (n,) int64; E, which no other instance reaches, for those that were never right.
    """
    evaluations = len(correct)
    forgotten = correct[:-1] & ~correct[1:]
    events = forgotten.sum(axis=0)
    learned = correct.any(axis=0)
    return np.where(learned, events, evaluations).astype(np.int64)


def per_object(
    errors: np.ndarray, right: np.ndarray, owner: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the predictions assigned to each object say about it.

    Args:
        errors: (n,) float, of each prediction.
        right: (n,) bool, whether it names the object's class.
        owner: (n,) int, index of the object that it is assigned to.
        count: number of objects k.

    Returns:
        error: (k,) float64, the mean error of the object's predictions; 1 where it has none, which
            is the error of scores that are all 0.
        found: (k,) bool, whether at least one of them is right.
    """
    number = np.bincount(owner, minlength=count)
    sums = np.bincount(owner, weights=errors, minlength=count)
    mean = np.divide(sums, number, out=np.ones(count), where=number > 0)
    number_right = np.bincount(owner[right], minlength=count)
    return mean, number_right > 0


def sum_per_sample(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Adds up the scores of each sample's objects; a sample without objects has 0.

    Args:
        values: (m,) float.
        owner: (m,) int, index of the sample that each object is in.
        count: N.

    Returns:
        (N,) float64.
    """
    sums = np.bincount(owner, weights=values, minlength=count)
    return sums.astype(np.float64)


def keep_highest(scores: np.ndarray, count: int) -> np.ndarray:
    """The samples with the highest scores; among equal ones the earlier.

    Args:
        scores: (N,) float.
        count: how many, at most N.

    Returns:
        (N,) bool, exactly ``count`` of them True. Sets of a larger count contain those of a smaller
        one.
    """
    ranking = np.argsort(-scores, kind='stable')
    kept = np.zeros(len(scores), bool)
    kept[ranking[:count]] = True
    return kept


def run_agreement(scores: np.ndarray) -> tuple[float, float]:
    """How far several trainings agree about the order of the samples.

    Args:
        scores: (R, N) float, R at least 2.

    Returns:
        agreement: the mean rank correlation r (Spearman) of two trainings.
        reliability: that of the mean of all R by the formula of Spearman and Brown,
            R r / (1 + (R - 1) r), at least 0.

    Both are 0 where a training scores all samples the same.
    """
    ranks = np.array([rankdata(row) for row in scores])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    if not lengths.all():
        return 0.0, 0.0
    unit = centred / lengths[:, None]
    correlations = [one @ other for one, other in combinations(unit, 2)]
    r = float(np.mean(correlations))
    if r <= 0:
        return r, 0.0
    runs = len(scores)

    return r, runs * r / (1 + (runs - 1) * r)


def shape_complexity(perimeter: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Scale-invariant shape complexity (TFDP, arXiv 2503.00828).

    It is the perimeter over that of a circle of equal area.

    Args:
        perimeter: (m,) float.
        area: (m,) float.

    Returns:
        (m,) float64, P / (2 sqrt(pi A)): 1 for a circle, 1.13 for a square; 0 for objects without
        area.
    """
    area = np.maximum(area.astype(np.float64), 0)
    circle = 2 * np.sqrt(np.pi * area)
    return _ratio(perimeter, circle)


def class_shares(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Class-balanced scores (TFDP): each object's share of the sum of its class.

    So all classes weigh the same.

    Args:
        scores: (m,) float, not negative.
        labels: (m,) int, not negative.

    Returns:
        (m,) float64; they add up to 1 for every class with a score above 0.
    """
    totals = np.bincount(labels, weights=scores)
    return _ratio(scores, totals[labels])


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """(m,) float64 ``top / bottom``, 0 where ``bottom`` is 0."""
    zero = np.zeros(len(bottom))
    return np.divide(top, bottom, out=zero, where=bottom > 0)
