"""What the writers get: a played scene, what its cameras saw and what its LiDAR hit."""

from dataclasses import dataclass

import numpy as np

from .cameras import CAMERAS, Seen
from .world import Objects, Scene


@dataclass(frozen=True)
class FilmedFrame:
    """One moment of a scene, with the n objects around the ego vehicle.

    Attributes:
        objects: who they are and where.
        ego2global: (4, 4).
        seen: by camera name, what was seen of the objects; cameras whose pictures no layout holds
            are missing.
        visible: (n,) the largest share of an object that one camera sees, 0..1.
        points: (n,) int64 LiDAR points on each object.
    """

    objects: Objects
    ego2global: np.ndarray
    seen: dict[str, Seen]
    visible: np.ndarray
    points: np.ndarray

    @property
    def annotated(self) -> np.ndarray:
        """Indices of the objects that a 3D layout annotates: a sensor has noticed them."""
        hit = self.points > 0
        seen = self.visible >= 0.2
        return np.flatnonzero(hit | seen)


@dataclass(frozen=True)
class Record:
    """A scene that has been played and filmed."""

    scene: Scene
    frames: tuple[FilmedFrame, ...]


def visible_share(seen: dict[str, Seen]) -> np.ndarray:
    """(n,) the largest share of each object that one of the cameras sees."""
    shares = [view.inside * view.visibility for view in seen.values()]
    largest: np.ndarray = np.max(shares, axis=0)
    return largest


def image_name(scene: Scene, frame: int, camera: str) -> str:
    """The name of a picture in the COCO layout, below ``coco/images``."""
    return f'{scene.name}/{camera}_{frame:04d}.jpg'


def image_id(scene: Scene, frame: int, camera: str, cameras: tuple[str, ...]) -> int:
    """The COCO id of a picture, from 1 on; it does not depend on the number of scenes."""
    moments_before = scene.index * len(scene) + frame
    pictures_before = moments_before * len(cameras)
    return pictures_before + CAMERAS.index(camera) + 1
