"""Predictions matched to ground truth, and the set loss: focal and L1 (arXiv 2110.06922)."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

ALPHA = 0.25
EPS = 1e-12
# The L1 cost covers the box, not its velocity.
MATCHED_ENTRIES = 8


def match(
    logits: Tensor,
    codes: Tensor,
    labels: Tensor,
    targets: Tensor,
    cls_weight: float,
    box_weight: float,
) -> tuple[Tensor, Tensor]:
    """The cheapest one-to-one assignment for one sample.

    Args:
        logits: (Q, classes).
        codes: (Q, D) box codes.
        labels: (G,) int64.
        targets: (G, D) encoded ground truth.
        cls_weight: of the focal cost (gamma 2, alpha .25).
        box_weight: of the L1 cost.

    Returns:
        Matched queries and their ground truths, both (min(Q, G),) int64 on the inputs' device.
    """
    with torch.no_grad():
        costs = _focal_cost(logits)
        cost = cls_weight * costs[:, labels]
        distance = torch.cdist(
            codes[:, :MATCHED_ENTRIES].float(),
            targets[:, :MATCHED_ENTRIES].float(),
            p=1,
        )
        cost = cost + box_weight * distance
        # A diverging model or a box of zero size must not stop the solver.
        cost = torch.nan_to_num(
            cost,
            nan=1e6,
            posinf=1e6,
            neginf=-1e6,
        )

    device = logits.device
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    queries = torch.as_tensor(rows, device=device)
    truths = torch.as_tensor(columns, device=device)

    return queries, truths


def _focal_cost(logits: Tensor) -> Tensor:
    """What an object of each class would cost at each query, (Q, classes) float32."""
    p = logits.float().sigmoid()
    q = 1 - p
    found = (p + EPS).log()
    missed = (q + EPS).log()
    positive = -found * ALPHA * q**2
    negative = -missed * (1 - ALPHA) * p**2
    return positive - negative


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the sigmoid focal loss, gamma 2 and alpha .25 (arXiv 1708.02002).

    Args:
        logits: any shape.
        targets: 0 or 1, same shape.
    """
    p = logits.sigmoid()
    others = 1 - targets
    missed = (1 - p) * targets + p * others
    balance = ALPHA * targets + (1 - ALPHA) * others
    entropy = binary_cross_entropy_with_logits(
        logits,
        targets,
        reduction='none',
    )
    weight = balance * missed**2

    return (entropy * weight).sum()


def box_loss(codes: Tensor, targets: Tensor, code_weights: Tensor) -> Tensor:
    """Sum of the weighted L1 distances of matched pairs, without targets that are not finite.

    Args:
        codes: (N, D).
        targets: (N, D).
        code_weights: (D,).
    """
    known = targets.isfinite().all(-1, keepdim=True)
    wanted = targets.where(known, codes.detach())
    distance = (codes - wanted).abs()
    weighted = distance * code_weights
    return weighted.sum()
