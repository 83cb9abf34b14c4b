"""Buildings, trees and street lamps along the road."""

import math
from dataclasses import dataclass

import numpy as np

from .roads import Road
from .shapes import (
    Colour,
    Face,
    Mesh,
    Palette,
    cuboid,
    disc,
    end_panel,
    flat,
    make_mesh,
    pick,
    polygon,
    rectangle,
    shade,
    side_panel,
    trapezium,
    upper_half,
)
from .world import Scene

FACADES: Palette = (
    (196, 178, 158),
    (178, 120, 96),
    (214, 206, 194),
    (150, 148, 150),
    (206, 186, 140),
    (170, 150, 160),
    (140, 156, 160),
    (188, 98, 78),
)
ROOFS: Palette = ((150, 70, 56), (96, 82, 78), (120, 92, 70), (84, 88, 98))
LEAVES: Palette = (
    (74, 122, 56),
    (92, 138, 60),
    (58, 104, 62),
    (120, 142, 62),
    (186, 130, 54),
    (150, 78, 44),
)
NEEDLES: Palette = ((50, 92, 62), (62, 104, 66), (44, 84, 70))
AWNINGS: Palette = ((186, 52, 48), (50, 110, 76), (48, 80, 140), (220, 178, 70), (230, 226, 216))
LIT: Palette = ((255, 214, 140), (255, 236, 190))
PANE = (84.0, 98.0, 114.0)
BARK = (90.0, 68.0, 52.0)


@dataclass(frozen=True)
class Prop:
    """Something that stands beside the road.

    Attributes:
        mesh: what it looks like.
        pose: (3,) x, y, yaw in the global frame.
        tall: it hides everything that lies behind it and is painted before all traffic.
    """

    mesh: Mesh
    pose: np.ndarray
    tall: bool


# Length, depth and height of a building, gap to the next one, setback from the road, in metres.
Plot = tuple[float, float, float, float, float]


def make_buildings(scene: Scene, rng: np.random.Generator) -> list[Prop]:
    """Blocks of flats in cities, houses elsewhere, few in the country.

    None stands on a street that crosses.
    """
    road = scene.road
    build = _building if scene.setting == 'city' else _house
    props = []
    for side in (-1, 1):
        s = road.start + 5
        while s < road.end - 30:
            length, depth, height, gap, setback = _plot(scene.setting, rng)
            middle = s + length / 2
            s += length + gap
            if _distance_to_crossing(road, middle) <= 7 + length / 2:
                continue

            from_centre_line = road.front_line + setback + depth / 2
            pose = road.place(middle, side * from_centre_line)
            pose[2] += np.pi if side < 0 else 0.0
            mesh = build(length, depth, height, scene.night, rng)
            props.append(Prop(mesh, pose, tall=True))

    return props


def _plot(setting: str, rng: np.random.Generator) -> Plot:
    if setting == 'city':
        length = rng.uniform(12, 24)
        depth = rng.uniform(10, 14)
        height = rng.uniform(8, 26)
        gap = rng.choice([0.2, 3.0])
        return length, depth, height, gap, 0.0

    if setting == 'suburb':
        length = rng.uniform(8, 13)
        depth = rng.uniform(7, 9)
        height = rng.choice([2.9, 5.6])
        gap = rng.uniform(3, 10)
        setback = rng.uniform(0, 2.5)
        return length, depth, height, gap, setback

    length = rng.uniform(9, 15)
    depth = rng.uniform(7, 9)
    gap = rng.uniform(60, 140)
    setback = rng.uniform(8, 30)

    return length, depth, 3.4, gap, setback


def _distance_to_crossing(road: Road, s: float) -> float:
    """Metres from a place along the road to the middle of the nearest street that crosses."""
    distances = [abs(s - crossing) for crossing in road.crossings]
    return min(distances, default=math.inf)


