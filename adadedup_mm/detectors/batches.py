"""Batches in nested lists, tuples and dicts of tensors, and their samples."""

from typing import Any

import torch
from torch import Tensor


def is_batch(value: Any, size: int) -> bool:
    """Whether all tensors in nested lists, tuples and dicts have a first dimension of ``size``."""
    if value is None:
        return True
    if isinstance(value, Tensor):
        return value.dim() > 0 and len(value) == size
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return False
    return len(value) > 0 and all(is_batch(item, size) for item in value)


def slice_batch(value: Any, position: int) -> Any:
    """The same structure with the slice ``[position:position + 1]`` of each tensor."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value[position : position + 1]
    if isinstance(value, dict):
        return {key: slice_batch(item, position) for key, item in value.items()}
    return type(value)(slice_batch(item, position) for item in value)


def split_batch(value: Any, size: int) -> list[Any]:
    """All slices of ``slice_batch``, by one operation a tensor: its gradient concatenates once."""
    if value is None:
        return [None] * size
    if isinstance(value, Tensor):
        # Heads may work in place on what they have predicted, which views of one operation do not
        # allow.
        return list(torch.unsafe_split(value, 1))
    items = value.values() if isinstance(value, dict) else value
    columns = [split_batch(item, size) for item in items]
    rows = zip(*columns, strict=True)
    if isinstance(value, dict):
        return [dict(zip(value, row, strict=True)) for row in rows]
    return [type(value)(row) for row in rows]


def pick_samples(value: Any, positions: list[int]) -> Any:
    """The samples at ``positions`` of collated inputs."""
    if isinstance(value, Tensor):
        return value[positions]
    if isinstance(value, dict):
        return {key: pick_samples(item, positions) for key, item in value.items()}
    return [value[i] for i in positions]
