"""What stands still: sky, ground colours, buildings, trees and lamps of a scene, all tied to places in the world."""

from dataclasses import dataclass

import cv2
import numpy as np

from .roads import Road
from .shapes import Colour, Face, Mesh, cuboid, disc, end_panel, make_mesh, pick, polygon, shade, side_panel, upper_half
from .world import Scene

PANORAMA = (200, 1440)  # rows and columns of the sky, four columns per degree
LOWEST, HIGHEST = -.06, 1.05  # elevations (radians) of its last and first row
TILE = 512  # pixels of the ground's texture, 8 per metre

FACADES: tuple[Colour, ...] = ((196, 178, 158), (178, 120, 96), (214, 206, 194), (150, 148, 150), (206, 186, 140),
                               (170, 150, 160), (140, 156, 160), (188, 98, 78))
ROOFS: tuple[Colour, ...] = ((150, 70, 56), (96, 82, 78), (120, 92, 70), (84, 88, 98))
LEAVES: tuple[Colour,
              ...] = ((74, 122, 56), (92, 138, 60), (58, 104, 62), (120, 142, 62), (186, 130, 54), (150, 78, 44))
AWNINGS: tuple[Colour, ...] = ((186, 52, 48), (50, 110, 76), (48, 80, 140), (220, 178, 70), (230, 226, 216))

# zenith, horizon, how cloudy, how strong the sun
WEATHERS: tuple[tuple[Colour, Colour, float, float], ...] = (
    ((86, 142, 210), (198, 218, 232), .35, .42), ((112, 160, 214), (216, 224, 228), .8, .34),
    ((156, 166, 178), (204, 208, 212), 1., .12), ((96, 120, 176), (246, 202, 156), .5, .46),
    ((70, 130, 206), (176, 206, 230), .1, .48))
GRASS: tuple[Colour, ...] = ((118, 146, 78), (138, 150, 82), (98, 134, 76), (164, 154, 96))
ASPHALT: tuple[Colour, ...] = ((98, 100, 104), (86, 88, 92), (116, 114, 112), (104, 98, 96))
PAVEMENT: tuple[Colour, ...] = ((176, 172, 166), (160, 160, 160), (186, 174, 158))
FIELDS: tuple[Colour, ...] = ((190, 168, 92), (150, 164, 84), (122, 98, 70), (106, 142, 70), (206, 190, 120))


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


