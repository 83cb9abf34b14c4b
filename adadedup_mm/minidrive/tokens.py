"""Identifiers in nuScenes' style: 32 hexadecimal digits that depend on what they name only."""

import hashlib


def token(seed: int, *names: object) -> str:
    """The token of a thing, given by the kind of thing and its numbers."""
    parts = ('minidrive', seed, *names)
    path = '/'.join(map(str, parts))
    digest = hashlib.md5(path.encode(), usedforsecurity=False)
    return digest.hexdigest()
