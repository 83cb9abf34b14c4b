"""What stands still in a scene: sky, ground, buildings, trees and lamps."""

from dataclasses import dataclass

import cv2
import numpy as np

from .props import Prop, make_buildings, make_lamps, make_trees
from .roads import Road
from .shapes import Colour, Palette, pick
from .sky import make_panorama
from .world import Scene

TILE = 512  # pixels of the ground's texture
PIXELS_PER_METRE = 8

# zenith, horizon, how cloudy, how strong the sun
WEATHERS: tuple[tuple[Colour, Colour, float, float], ...] = (
    ((86, 142, 210), (198, 218, 232), 0.35, 0.42),
    ((112, 160, 214), (216, 224, 228), 0.8, 0.34),
    ((156, 166, 178), (204, 208, 212), 1.0, 0.12),
    ((96, 120, 176), (246, 202, 156), 0.5, 0.46),
    ((70, 130, 206), (176, 206, 230), 0.1, 0.48),
)
GRASS: Palette = ((118, 146, 78), (138, 150, 82), (98, 134, 76), (164, 154, 96))
ASPHALT: Palette = ((98, 100, 104), (86, 88, 92), (116, 114, 112), (104, 98, 96))
PAVEMENT: Palette = ((176, 172, 166), (160, 160, 160), (186, 174, 158))
FIELDS: Palette = ((190, 168, 92), (150, 164, 84), (122, 98, 70), (106, 142, 70), (206, 190, 120))
LINES: Palette = ((236, 236, 232), (238, 232, 196))


@dataclass(frozen=True)
class Backdrop:
    """All that a scene's pictures need beside its actors.

    Attributes:
        panorama: (rows, columns, 4) uint8 sky and skyline: R, G, B and how much shines by itself.
        texture: (TILE, TILE) uint8 brightness of the ground's texture, 128 on average.
        haze: colour of far things.
        ground: colour of what lies beside the road.
        asphalt: colour of the road.
        pavement: colour of the pavements.
        line: colour of the painted lines.
        sun: (3,) direction to the sun in the global frame times its strength.
        fields: (corners (k, 2) in the global frame, colour) of the fields beside the road.
        streets: corners (4, 2) of the streets that cross.
        marks: (n, 4, 2) corners of all painted lines.
        props: buildings, trees, lamps.
        lamps: (L, 2) places of the street lamps' light.
    """

    panorama: np.ndarray
    texture: np.ndarray
    haze: Colour
    ground: Colour
    asphalt: Colour
    pavement: Colour
    line: Colour
    sun: np.ndarray
    fields: tuple[tuple[np.ndarray, Colour], ...]
    streets: tuple[np.ndarray, ...]
    marks: np.ndarray
    props: tuple[Prop, ...]
    lamps: np.ndarray


def make_backdrop(scene: Scene) -> Backdrop:
    """The backdrop of a scene, drawn from a random stream of its own."""
    rng = scene.generator(1)
    zenith, haze, clouds, strength = WEATHERS[rng.integers(len(WEATHERS))]
    azimuth = rng.uniform(-np.pi, np.pi)
    elevation = rng.uniform(0.5, 1.1)
    to_sun = _direction(azimuth, elevation)
    beside_road = PAVEMENT if scene.setting == 'city' else GRASS
    posts = make_lamps(scene)
    lamps = [post.pose[:2] for post in posts]

    return Backdrop(
        panorama=make_panorama(scene, zenith, haze, clouds, azimuth, rng),
        texture=_texture(rng),
        haze=haze,
        ground=pick(beside_road, rng),
        asphalt=pick(ASPHALT, rng, 4),
        pavement=pick(PAVEMENT, rng, 4),
        line=pick(LINES, rng, 2),
        sun=strength * to_sun,
        fields=_fields(scene, rng),
        streets=_streets(scene.road),
        marks=_marks(scene.road),
        props=(
            *make_buildings(scene, rng),
            *make_trees(scene, rng),
            *posts,
        ),
        lamps=np.array(lamps).reshape(-1, 2),
    )


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    """(3,) the unit vector of a direction in radians."""
    level = np.cos(elevation)
    east = np.cos(azimuth) * level
    north = np.sin(azimuth) * level
    up = np.sin(elevation)
    return np.array([east, north, up])


