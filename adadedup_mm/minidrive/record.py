"""What the writers get: a played scene and what its cameras saw."""

from dataclasses import dataclass

from .cameras import CAMERAS, Seen
from .world import Scene


@dataclass(frozen=True)
class Record:
    """A scene that has been played and filmed.

    Attributes:
        scene: its state.
        seen: for every frame and camera, in the order of ``CAMERAS``, what was seen of ``scene.objects(frame)``.
    """

    scene: Scene
    seen: tuple[tuple[Seen, ...], ...]


def image_name(scene: Scene, frame: int, camera: str) -> str:
    """The name of a picture in the COCO layout, below ``coco/images``."""
    return f'{scene.name}/{camera}_{frame:04d}.jpg'


def image_id(scene: Scene, frame: int, camera: str, cameras: tuple[str, ...]) -> int:
    """The COCO id of a picture, from 1 on; it does not depend on the number of scenes."""
    return (scene.index * len(scene) + frame) * len(cameras) + CAMERAS.index(camera) + 1
