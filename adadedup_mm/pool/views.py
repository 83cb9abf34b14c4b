"""Which cameras features are taken from."""

from collections.abc import Sequence

from ..base.errors import UserError


def choose_views(views: Sequence[str], use_views: str | Sequence[str]) -> list[int]:
    """The indices of the cameras that features are taken from.

    Args:
        views: V camera names.
        use_views: ``'front'``: the camera called ``CAM_FRONT``, ``FRONT`` or ``image_0``, otherwise
            the first one; ``'all'``; or names.

    Raises:
        UserError: a name is not among the views.
    """
    if use_views == 'all':
        return list(range(len(views)))
    if use_views == 'front':
        names = [name.upper().removeprefix('CAM_') for name in views]
        return [next((names.index(name) for name in ('FRONT', 'IMAGE_0') if name in names), 0)]

    unknown = [name for name in use_views if name not in views]
    if unknown or not use_views:
        raise UserError(
            f'adadedup.views names {", ".join(map(repr, unknown)) or "no camera"}, but the '
            f'dataset has {", ".join(map(repr, views))}'
        )

    return [views.index(name) for name in dict.fromkeys(use_views)]