def _building(
    length: float, depth: float, height: float, night: bool, rng: np.random.Generator
) -> Mesh:
    """A block of flats over shops; its front faces -y."""
    wall = pick(FACADES, rng, 14)
    body = _walls(length, depth, height, wall, roof=shade(wall, 0.7))
    floors = max(2, int(height / 3.1))
    columns = max(3, int(length / rng.uniform(2.4, 3.4)))
    glass = shade((70, 86, 104), rng.uniform(0.8, 1.3))
    lit = pick(LIT, rng)
    half = rng.uniform(0.30, 0.42) * length / columns
    tall = rng.uniform(1.2, 1.8)
    # Dark and lit panes stay apart: neighbours of one colour are painted in one go.
    dark: list[Face] = []
    bright: list[Face] = []
    for floor in range(1, floors):
        low = floor * height / floors + 0.5
        high = low + tall
        for column in range(columns):
            x = (column + 0.5 - columns / 2) * length / columns
            window = rectangle(
                x0=x - half,
                x1=x + half,
                z0=low,
                z1=high,
            )
            pane = side_panel(window, -depth / 2)
            if night and rng.random() < 0.35:
                bright.append(Face(pane, lit, shine=210.0))
            else:
                dark.append(Face(pane, glass))

        dark += _end_windows(length, depth, low, high, glass)

    shop = rectangle(
        x0=-0.46 * length,
        x1=0.46 * length,
        z0=0.3,
        z1=2.5,
    )
    awning = rectangle(
        x0=-0.48 * length,
        x1=0.48 * length,
        z0=2.5,
        z1=3.2,
    )
    shop_front = side_panel(shop, -depth / 2)
    front = [
        Face(shop_front, lit, shine=170.0) if night else Face(shop_front, shade(glass, 0.8)),
        Face(side_panel(awning, -depth / 2), pick(AWNINGS, rng)),
    ]

    return make_mesh(body, dark + bright + front)


def _walls(
    length: float, depth: float, height: float, wall: Colour, roof: Colour | None = None
) -> list[Face]:
    """The body of a building in the middle of its plot."""
    return cuboid(
        x0=-length / 2,
        x1=length / 2,
        width=depth,
        z0=0,
        z1=height,
        colour=wall,
        roof=roof,
    )


def _end_windows(length: float, depth: float, low: float, high: float, glass: Colour) -> list[Face]:
    """Two windows of one floor in each of the walls across the street's direction."""
    faces: list[Face] = []
    for x in (length / 2, -length / 2):
        for y in (-0.25 * depth, 0.25 * depth):
            window = end_panel(
                x=x,
                left=y + 0.7,
                right=y - 0.7,
                bottom=low,
                top=high,
            )
            faces.append(Face(window, glass))

    return faces


def _house(
    length: float, depth: float, height: float, night: bool, rng: np.random.Generator
) -> Mesh:
    """A house with a gable roof; its front faces -y."""
    wall = pick(FACADES, rng, 16)
    roof = pick(ROOFS, rng)
    body = _walls(length, depth, height, wall)
    body += _gable_roof(length, depth, height, wall, roof)
    details: list[Face] = []
    for floor in range(max(1, int(height / 2.8))):
        low = 0.9 + floor * 2.7
        for place in (-0.34, -0.12, 0.34):
            centre = place * length
            window = rectangle(
                x0=centre - 0.6,
                x1=centre + 0.6,
                z0=low,
                z1=low + 1.2,
            )
            pane = side_panel(window, -depth / 2)
            if night and rng.random() < 0.5:
                details.append(Face(pane, LIT[0], shine=210.0))
            else:
                details.append(Face(pane, PANE))

    door = rectangle(
        x0=0.12 * length,
        x1=0.20 * length,
        z0=0,
        z1=2.1,
    )
    details.append(Face(side_panel(door, -depth / 2), pick(AWNINGS, rng)))
    for end in (length / 2, -length / 2):
        window = end_panel(
            x=end,
            left=0.7,
            right=-0.7,
            bottom=1.0,
            top=2.2,
        )
        details.append(Face(window, PANE))

    return make_mesh(body, details)


def _gable_roof(
    length: float, depth: float, height: float, wall: Colour, roof: Colour
) -> list[Face]:
    """Both slopes of the roof and the gables below it."""
    ridge = height + depth * 0.32
    eaves = height - 0.2
    x = length / 2 + 0.3
    y = depth / 2 + 0.4
    front = polygon(
        (-x, -y, eaves),
        (x, -y, eaves),
        (x, 0, ridge),
        (-x, 0, ridge),
    )
    back = polygon(
        (x, y, eaves),
        (-x, y, eaves),
        (-x, 0, ridge),
        (x, 0, ridge),
    )
    faces = [Face(front, roof), Face(back, shade(roof, 0.85))]
    for end in (length / 2, -length / 2):
        gable = polygon(
            (end, -depth / 2, height),
            (end, depth / 2, height),
            (end, 0, ridge - 0.3),
        )
        outwards = gable if end > 0 else gable[::-1]
        faces.append(Face(outwards, wall))

    return faces


# setting -> metres between two places for trees, chance that one has a tree
_TREE_PLACES = {'city': (13.0, 0.45), 'suburb': (9.0, 0.65), 'country': (8.0, 0.6)}