@dataclass(frozen=True)
class Backdrop:
    """All that a scene's pictures need beside its actors.

    Attributes:
        panorama: (rows, columns, 4) uint8 sky and skyline: R, G, B and how much shines by itself.
        texture: (TILE, TILE) uint8 brightness of the ground's texture, 128 on average.
        haze: colour of far things.
        ground, asphalt, pavement, line: colours.
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
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(.5, 1.1)
    sun = strength * np.array(
        [np.cos(azimuth) * np.cos(elevation),
         np.sin(azimuth) * np.cos(elevation),
         np.sin(elevation)])
    panorama = _panorama(scene, zenith, haze, clouds, azimuth, rng)
    ground = pick(GRASS if scene.setting != 'city' else PAVEMENT, rng)
    asphalt, pavement = pick(ASPHALT, rng, 4), pick(PAVEMENT, rng, 4)
    line = (238., 232., 196.) if rng.random() < .3 else (236., 236., 232.)
    fields = _fields(scene, rng)
    lamps, posts = _lamps(scene)
    props = _buildings(scene, rng) + _trees(scene, rng) + posts
    return Backdrop(panorama, _texture(rng), haze, ground, asphalt, pavement, line, sun, fields, _streets(scene.road),
                    _marks(scene.road), tuple(props), lamps)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Noise of several sizes that repeats without a seam."""
    total = np.zeros((TILE, TILE), dtype=np.float32)
    for size, weight in ((8, 7.), (32, 6.), (128, 6.), (TILE, 5.)):
        grid = np.pad(rng.standard_normal((size, size)).astype(np.float32), 2, mode='wrap')
        scale = TILE // size
        total += weight * cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)[
            2 * scale:2 * scale + TILE, 2 * scale:2 * scale + TILE]
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def _periodic(waves: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random line round the horizon, (columns,), about -1..1."""
    angle = np.linspace(0, 2 * np.pi, PANORAMA[1], endpoint=False)
    orders = np.arange(1, waves + 1)
    phase, size = rng.uniform(0, 2 * np.pi, waves), rng.uniform(.3, 1, waves) / np.sqrt(orders)
    line: np.ndarray = (size[:, None] * np.sin(orders[:, None] * angle + phase[:, None])).sum(axis=0)
    return line / np.abs(line).max()


def _row(elevation: float | np.ndarray) -> np.ndarray:
    """The panorama's row of an elevation in radians."""
    return (HIGHEST - np.asarray(elevation)) / (HIGHEST - LOWEST) * (PANORAMA[0] - 1)


def _panorama(scene: Scene, zenith: Colour, haze: Colour, clouds: float, sun: float,
              rng: np.random.Generator) -> np.ndarray:
    rows, columns = PANORAMA
    elevation = np.linspace(HIGHEST, LOWEST, rows).clip(0)[:, None, None]
    share = np.exp(-elevation / .28)
    sky = np.broadcast_to(np.array(zenith) * (1 - share) + np.array(haze) * share,
                          (rows, columns, 3)).astype(np.float32)
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    apart = np.abs((angle - sun + np.pi) % (2 * np.pi) - np.pi)[None, :, None]
    sky = sky + np.array([60, 48, 24], dtype=np.float32) * np.exp(-(apart / .5) ** 2 -
                                                                  (elevation - .3) ** 2 / .12) * (clouds < .9)
    cover = _clouds(rng)[..., None] * clouds
    white = np.array([250, 250, 250] if clouds < .9 else [222, 224, 228], dtype=np.float32)
    sky = sky * (1 - cover) + white * cover
    canvas = np.zeros((rows, columns, 4), dtype=np.uint8)
    canvas[..., :3] = np.clip(sky, 0, 255).astype(np.uint8)
    if scene.night:
        _stars(canvas, rng)
    x = np.arange(columns)
    base, green = np.array(haze), np.array(pick(LEAVES[:4], rng))
    for distance, (height, waves) in zip((.72, .5), ((.07, 7), (.04, 18)), strict=True):
        tops = _row(height * (.75 + .5 * _periodic(waves, rng)))
        colour = base * distance + green * .8 * (1 - distance)
        outline = np.concatenate([np.column_stack([x, tops]), [[columns, rows], [0, rows]]])
        cv2.fillPoly(canvas, [outline.astype(np.int32)], (*colour.tolist(), 0.))
    if scene.setting == 'city':
        _skyline(canvas, base, scene.night, rng)
    return canvas


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """(rows, columns) float32 share of cloud, seamless all round."""
    rows, columns = PANORAMA
    cover = np.zeros((rows, columns), dtype=np.float32)
    for _ in range(26):
        u, v = rng.integers(columns), int(_row(rng.uniform(.12, .8)))
        for _ in range(5):
            centre = (int(u + rng.normal(0, 26)), int(v + rng.normal(0, 3)))
            axes = (int(rng.uniform(16, 46)), int(rng.uniform(3, 9)))
            strength = float(rng.uniform(.5, 1.))
            for shift in (-columns, 0, columns):
                cv2.ellipse(cover, (centre[0] + shift, centre[1]), axes, 0, 0, 360, [strength], -1)
    ring = np.concatenate([cover[:, -40:], cover, cover[:, :40]], axis=1)
    blurred: np.ndarray = cv2.GaussianBlur(ring, (0, 0), 6, sigmaY=2.5)
    return blurred[:, 40:-40]


def _stars(canvas: np.ndarray, rng: np.random.Generator) -> None:
    v, u = rng.integers(0, int(PANORAMA[0] * .85), 160), rng.integers(0, PANORAMA[1], 160)
    canvas[v, u] = (235, 238, 255, 190)
    cv2.circle(canvas, (int(rng.integers(PANORAMA[1])), int(_row(.5))), 9, (244, 240, 214, 230), -1)


def _skyline(canvas: np.ndarray, haze: np.ndarray, night: bool, rng: np.random.Generator) -> None:
    """Far towers with, at night, lit windows."""
    rows, columns = PANORAMA
    u = 0
    while u < columns:
        width = int(rng.integers(12, 44))
        if rng.random() < .6:
            top = int(_row(rng.uniform(.04, .19)))
            colour = haze * rng.uniform(.62, .82)
            cv2.rectangle(canvas, (u, top), (u + width, rows), (*colour.tolist(), 0.), -1)
            if night:
                spots = rng.integers((u + 1, top + 2), (u + max(width - 1, 2), rows), (width // 2, 2))
                canvas[spots[:, 1].clip(0, rows - 1), spots[:, 0].clip(0, columns - 1)] = (255, 214, 140, 150)
        u += width + int(rng.integers(0, 16))


def _fields(scene: Scene, rng: np.random.Generator) -> tuple[tuple[np.ndarray, Colour], ...]:
    road = scene.road
    result: list[tuple[np.ndarray, Colour]] = []
    if scene.setting != 'country':
        return ()
    for side in (-1, 1):
        begin = road.start + 1
        while begin < road.end - 10:
            end = min(begin + rng.uniform(18, 60), road.end - 1)
            if rng.random() < .75:
                s = np.arange(begin, end, 4.)
                near, far = road.place(s, side * (road.front_line + 1)), road.place(s[::-1], side * 75.)
                result.append((np.concatenate([near, far])[:, :2], pick(FIELDS, rng)))
            begin = end + rng.uniform(0, 6)
    return tuple(result)


def _streets(road: Road) -> tuple[np.ndarray, ...]:
    return tuple(road.place(np.array([s - 4.5, s - 4.5, s + 4.5, s + 4.5]), np.array([-90, 90, 90, -90]))[:, :2]
                 for s in road.crossings)


def _marks(road: Road) -> np.ndarray:
    """Lane lines, edge lines and zebra crossings as (n, 4, 2) corners in the global frame."""
    left, right, begin, end = [], [], [], []
    for number in range(-road.lanes, road.lanes + 1):
        solid = abs(number) == road.lanes or (number == 0 and road.lanes > 1)
        s = np.arange(road.start, road.end - 4, 3. if solid else 9.)
        for crossing in road.crossings:
            s = s[(s < crossing - 13) | (s > crossing + 5)]
        left.append(np.full(len(s), number * road.lane_width + .08))
        right.append(left[-1] - .16)
        begin.append(s)
        end.append(s + (3. if solid else 3.6))
    for crossing in road.crossings:
        d = np.arange(.4 - road.carriageway, road.carriageway - .8, 1.)
        left.append(d + .5)
        right.append(d)
        begin.append(np.full(len(d), crossing - 10.6))
        end.append(begin[-1] + 3.2)
    x = [np.concatenate(values) for values in (begin, begin, end, end)]
    y = [np.concatenate(values) for values in (left, right, right, left)]
    return road.place(np.stack(x, axis=-1), np.stack(y, axis=-1))[..., :2]


def _building(length: float, depth: float, height: float, night: bool, rng: np.random.Generator) -> Mesh:
    """A block of flats; its front faces -y."""
    wall = pick(FACADES, rng, 14)
    body = cuboid(-length / 2, length / 2, depth, 0, height, wall, shade(wall, .7))
    floors, columns = max(2, int(height / 3.1)), max(3, int(length / rng.uniform(2.4, 3.4)))
    glass, lit = shade((70, 86, 104), rng.uniform(.8, 1.3)), pick(((255, 214, 140), (255, 236, 190)), rng)
    panes: list[Face] = []
    glow: list[Face] = []
    share, tall = rng.uniform(.30, .42), rng.uniform(1.2, 1.8)
    for floor in range(1, floors):
        z = floor * height / floors + .5
        for column in range(columns):
            x = (column + .5 - columns / 2) * length / columns
            half = share * length / columns
            pane = np.array([[x - half, z], [x + half, z], [x + half, z + tall], [x - half, z + tall]])
            bright = night and rng.random() < .35
            (glow if bright else panes).append(
                (side_panel(pane, -depth / 2), lit if bright else glass, 210. if bright else 0.))
        for side in (1, -1):
            for y in (-.25, .25):
                panes.append((end_panel(side * length / 2, y * depth + .7, y * depth - .7, z, z + tall), glass, 0.))
    shop = np.array([[-.46 * length, .3], [.46 * length, .3], [.46 * length, 2.5], [-.46 * length, 2.5]])
    front: list[Face] = [(side_panel(shop, -depth / 2), lit if night else shade(glass, .8), 170. if night else 0.)]
    awning = np.array([[-.48 * length, 2.5], [.48 * length, 2.5], [.48 * length, 3.2], [-.48 * length, 3.2]])
    front.append((side_panel(awning, -depth / 2), pick(AWNINGS, rng), 0.))
    return make_mesh(body, panes + glow + front)


def _house(length: float, depth: float, height: float, night: bool, rng: np.random.Generator) -> Mesh:
    """A house with a gable roof; its front faces -y."""
    wall, roof = pick(FACADES, rng, 16), pick(ROOFS, rng)
    body = cuboid(-length / 2, length / 2, depth, 0, height, wall)
    ridge, x, y = height + depth * .32, length / 2 + .3, depth / 2 + .4
    body.append((polygon((-x, -y, height - .2), (x, -y, height - .2), (x, 0, ridge), (-x, 0, ridge)), roof, 0.))
    body.append((polygon((x, y, height - .2), (-x, y, height - .2), (-x, 0, ridge), (x, 0, ridge)), shade(roof,
                                                                                                          .85), 0.))
    for sign in (1, -1):
        gable = polygon((sign * length / 2, -depth / 2, height), (sign * length / 2, depth / 2, height),
                        (sign * length / 2, 0, ridge - .3))
        body.append((gable if sign > 0 else gable[::-1], wall, 0.))
    details: list[Face] = []
    for floor in range(max(1, int(height / 2.8))):
        for place in (-.34, -.12, .34):
            z, centre = .9 + floor * 2.7, place * length
            pane = np.array([[centre - .6, z], [centre + .6, z], [centre + .6, z + 1.2], [centre - .6, z + 1.2]])
            bright = night and rng.random() < .5
            details.append((side_panel(pane, -depth / 2), (255, 220, 150) if bright else
                            (84, 98, 114), 210. if bright else 0.))
    door = np.array([[.12, 0], [.20, 0], [.20, 2.1], [.12, 2.1]]) * (length, 1)
    details.append((side_panel(door, -depth / 2), pick(AWNINGS, rng), 0.))
    for sign in (1, -1):
        details.append((end_panel(sign * length / 2, .7, -.7, 1., 2.2), (84, 98, 114), 0.))
    return make_mesh(body, details)


def _buildings(scene: Scene, rng: np.random.Generator) -> list[Prop]:
    road, props = scene.road, []
    for side in (-1, 1):
        s = road.start + 5
        while s < road.end - 30:
            if scene.setting == 'city':
                length, depth, height = rng.uniform(12, 24), rng.uniform(10, 14), rng.uniform(8, 26)
                gap = rng.choice([.2, 3.])
            elif scene.setting == 'suburb':
                length, depth, height, gap = rng.uniform(8, 13), rng.uniform(7, 9), rng.choice([2.9, 5.6]), rng.uniform(
                    3, 10)
            else:
                length, depth, height, gap = rng.uniform(9, 15), rng.uniform(7, 9), 3.4, rng.uniform(60, 140)
            middle = s + length / 2
            setback = 0. if scene.setting == 'city' else rng.uniform(0, 2.5)
            if scene.setting == 'country':
                setback = rng.uniform(8, 30)
            if all(abs(middle - crossing) > 7 + length / 2 for crossing in road.crossings):
                pose = road.place(np.array(middle), np.array(side * (road.front_line + setback + depth / 2)))
                pose[2] += np.pi if side < 0 else 0.
                build = _building if scene.setting == 'city' else _house
                props.append(Prop(build(length, depth, height, scene.night, rng), pose, True))
            s += length + gap
    return props


def _leafy(height: float, rng: np.random.Generator) -> Mesh:
    """A broad-leaved tree."""
    leaves, trunk = pick(LEAVES, rng, 12), (92., 70., 52.)
    radius = height * rng.uniform(.24, .32)
    faces: list[Face] = [(np.column_stack([np.zeros(4), [-.14, .14, .09, -.09], [0, 0, height * .6,
                                                                                 height * .6]]), trunk, 0.)]
    blobs = [(0., .66, 1.)] + [(rng.uniform(-.7, .7), rng.uniform(.5, .84), rng.uniform(.45, .7)) for _ in range(5)]
    for tone, (y, z, size) in zip((.76, .84, .92, 1., 1.08, 1.16), blobs, strict=True):
        outline = disc(radius * size, y * radius, z * height, count=9)
        faces.append((np.column_stack([np.zeros(9), outline]), shade(leaves, tone), 0.))
    return make_mesh([], faces, upright=True)


def _conifer(height: float, rng: np.random.Generator) -> Mesh:
    leaves = pick(((50, 92, 62), (62, 104, 66), (44, 84, 70)), rng, 8)
    faces: list[Face] = [(np.column_stack([np.zeros(4), [-.12, .12, .12, -.12], [0, 0, .2 * height,
                                                                                 .2 * height]]), (84., 64., 50.), 0.)]
    for level, tone in ((0, .8), (1, .92), (2, 1.05)):
        low, high, half = (.12 + .24 * level) * height, (.58 + .21 * level) * height, height * (.22 - .05 * level)
        faces.append((np.column_stack([np.zeros(3), [-half, half, 0], [low, low, high]]), shade(leaves, tone), 0.))
    return make_mesh([], faces, upright=True)


def _bush(rng: np.random.Generator) -> Mesh:
    leaves, radius = pick(LEAVES[:4], rng, 12), rng.uniform(.5, 1.)
    faces: list[Face] = []
    for y, tone in ((-.6, .8), (.6, .9), (0., 1.05)):
        outline = upper_half(disc(radius, y * radius, radius * .6, count=9), 0)
        faces.append((np.column_stack([np.zeros(9), outline]), shade(leaves, tone), 0.))
    return make_mesh([], faces, upright=True)


def _trees(scene: Scene, rng: np.random.Generator) -> list[Prop]:
    road, props = scene.road, []
    every, chance = {'city': (13., .45), 'suburb': (9., .65), 'country': (8., .6)}[scene.setting]
    for side in (-1, 1):
        for s in np.arange(road.start + 2, road.end - 2, every):
            if rng.random() > chance or any(abs(s - crossing) < 9 for crossing in road.crossings):
                continue
            if scene.setting == 'city':
                d, mesh = road.kerb + .7, _leafy(rng.uniform(5, 7), rng)
            else:
                d = road.kerb + road.pavement + rng.uniform(2.6, road.verge if scene.setting == 'suburb' else 26.)
                roll = rng.random()
                mesh = _leafy(rng.uniform(5, 9),
                              rng) if roll < .5 else _conifer(rng.uniform(6, 11), rng) if roll < .75 else _bush(rng)
            props.append(Prop(mesh, road.place(np.array(s + rng.uniform(-2, 2)), np.array(side * d)), False))
    return props


def _lamps(scene: Scene) -> tuple[np.ndarray, list[Prop]]:
    """Street lamps on the right, and in cities on both sides."""
    road = scene.road
    if scene.setting == 'country':
        return np.zeros((0, 2)), []
    faces: list[Face] = [(np.column_stack([np.zeros(4), [-.09, .09, .06, -.06], [0, 0, 6, 6]]), (88., 92., 98.), 0.),
                         (np.column_stack([np.zeros(4), [-.5, .5, .35, -.35], [5.9, 5.9, 6.2,
                                                                               6.2]]), (255., 226., 160.), 255.)]
    mesh = make_mesh([], faces, upright=True)
    s = np.arange(road.start + 4, road.end - 4, 22.)
    places = [road.place(s + 11 * (side > 0), np.full(len(s), side * (road.kerb + .35)))
              for side in ((-1, 1) if scene.setting == 'city' else (-1,))]
    poses = np.concatenate(places)
    return poses[:, :2], [Prop(mesh, pose, False) for pose in poses]
