"""A hash of everything that a dataset has loaded from its annotations, whatever their files."""

import hashlib
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath
from typing import Any

import msgspec
import numpy as np
import torch


def records_digest(infos: Iterable[Mapping[str, Any]], without: Collection[str]) -> str:
    """The hex SHA-256 of data infos in their order; the order of their keys does not matter.

    Boxes, ignored ones too, masks, captions, poses: what a training could see of the annotations
    is in it, and what only the files hold, such as the date of an export, is not.

    Args:
        infos: from ``stored_infos``.
        without: keys that are left out.
    """
    digest = hashlib.sha256()
    encoder = msgspec.msgpack.Encoder(enc_hook=_encodable, order='deterministic')
    for info in infos:
        content = {key: value for key, value in info.items() if key not in without}
        try:
            digest.update(encoder.encode(content))
        except (
            TypeError,
            ValueError,
            OverflowError,
        ):  # numbers of more than 64 bits, or no Unicode text
            digest.update(pickle.dumps(sorted(content.items(), key=str), protocol=4))

    return digest.hexdigest()


def _encodable(value: Any) -> Any:
    """What stands for a value that msgspec does not know."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [value.dtype.str, value.shape, value.tobytes()]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(getattr(value, 'tensor', None), torch.Tensor):  # boxes and points of mmdet3d
        return [type(value).__name__, value.tensor]

    return str(value) if isinstance(value, PurePath) else pickle.dumps(value, protocol=4)