def make_trees(scene: Scene, rng: np.random.Generator) -> list[Prop]:
    """Trees at the kerb in cities; trees, conifers and bushes beyond the pavement elsewhere."""
    road = scene.road
    every, chance = _TREE_PLACES[scene.setting]
    props = []
    for side in (-1, 1):
        for s in np.arange(road.start + 2, road.end - 2, every):
            if rng.random() > chance or _distance_to_crossing(road, s) < 9:
                continue
            if scene.setting == 'city':
                d = road.kerb + 0.7
                mesh = _leafy(rng.uniform(5, 7), rng)
            else:
                # Far enough from the pavement not to hide who walks there.
                farthest = road.verge if scene.setting == 'suburb' else 26.0
                d = road.kerb + road.pavement + rng.uniform(2.6, farthest)
                plant = (_leafy, _leafy, _conifer, _bush)[rng.integers(4)]
                mesh = plant(rng.uniform(5, 10), rng)

            pose = road.place(s + rng.uniform(-2, 2), side * d)
            props.append(Prop(mesh, pose, tall=False))

    return props


def _leafy(height: float, rng: np.random.Generator) -> Mesh:
    """A broad-leaved tree."""
    leaves = pick(LEAVES, rng, 12)
    radius = height * rng.uniform(0.24, 0.32)
    # Places across and up, as shares of radius and height, and sizes.
    blobs = [(0.0, 0.66, 1.0)]
    for _ in range(5):
        across = rng.uniform(-0.7, 0.7)
        up = rng.uniform(0.5, 0.84)
        size = rng.uniform(0.45, 0.7)
        blobs.append((across, up, size))

    trunk = trapezium(
        y=0,
        z0=0,
        z1=height * 0.6,
        bottom=0.14,
        top=0.09,
    )
    faces = [Face(trunk, BARK)]
    # No two tones are equal, because overlapping faces of one colour would cut holes into each
    # other.
    tones = (0.76, 0.84, 0.92, 1.0, 1.08, 1.16)
    for tone, (across, up, size) in zip(tones, blobs, strict=True):
        blob = disc(
            radius=radius * size,
            x=across * radius,
            z=up * height,
            count=9,
        )
        faces.append(Face(flat(blob), shade(leaves, tone)))

    return make_mesh([], faces, upright=True)


def _conifer(height: float, rng: np.random.Generator) -> Mesh:
    leaves = pick(NEEDLES, rng, 8)
    trunk = trapezium(
        y=0,
        z0=0,
        z1=0.2 * height,
        bottom=0.12,
    )
    faces = [Face(trunk, BARK)]
    for level, tone in enumerate((0.8, 0.92, 1.05)):
        branches = trapezium(
            y=0,
            z0=(0.12 + 0.24 * level) * height,
            z1=(0.58 + 0.21 * level) * height,
            bottom=height * (0.22 - 0.05 * level),
            top=0,
        )
        faces.append(Face(branches, shade(leaves, tone)))

    return make_mesh([], faces, upright=True)


def _bush(height: float, rng: np.random.Generator) -> Mesh:
    leaves = pick(LEAVES[:4], rng, 12)
    radius = height / 10
    faces: list[Face] = []
    for y, tone in ((-0.6, 0.8), (0.6, 0.9), (0.0, 1.05)):
        blob = disc(
            radius=radius,
            x=y * radius,
            z=radius * 0.6,
            count=9,
        )
        outline = upper_half(blob, bottom=0)
        faces.append(Face(flat(outline), shade(leaves, tone)))

    return make_mesh([], faces, upright=True)


# setting -> sides of the road with lamps (-1: right)
_LAMP_SIDES: dict[str, tuple[int, ...]] = {'city': (-1, 1), 'suburb': (-1,), 'country': ()}


def make_lamps(scene: Scene) -> list[Prop]:
    """Street lamps on the right, in cities on both sides, none in the country."""
    road = scene.road
    post = trapezium(
        y=0,
        z0=0,
        z1=6,
        bottom=0.09,
        top=0.06,
    )
    light = trapezium(
        y=0,
        z0=5.9,
        z1=6.2,
        bottom=0.5,
        top=0.35,
    )
    faces = [
        Face(post, (88.0, 92.0, 98.0)),
        Face(light, (255.0, 226.0, 160.0), shine=255.0),
    ]
    mesh = make_mesh([], faces, upright=True)
    places = np.arange(road.start + 4, road.end - 4, 22.0)
    props = []
    for side in _LAMP_SIDES[scene.setting]:
        # Those on the left stand between those on the right.
        shift = 11 if side > 0 else 0
        poses = road.place(places + shift, side * (road.kerb + 0.35))
        props += [Prop(mesh, pose, tall=False) for pose in poses]

    return props
