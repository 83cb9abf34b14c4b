"""Buildings, trees and street lamps along the road."""

from dataclasses import dataclass

import numpy as np

from .shapes import (
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


def make_buildings(scene: Scene, rng: np.random.Generator) -> list[Prop]:
    """Blocks of flats in cities, houses elsewhere, few in the country; none on a street that crosses."""
    road, setting, props = scene.road, scene.setting, []
    for side in (-1, 1):
        s = road.start + 5
        while s < road.end - 30:
            if setting == 'city':
                length, depth, height = rng.uniform(12, 24), rng.uniform(10, 14), rng.uniform(8, 26)
                gap, setback = rng.choice([0.2, 3.0]), 0.0
            elif setting == 'suburb':
                length, depth, height = (
                    rng.uniform(8, 13),
                    rng.uniform(7, 9),
                    rng.choice([2.9, 5.6]),
                )
                gap, setback = rng.uniform(3, 10), rng.uniform(0, 2.5)
            else:
                length, depth, height = rng.uniform(9, 15), rng.uniform(7, 9), 3.4
                gap, setback = rng.uniform(60, 140), rng.uniform(8, 30)
            middle = s + length / 2
            if all(abs(middle - crossing) > 7 + length / 2 for crossing in road.crossings):
                pose = road.place(middle, side * (road.front_line + setback + depth / 2))
                pose[2] += np.pi if side < 0 else 0.0
                build = _building if setting == 'city' else _house
                props.append(Prop(build(length, depth, height, scene.night, rng), pose, True))
            s += length + gap
    return props


def _building(
    length: float, depth: float, height: float, night: bool, rng: np.random.Generator
) -> Mesh:
    """A block of flats over shops; its front faces -y."""
    wall = pick(FACADES, rng, 14)
    body = cuboid(-length / 2, length / 2, depth, 0, height, wall, shade(wall, 0.7))
    floors, columns = max(2, int(height / 3.1)), max(3, int(length / rng.uniform(2.4, 3.4)))
    glass, lit = shade((70, 86, 104), rng.uniform(0.8, 1.3)), pick(LIT, rng)
    # Dark and lit panes stay apart: neighbours of one colour are painted in one go.
    dark: list[Face] = []
    bright: list[Face] = []
    half, tall = rng.uniform(0.30, 0.42) * length / columns, rng.uniform(1.2, 1.8)
    for floor in range(1, floors):
        z = floor * height / floors + 0.5
        for column in range(columns):
            x = (column + 0.5 - columns / 2) * length / columns
            pane = side_panel(rectangle(x - half, x + half, z, z + tall), -depth / 2)
            if night and rng.random() < 0.35:
                bright.append((pane, lit, 210.0))
            else:
                dark.append((pane, glass, 0.0))
        for x in (length / 2, -length / 2):
            dark += [
                (end_panel(x, y + 0.7, y - 0.7, z, z + tall), glass, 0.0)
                for y in (-0.25 * depth, 0.25 * depth)
            ]
    shop, awning = (
        side_panel(rectangle(-share * length, share * length, low, high), -depth / 2)
        for share, low, high in ((0.46, 0.3, 2.5), (0.48, 2.5, 3.2))
    )
    front: list[Face] = [
        (shop, lit, 170.0) if night else (shop, shade(glass, 0.8), 0.0),
        (awning, pick(AWNINGS, rng), 0.0),
    ]
    return make_mesh(body, dark + bright + front)


def _house(
    length: float, depth: float, height: float, night: bool, rng: np.random.Generator
) -> Mesh:
    """A house with a gable roof; its front faces -y."""
    wall, roof = pick(FACADES, rng, 16), pick(ROOFS, rng)
    body = cuboid(-length / 2, length / 2, depth, 0, height, wall)
    ridge, eaves, x, y = height + depth * 0.32, height - 0.2, length / 2 + 0.3, depth / 2 + 0.4
    body.append(
        (polygon((-x, -y, eaves), (x, -y, eaves), (x, 0, ridge), (-x, 0, ridge)), roof, 0.0)
    )
    body.append(
        (
            polygon((x, y, eaves), (-x, y, eaves), (-x, 0, ridge), (x, 0, ridge)),
            shade(roof, 0.85),
            0.0,
        )
    )
    for end in (length / 2, -length / 2):
        gable = polygon((end, -depth / 2, height), (end, depth / 2, height), (end, 0, ridge - 0.3))
        body.append((gable if end > 0 else gable[::-1], wall, 0.0))
    details: list[Face] = []
    for floor in range(max(1, int(height / 2.8))):
        for place in (-0.34, -0.12, 0.34):
            z, centre = 0.9 + floor * 2.7, place * length
            pane = side_panel(rectangle(centre - 0.6, centre + 0.6, z, z + 1.2), -depth / 2)
            details.append(
                (pane, LIT[0], 210.0) if night and rng.random() < 0.5 else (pane, PANE, 0.0)
            )
    door = rectangle(0.12 * length, 0.20 * length, 0, 2.1)
    details.append((side_panel(door, -depth / 2), pick(AWNINGS, rng), 0.0))
    details += [
        (end_panel(end, 0.7, -0.7, 1.0, 2.2), PANE, 0.0) for end in (length / 2, -length / 2)
    ]
    return make_mesh(body, details)


def make_trees(scene: Scene, rng: np.random.Generator) -> list[Prop]:
    """Trees at the kerb in cities; trees, conifers and bushes beyond the pavement elsewhere."""
    road, props = scene.road, []
    every, chance = {'city': (13.0, 0.45), 'suburb': (9.0, 0.65), 'country': (8.0, 0.6)}[
        scene.setting
    ]
    for side in (-1, 1):
        for s in np.arange(road.start + 2, road.end - 2, every):
            if rng.random() > chance or any(abs(s - crossing) < 9 for crossing in road.crossings):
                continue
            if scene.setting == 'city':
                d, mesh = road.kerb + 0.7, _leafy(rng.uniform(5, 7), rng)
            else:
                # Far enough from the pavement not to hide who walks there.
                d = (
                    road.kerb
                    + road.pavement
                    + rng.uniform(2.6, road.verge if scene.setting == 'suburb' else 26.0)
                )
                mesh = (_leafy, _leafy, _conifer, _bush)[rng.integers(4)](rng.uniform(5, 10), rng)
            props.append(Prop(mesh, road.place(s + rng.uniform(-2, 2), side * d), False))
    return props


def _leafy(height: float, rng: np.random.Generator) -> Mesh:
    """A broad-leaved tree."""
    leaves, radius = pick(LEAVES, rng, 12), height * rng.uniform(0.24, 0.32)
    faces: list[Face] = [(trapezium(0, 0, height * 0.6, 0.14, 0.09), BARK, 0.0)]
    blobs = [(0.0, 0.66, 1.0)] + [
        (rng.uniform(-0.7, 0.7), rng.uniform(0.5, 0.84), rng.uniform(0.45, 0.7)) for _ in range(5)
    ]
    # No two tones are equal, because overlapping faces of one colour would cut holes into each
    # other.
    for tone, (y, z, size) in zip((0.76, 0.84, 0.92, 1.0, 1.08, 1.16), blobs, strict=True):
        faces.append(
            (flat(disc(radius * size, y * radius, z * height, count=9)), shade(leaves, tone), 0.0)
        )
    return make_mesh([], faces, upright=True)


def _conifer(height: float, rng: np.random.Generator) -> Mesh:
    leaves = pick(NEEDLES, rng, 8)
    faces: list[Face] = [(trapezium(0, 0, 0.2 * height, 0.12), BARK, 0.0)]
    for level, tone in ((0, 0.8), (1, 0.92), (2, 1.05)):
        low, high, half = (
            (0.12 + 0.24 * level) * height,
            (0.58 + 0.21 * level) * height,
            height * (0.22 - 0.05 * level),
        )
        faces.append((trapezium(0, low, high, half, 0), shade(leaves, tone), 0.0))
    return make_mesh([], faces, upright=True)


def _bush(height: float, rng: np.random.Generator) -> Mesh:
    leaves, radius = pick(LEAVES[:4], rng, 12), height / 10
    faces: list[Face] = []
    for y, tone in ((-0.6, 0.8), (0.6, 0.9), (0.0, 1.05)):
        outline = upper_half(disc(radius, y * radius, radius * 0.6, count=9), 0)
        faces.append((flat(outline), shade(leaves, tone), 0.0))
    return make_mesh([], faces, upright=True)


def make_lamps(scene: Scene) -> list[Prop]:
    """Street lamps on the right, in cities on both sides, none in the country."""
    road = scene.road
    mesh = make_mesh(
        [],
        [
            (trapezium(0, 0, 6, 0.09, 0.06), (88.0, 92.0, 98.0), 0.0),
            (trapezium(0, 5.9, 6.2, 0.5, 0.35), (255.0, 226.0, 160.0), 255.0),
        ],
        upright=True,
    )
    s = np.arange(road.start + 4, road.end - 4, 22.0)
    sides = {'city': (-1, 1), 'suburb': (-1,), 'country': ()}[scene.setting]
    return [
        Prop(mesh, pose, False)
        for side in sides
        for pose in road.place(s + 11 * (side > 0), side * (road.kerb + 0.35))
    ]