# (pixels along a side, strength) of the layers of noise
_TEXTURE_LAYERS = ((8, 7.0), (32, 6.0), (128, 6.0), (TILE, 5.0))


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Noise of several sizes that repeats without a seam."""
    total = np.zeros((TILE, TILE), dtype=np.float32)
    for size, strength in _TEXTURE_LAYERS:
        noise = rng.standard_normal((size, size)).astype(np.float32)
        total += strength * _enlarge(noise, TILE // size)

    brightness = np.clip(128 + total, 0, 255)
    return brightness.astype(np.uint8)


def _enlarge(noise: np.ndarray, scale: int) -> np.ndarray:
    """(TILE, TILE) smooth noise from a small square of it, seamless as a tile."""
    border = 2
    wrapped = np.pad(noise, border, mode='wrap')
    large = cv2.resize(
        wrapped,
        None,
        fx=scale,
        fy=scale,
        interpolation=cv2.INTER_LINEAR,
    )
    begin = border * scale
    end = begin + TILE
    tile: np.ndarray = large[begin:end, begin:end]
    return tile


def _fields(scene: Scene, rng: np.random.Generator) -> tuple[tuple[np.ndarray, Colour], ...]:
    """Fields on both sides of a country road, with gaps between them."""
    if scene.setting != 'country':
        return ()
    road = scene.road
    fields: list[tuple[np.ndarray, Colour]] = []
    for side in (-1, 1):
        begin = road.start + 1
        while begin < road.end - 10:
            length = rng.uniform(18, 60)
            end = min(begin + length, road.end - 1)
            if rng.random() < 0.75:
                corners = _field_corners(road, side, begin, end)
                colour = pick(FIELDS, rng)
                fields.append((corners, colour))

            begin = end + rng.uniform(0, 6)

    return tuple(fields)


def _field_corners(road: Road, side: int, begin: float, end: float) -> np.ndarray:
    """(k, 2) corners of a field on one side (+1 left, -1 right), in the global frame."""
    s = np.arange(begin, end, 4.0)
    near_d = side * (road.front_line + 1)
    far_d = side * 75.0
    near = road.place(s, near_d)
    far = road.place(s[::-1], far_d)
    outline = np.concatenate([near, far])

    return outline[:, :2]


def _streets(road: Road) -> tuple[np.ndarray, ...]:
    """(4, 2) corners of the streets that cross, in the global frame."""
    along = np.array([-4.5, -4.5, 4.5, 4.5])
    across = np.array([-90, 90, 90, -90])
    corners = [road.place(crossing + along, across) for crossing in road.crossings]
    return tuple(places[:, :2] for places in corners)


def _marks(road: Road) -> np.ndarray:
    """Lane lines, edge lines and zebra crossings as (n, 4, 2) corners in the global frame."""
    lines = range(-road.lanes, road.lanes + 1)
    marks = [_line_marks(road, number) for number in lines]
    marks += [_zebra_marks(road, crossing) for crossing in road.crossings]
    begin, end, left, right = np.concatenate(marks, axis=1)
    s = np.stack([begin, begin, end, end], axis=-1)
    d = np.stack([left, right, right, left], axis=-1)
    corners = road.place(s, d)

    return corners[..., :2]


def _line_marks(road: Road, number: int) -> np.ndarray:
    """The marks of one line between lanes or at the edge, (4, n): begin, end, left, right.

    Line ``number`` lies that many lanes to the left of the centre line. Edge lines and the middle
    of a broad road are solid.
    """
    at_edge = abs(number) == road.lanes
    divides_broad_road = number == 0 and road.lanes > 1
    solid = at_edge or divides_broad_road
    begin = np.arange(road.start, road.end - 4, 3.0 if solid else 9.0)
    for crossing in road.crossings:
        before = begin < crossing - 13
        behind = begin > crossing + 5
        begin = begin[before | behind]

    end = begin + (3.0 if solid else 3.6)
    left = np.full(len(begin), number * road.lane_width + 0.08)
    right = left - 0.16

    return np.stack([begin, end, left, right])


def _zebra_marks(road: Road, crossing: float) -> np.ndarray:
    """The stripes of the zebra crossing beside a street, (4, n): begin, end, left, right."""
    right = np.arange(0.4 - road.carriageway, road.carriageway - 0.8, 1.0)
    left = right + 0.5
    begin = np.full(len(right), crossing - 10.6)
    end = begin + 3.2
    return np.stack([begin, end, left, right])
