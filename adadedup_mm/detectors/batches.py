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
        items = list(value.values())
    elif isinstance(value, (list, tuple)):
        items = list(value)
    else:
        return False

    if not items:
        return False
    return all(is_batch(item, size) for item in items)


def slice_batch(value: Any, position: int) -> Any:
    """The same structure with the slice ``[position:position + 1]`` of each tensor."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value[position : position + 1]
    if isinstance(value, dict):
        named = {}
        for key, item in value.items():
            named[key] = slice_batch(item, position)
        return named

    items = [slice_batch(item, position) for item in value]

    return type(value)(items)


def split_batch(value: Any, size: int) -> list[Any]:
    """All slices of ``slice_batch``, by one operation a tensor: its gradient concatenates once."""
    if value is None:
        return [None] * size
    if isinstance(value, Tensor):
        # Heads may work in place on what they have predicted, which views of one operation do not
        # allow.
        slices = torch.unsafe_split(value, 1)
        return list(slices)

    if isinstance(value, dict):
        rows = split_batch(list(value.values()), size)
        return [dict(zip(value, row, strict=True)) for row in rows]

    columns = [split_batch(item, size) for item in value]

    return [type(value)(row) for row in zip(*columns, strict=True)]


def pick_samples(value: Any, positions: list[int]) -> Any:
    """The samples at ``positions`` of collated inputs."""
    if isinstance(value, Tensor):
        return value[positions]
    if isinstance(value, dict):
        named = {}
        for key, item in value.items():
            named[key] = pick_samples(item, positions)
        return named
    return [value[i] for i in positions]
