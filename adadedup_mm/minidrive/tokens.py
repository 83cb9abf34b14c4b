"""Identifiers in nuScenes' style: 32 hexadecimal digits that depend on what they name only."""

import hashlib


def token(seed: int, *names: object) -> str:
    """The token of a thing, given by the kind of thing and its numbers."""
    return hashlib.md5(
        '/'.join(map(str, ('minidrive', seed, *names))).encode(), usedforsecurity=False
    ).hexdigest()
