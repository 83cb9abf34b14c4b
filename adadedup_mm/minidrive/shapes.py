"""What things look like: small coloured meshes for every class, by the actor's size and look."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .traffic import BICYCLE, BUS, CAR, CONE, PEDESTRIAN, TRUCK

Colour = tuple[float, float, float]  # R G B, 0..255
Palette = tuple[Colour, ...]

GLASS: Colour = (58, 74, 90)
TYRE: Colour = (32, 32, 34)
STEEL: Colour = (150, 154, 160)
CHASSIS: Colour = (52, 52, 56)
HEADLIGHT: Colour = (255, 250, 215)
TAILLIGHT: Colour = (200, 26, 22)
ORANGE: Colour = (244, 104, 24)

PAINTS: Palette = (
    (222, 224, 226),
    (176, 180, 186),
    (92, 96, 104),
    (42, 44, 50),
    (176, 34, 36),
    (36, 78, 156),
    (24, 112, 120),
    (214, 176, 56),
    (58, 116, 66),
    (120, 66, 40),
    (196, 110, 44),
    (112, 150, 190),
)
# Colours hint at the class: boxes of lorries are pale or blue, buses red or yellow, riders wear
# signal colours.
CARGO: Palette = (
    (232, 232, 228),
    (206, 210, 214),
    (222, 214, 196),
    (170, 186, 200),
    (60, 104, 170),
)
STRIPES: Palette = ((190, 60, 50), (60, 104, 170), (84, 140, 90), (90, 92, 98))
LIVERY: Palette = ((206, 42, 40), (242, 190, 40), (238, 150, 40), (170, 40, 70))
SIGNAL: Palette = ((236, 240, 70), (255, 140, 30), (120, 230, 90), (250, 90, 130))
CLOTHES: Palette = (
    (200, 50, 48),
    (48, 92, 168),
    (240, 196, 60),
    (58, 130, 78),
    (236, 236, 232),
    (120, 70, 130),
    (232, 120, 50),
    (70, 72, 80),
    (90, 180, 190),
    (226, 130, 160),
)
TROUSERS: Palette = ((40, 48, 74), (62, 58, 54), (34, 34, 38), (96, 84, 66), (70, 92, 128))
SKIN: Palette = ((240, 200, 170), (206, 158, 120), (150, 104, 74), (96, 66, 48))
HAIR: Palette = ((44, 32, 26), (96, 62, 34), (196, 160, 90), (120, 120, 120), (20, 20, 22))


@dataclass(frozen=True)
class Mesh:
    """Coloured polygons in a frame with x forward, y left and z up.

    Its origin lies on the ground below the middle of the thing.

    Attributes:
        vertices: (V, 3) float64, metres.
        faces: (F, k) int64 indices of vertices, counter-clockwise seen from outside; short faces
            repeat their last one.
        colours: (F, 4) float64 R, G, B, 0..255, and how much of it shines by itself at night,
            0..255.
        normals: (F, 3) float64 unit vectors; zero for faces that are seen from both sides.
        solid: how many faces, from the first, are sorted by distance; the rest are painted after
            them in their order.
        upright: the mesh stands upright in the y-z plane and always turns its face to the camera.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    normals: np.ndarray
    solid: int
    upright: bool = False

    @property
    def middle(self) -> np.ndarray:
        """(3,) the middle of its bounding box."""
        lowest = self.vertices.min(axis=0)
        highest = self.vertices.max(axis=0)
        middle: np.ndarray = (lowest + highest) / 2
        return middle


class Face(NamedTuple):
    """A coloured polygon.

    Attributes:
        corners: (k, 3) float64, metres.
        colour: R, G, B, 0..255.
        shine: how much of it shines by itself at night, 0..255.
    """

    corners: np.ndarray
    colour: Colour
    shine: float = 0.0


def make_mesh(solid: list[Face], details: list[Face], upright: bool = False) -> Mesh:
    """A mesh from faces; the normals follow from the order of the corners.

    Args:
        solid: faces that are sorted by distance.
        details: faces that are painted after them in their order.
        upright: see ``Mesh``.
    """
    both = solid + details
    counts = np.array([len(face.corners) for face in both])
    vertices = np.concatenate([face.corners for face in both])
    first = np.cumsum(counts) - counts
    steps = np.arange(counts.max())
    last_step = counts[:, None] - 1
    faces = first[:, None] + np.minimum(steps, last_step)
    rgb_and_shine = [(*face.colour, face.shine) for face in both]

    return Mesh(
        vertices=vertices,
        faces=faces,
        colours=np.array(rgb_and_shine, dtype=np.float64),
        normals=np.zeros((len(both), 3)) if upright else _normals(vertices[faces]),
        solid=len(solid),
        upright=upright,
    )


def _normals(corners: np.ndarray) -> np.ndarray:
    """(F, 3) unit vectors of polygons (F, k, 3).

    Newell's formula holds for polygons with any number of corners, repeated ones included.
    """
    following = np.roll(corners, -1, axis=1)
    normals: np.ndarray = np.cross(corners, following).sum(axis=1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= np.maximum(length, 1e-12)
    return normals


def polygon(*corners: tuple[float, float, float]) -> np.ndarray:
    """Corners as an array."""
    return np.array(corners, dtype=np.float64)


def side_panel(outline: np.ndarray, y: float) -> np.ndarray:
    """An outline in the side at ``y``, facing outwards.

    Args:
        outline: (k, 2) x and z, counter-clockwise with x to the right.
        y: of the side.
    """
    corners = standing(outline, y)
    return corners[::-1] if y > 0 else corners


def standing(outline: np.ndarray, y: float = 0.0) -> np.ndarray:
    """An outline (k, 2) of x and z in the plane of travel at ``y``, (k, 3)."""
    x = outline[:, 0]
    z = outline[:, 1]
    return np.column_stack([x, np.full(len(outline), y), z])


def end_panel(x: float, left: float, right: float, bottom: float, top: float) -> np.ndarray:
    """A rectangle across the front (x > 0) or the rear, facing outwards.

    Args:
        x: of the end.
        left: y of its left side, larger than ``right``.
        right: y of its right side.
        bottom: z of its lower side.
        top: z of its upper side.
    """
    corners = polygon(
        (x, right, bottom),
        (x, left, bottom),
        (x, left, top),
        (x, right, top),
    )
    return corners if x > 0 else corners[::-1]


def extrude(profile: np.ndarray, width: float, colours: list[Colour], side: Colour) -> list[Face]:
    """A body with a side view and a width.

    Args:
        profile: (k, 2) x and z, counter-clockwise with x to the right.
        width: metres along y.
        colours: one for every edge i -> i + 1 of the profile.
        side: colour of the two side walls.
    """
    half = width / 2
    following = np.roll(profile, -1, axis=0)
    faces: list[Face] = []
    for (x0, z0), (x1, z1), colour in zip(profile, following, colours, strict=True):
        corners = polygon(
            (x0, half, z0),
            (x0, -half, z0),
            (x1, -half, z1),
            (x1, half, z1),
        )
        faces.append(Face(corners[::-1], colour))

    return faces + both_sides(profile, width, side)


def cuboid(
    x0: float,
    x1: float,
    width: float,
    z0: float,
    z1: float,
    colour: Colour,
    roof: Colour | None = None,
) -> list[Face]:
    """An upright box from x0 to x1 and z0 to z1, centred on y = 0, without a floor."""
    profile = rectangle(x0, x1, z0, z1)
    colours = [colour, colour, roof or colour, colour]
    floor_first = extrude(profile, width, colours, side=colour)
    return floor_first[1:]


def disc(radius: float, x: float = 0.0, z: float = 0.0, count: int = 10) -> np.ndarray:
    """(count, 2) points on a circle round (x, z), counter-clockwise."""
    angle = np.arange(count) * 2 * np.pi / count
    across = x + radius * np.cos(angle)
    up = z + radius * np.sin(angle)
    return np.column_stack([across, up])


def upper_half(outline: np.ndarray, bottom: float) -> np.ndarray:
    """An outline (k, 2) in x and z with everything below ``bottom`` flattened."""
    x = outline[:, 0]
    z = outline[:, 1]
    return np.column_stack([x, np.maximum(z, bottom)])


def flat(outline: np.ndarray) -> np.ndarray:
    """An outline (k, 2) in y and z of a mesh that faces the camera."""
    x = np.zeros(len(outline))
    return np.column_stack([x, outline])


def trapezium(
    y: float, z0: float, z1: float, bottom: float, top: float | None = None
) -> np.ndarray:
    """Part of a mesh that faces the camera.

    Args:
        y: of its middle.
        z0: of its lower side.
        z1: of its upper side.
        bottom: half the length of the lower side.
        top: half the length of the upper side; that of the lower one by default.
    """
    if top is None:
        top = bottom
    corners = [
        [y - bottom, z0],
        [y + bottom, z0],
        [y + top, z1],
        [y - top, z1],
    ]
    return flat(np.array(corners))


def wheels(places: list[float], radius: float, width: float) -> list[Face]:
    """Wheels in the side walls."""
    faces: list[Face] = []
    for x in places:
        tyre = disc(radius, x, radius)
        rim = disc(radius * 0.55, x, radius)
        for y in (width / 2, -width / 2):
            faces.append(Face(side_panel(tyre, y), TYRE))
            faces.append(Face(side_panel(rim, y), STEEL))
    return faces


def rectangle(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """(4, 2) outline in x and z, counter-clockwise with x to the right."""
    corners = [
        [x0, z0],
        [x1, z0],
        [x1, z1],
        [x0, z1],
    ]
    return np.array(corners)


def both_sides(outline: np.ndarray, width: float, colour: Colour, shine: float = 0.0) -> list[Face]:
    """An outline (k, 2) in both side walls."""
    left = side_panel(outline, width / 2)
    right = side_panel(outline, -width / 2)
    return [Face(left, colour, shine), Face(right, colour, shine)]


def light_pair(x: float, inner: float, outer: float, low: float, high: float) -> list[Face]:
    """Headlights or tail lights.

    Args:
        x: of the front (x > 0: headlights) or the rear.
        inner: metres from the middle to the lights.
        outer: metres from the middle to the ends of the lights.
        low: z of their lower side.
        high: z of their upper side.
    """
    left = end_panel(
        x=x,
        left=outer,
        right=inner,
        bottom=low,
        top=high,
    )
    right = end_panel(
        x=x,
        left=-inner,
        right=-outer,
        bottom=low,
        top=high,
    )
    if x > 0:
        colour, shine = HEADLIGHT, 255.0
    else:
        colour, shine = TAILLIGHT, 200.0

    return [Face(left, colour, shine), Face(right, colour, shine)]


def shade(colour: Colour, factor: float) -> Colour:
    """A darker or lighter tone."""
    r, g, b = (min(255.0, channel * factor) for channel in colour)
    return r, g, b


def pick(options: Palette, rng: np.random.Generator, jitter: float = 10.0) -> Colour:
    """One of the colours, slightly changed."""
    chosen = options[rng.integers(len(options))]
    change = rng.normal(0, jitter, 3)
    r, g, b = np.clip(np.array(chosen) + change, 0, 255)
    return float(r), float(g), float(b)


# Side views of cars, as shares of length and height: bumper, bonnet, windscreen, roof, rear window,
# boot.
_CARS = {
    'saloon': (
        (-0.5, 0.20),
        (0.5, 0.20),
        (0.5, 0.52),
        (0.22, 0.60),
        (0.06, 1.0),
        (-0.22, 1.0),
        (-0.36, 0.64),
        (-0.5, 0.60),
    ),
    'hatchback': (
        (-0.5, 0.20),
        (0.5, 0.20),
        (0.5, 0.54),
        (0.26, 0.62),
        (0.08, 1.0),
        (-0.36, 0.98),
        (-0.48, 0.62),
        (-0.5, 0.50),
    ),
    'suv': (
        (-0.5, 0.22),
        (0.5, 0.22),
        (0.5, 0.58),
        (0.24, 0.64),
        (0.12, 1.0),
        (-0.42, 1.0),
        (-0.49, 0.64),
        (-0.5, 0.55),
    ),
    'van': (
        (-0.5, 0.18),
        (0.5, 0.18),
        (0.5, 0.52),
        (0.40, 0.58),
        (0.22, 1.0),
        (-0.48, 1.0),
        (-0.5, 0.60),
        (-0.5, 0.50),
    ),
}


def car(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A car: saloon, hatchback, sport utility vehicle or van."""
    length, width, height = (float(value) for value in size)
    kind = str(rng.choice(list(_CARS)))
    profile = np.array(_CARS[kind]) * (length, height)
    paint = pick(PAINTS, rng)
    floor = shade(paint, 0.5)
    bonnet = shade(paint, 1.06)
    roof = shade(paint, 1.1)
    colours = [floor, paint, bonnet, GLASS, roof, GLASS, paint, paint]
    body = extrude(profile, width, colours, side=paint)
    details = _car_windows(profile, length, width, height)
    front_plate = shade(paint, 0.35)
    rear_plate = (225.0, 225.0, 215.0)
    for x, colour in ((length / 2, front_plate), (-length / 2, rear_plate)):
        plate = end_panel(
            x,
            left=width * 0.2,
            right=-width * 0.2,
            bottom=0.26 * height,
            top=0.36 * height,
        )
        details.append(Face(plate, colour))

    for x in (length / 2, -length / 2):
        details += light_pair(
            x,
            inner=0.27 * width,
            outer=0.47 * width,
            low=0.40 * height,
            high=0.50 * height,
        )

    details += wheels([0.30 * length, -0.30 * length], 0.22 * height, width)

    return (make_mesh(body, details),)


def _car_windows(profile: np.ndarray, length: float, width: float, height: float) -> list[Face]:
    """The front and the rear side windows on both sides, between windscreen and rear window."""
    belt = 0.62 * height
    roof = 0.95 * height
    inset = 0.035 * length
    front_low, front_top, rear_top, rear_low = profile[3:7, 0]
    middle = (front_top + rear_top) / 2
    # The post between the windows.
    post_front = middle + inset / 3
    post_rear = middle - inset / 3
    front = [
        [post_front, belt],
        [front_low - 2 * inset, belt],
        [front_top - inset / 2, roof],
        [post_front, roof],
    ]
    rear = [
        [rear_low + 2 * inset, belt],
        [post_rear, belt],
        [post_rear, roof],
        [rear_top + inset / 2, roof],
    ]
    front_windows = both_sides(np.array(front), width, GLASS)
    rear_windows = both_sides(np.array(rear), width, GLASS)

    return front_windows + rear_windows


def truck(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A lorry: a cab and a box that differs in colour."""
    length, width, height = (float(value) for value in size)
    paint = pick(PAINTS, rng)
    box = pick(CARGO, rng)
    stripe = pick(STRIPES, rng)
    cab_length = length * 0.24
    cab = _truck_cab(length, cab_length, width * 0.94, width, height, paint)
    cargo = _truck_cargo(length, cab_length, width, height, box, stripe)
    return cab, cargo


def _truck_cab(
    length: float, cab: float, cab_width: float, width: float, height: float, paint: Colour
) -> Mesh:
    front = length / 2
    back = front - cab
    floor = 0.16 * height
    top = 0.86 * height
    profile = [
        [back, floor],
        [front, floor],
        [front, 0.50 * height],
        [front - 0.12 * cab, top],
        [back, top],
    ]
    colours = [paint, paint, GLASS, paint, paint]
    window = [
        [front - 0.62 * cab, 0.52 * height],
        [front - 0.12 * cab, 0.52 * height],
        [front - 0.22 * cab, 0.78 * height],
        [front - 0.62 * cab, 0.78 * height],
    ]
    details = both_sides(np.array(window), cab_width, GLASS)
    details += light_pair(
        front,
        inner=0.24 * width,
        outer=0.42 * width,
        low=0.22 * height,
        high=0.30 * height,
    )
    details += wheels([front - 0.5 * cab], 0.17 * height, cab_width)
    body = extrude(np.array(profile), cab_width, colours, side=paint)

    return make_mesh(body, details)


def _truck_cargo(
    length: float, cab: float, width: float, height: float, box: Colour, stripe: Colour
) -> Mesh:
    """The box behind the cab with the chassis below it, its doors' gap and its lights."""
    rear = -length / 2
    behind_cab = length / 2 - cab
    end = behind_cab - length * 0.03
    body = cuboid(
        x0=rear,
        x1=end,
        width=width,
        z0=0.24 * height,
        z1=height,
        colour=box,
        roof=shade(box, 1.08),
    )
    band = rectangle(
        x0=rear,
        x1=end,
        z0=0.36 * height,
        z1=0.44 * height,
    )
    door_gap = end_panel(
        rear,
        left=0.02,
        right=-0.02,
        bottom=0.26 * height,
        top=0.96 * height,
    )
    details = both_sides(band, width, stripe)
    details += _truck_chassis(rear, behind_cab, width, height)
    details.append(Face(door_gap, shade(box, 0.6)))
    details += light_pair(
        rear,
        inner=0.30 * width,
        outer=0.47 * width,
        low=0.16 * height,
        high=0.22 * height,
    )
    details += wheels([-0.30 * length, -0.14 * length], 0.17 * height, width)

    return make_mesh(body, details)


def _truck_chassis(rear: float, front: float, width: float, height: float) -> list[Face]:
    sides = rectangle(
        x0=rear,
        x1=front,
        z0=0.14 * height,
        z1=0.24 * height,
    )
    end = end_panel(
        rear,
        left=width / 2,
        right=-width / 2,
        bottom=0.14 * height,
        top=0.24 * height,
    )
    return [*both_sides(sides, width, CHASSIS), Face(end, CHASSIS)]


def bus(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A bus: one long body with a band of windows and a lit sign above the windscreen."""
    length, width, height = (float(value) for value in size)
    paint = pick(LIVERY, rng)
    front = length / 2
    body = cuboid(
        x0=-front,
        x1=front,
        width=width,
        z0=0.10 * height,
        z1=height,
        colour=paint,
        roof=shade(paint, 1.1),
    )
    details: list[Face] = []
    window_ends = np.linspace(-0.46 * length, 0.44 * length, 7)
    for begin, end in pairwise(window_ends):
        window = rectangle(
            x0=begin + 0.12,
            x1=end - 0.12,
            z0=0.50 * height,
            z1=0.82 * height,
        )
        details += both_sides(window, width, GLASS, shine=60.0)

    skirt = rectangle(
        x0=-front,
        x1=front,
        z0=0.10 * height,
        z1=0.18 * height,
    )
    details += both_sides(skirt, width, shade(paint, 0.45))
    door = rectangle(
        x0=0.33 * length,
        x1=0.43 * length,
        z0=0.14 * height,
        z1=0.82 * height,
    )
    details.append(Face(side_panel(door, -width / 2), shade(GLASS, 0.8), shine=40.0))
    details += _bus_ends(front, width, height)
    for x in (front, -front):
        details += light_pair(
            x,
            inner=0.27 * width,
            outer=0.47 * width,
            low=0.18 * height,
            high=0.25 * height,
        )

    details += wheels([0.30 * length, -0.28 * length], 0.15 * height, width)

    return (make_mesh(body, details),)


def _bus_ends(front: float, width: float, height: float) -> list[Face]:
    """Windscreen, sign and rear window."""
    windscreen = end_panel(
        front,
        left=width * 0.45,
        right=-width * 0.45,
        bottom=0.40 * height,
        top=0.84 * height,
    )
    sign = end_panel(
        front,
        left=width * 0.3,
        right=-width * 0.3,
        bottom=0.87 * height,
        top=0.96 * height,
    )
    rear_window = end_panel(
        -front,
        left=width * 0.4,
        right=-width * 0.4,
        bottom=0.52 * height,
        top=0.82 * height,
    )
    return [
        Face(windscreen, GLASS),
        Face(sign, (250, 190, 60), shine=220.0),
        Face(rear_window, GLASS),
    ]


def pedestrian(size: np.ndarray, rng: np.random.Generator, stride: float = 0.0) -> tuple[Mesh, ...]:
    """A person; ``stride`` in [-1, 1] sets the legs."""
    height = float(size[2])
    half = float(size[1]) / 2
    shirt = pick(CLOTHES, rng)
    trousers = pick(TROUSERS, rng)
    skin = pick(SKIN, rng, 4)
    hair = pick(HAIR, rng, 4)
    faces: list[Face] = []
    for sign in (1, -1):
        leg = _leg(sign, half, height, stride)
        arm = _arm(sign, half, height, stride)
        faces.append(Face(leg, shade(trousers, 1.0 if sign > 0 else 0.85)))
        faces.append(Face(arm, shade(shirt, 0.8)))

    trunk = trapezium(
        y=0,
        z0=0.47 * height,
        z1=0.83 * height,
        bottom=half * 0.52,
        top=half * 0.70,
    )
    faces.append(Face(trunk, shirt))
    if rng.random() < 0.4:
        bag = trapezium(
            y=half * 0.1,
            z0=0.54 * height,
            z1=0.80 * height,
            bottom=half * 0.34,
        )
        faces.append(Face(bag, pick(CLOTHES, rng)))

    crown = 0.915 * height
    head = disc(0.078 * height, z=crown, count=8)
    scalp = disc(0.086 * height, z=crown, count=8)
    faces.append(Face(flat(head), skin))
    faces.append(Face(flat(upper_half(scalp, crown + 0.01 * height)), hair))

    return (make_mesh([], faces, upright=True),)


def _leg(sign: int, half: float, height: float, stride: float) -> np.ndarray:
    foot = sign * half * (0.28 + 0.34 * abs(stride))
    hip = sign * half * 0.28
    outline = [
        [foot - half * 0.2, 0],
        [foot + half * 0.2, 0],
        [hip + half * 0.27, 0.50 * height],
        [hip - half * 0.27, 0.50 * height],
    ]
    return flat(np.array(outline))


def _arm(sign: int, half: float, height: float, stride: float) -> np.ndarray:
    hand = sign * half * (0.80 + 0.14 * stride * sign)
    shoulder = sign * half * 0.62
    outline = [
        [hand - half * 0.13, 0.44 * height],
        [hand + half * 0.13, 0.44 * height],
        [shoulder + half * 0.2, 0.80 * height],
        [shoulder - half * 0.2, 0.80 * height],
    ]
    return flat(np.array(outline))


# Both ends of a bicycle frame's tubes, as shares of its length and, times 1.4 m, heights.
_TUBES = (
    ((-0.30, 0.24), (-0.06, 0.24)),
    ((-0.06, 0.24), (-0.14, 0.52)),
    ((-0.14, 0.50), (0.20, 0.54)),
    ((-0.06, 0.24), (0.20, 0.54)),
    ((0.30, 0.24), (0.18, 0.66)),
)
_TUBE = 0.035  # half a tube's thickness, metres


def bicycle(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A bicycle with its rider.

    Wheels and frame lie in the plane of travel, the rider turns to the camera.
    """
    length, width, height = (float(value) for value in size)
    frame = pick(CLOTHES, rng)
    shirt = pick(SIGNAL, rng)
    trousers = pick(TROUSERS, rng)
    skin = pick(SKIN, rng, 4)
    helmet = pick(CLOTHES, rng)
    machine = _bicycle_wheels(length) + _bicycle_frame(length, frame)
    mesh = make_mesh([], machine)
    seen_from_both_sides = replace(mesh, normals=np.zeros_like(mesh.normals))
    rider = _rider(width / 2, height, shirt, trousers)
    crown = 0.915 * height
    head = disc(0.075 * height, z=crown, count=8)
    helmet_outline = upper_half(disc(0.09 * height, z=crown, count=8), crown)
    rear_light = trapezium(
        y=0,
        z0=0.42 * height,
        z1=0.46 * height,
        bottom=0.07,
    )
    rider.append(Face(flat(head), skin))
    rider.append(Face(flat(helmet_outline), helmet))
    rider.append(Face(rear_light, TAILLIGHT, shine=200.0))

    return seen_from_both_sides, make_mesh([], rider, upright=True)


def _bicycle_wheels(length: float) -> list[Face]:
    radius = length * 0.2
    faces: list[Face] = []
    for x in (length / 2 - radius, radius - length / 2):
        # A ring is one closed line round the outside and back round the inside; painted even-odd,
        # it has a hole.
        outer = disc(radius, x, radius)
        inner = disc(radius * 0.74, x, radius)[::-1]
        ring = np.concatenate([outer, outer[:1], inner[-1:], inner])
        faces.append(Face(standing(ring), TYRE))

    return faces


def _bicycle_frame(length: float, colour: Colour) -> list[Face]:
    faces: list[Face] = []
    for (begin, low), (end, high) in _TUBES:
        x0 = begin * length
        x1 = end * length
        tube = polygon(
            (x0, 0, low * 1.4 - _TUBE),
            (x1, 0, high * 1.4 - _TUBE),
            (x1 + _TUBE, 0, high * 1.4 + _TUBE),
            (x0 + _TUBE, 0, low * 1.4 + _TUBE),
        )
        faces.append(Face(tube, colour))

    return faces


def _rider(half: float, height: float, shirt: Colour, trousers: Colour) -> list[Face]:
    """Seat post, handlebar and a rider without a head; ``half`` of the width."""
    post = trapezium(
        y=0,
        z0=0,
        z1=0.40 * height,
        bottom=0.045,
    )
    handlebar = trapezium(
        y=0,
        z0=0.56 * height,
        z1=0.60 * height,
        bottom=half * 0.9,
    )
    faces = [Face(post, TYRE), Face(handlebar, (40, 40, 44))]
    for sign in (1, -1):
        leg = trapezium(
            y=sign * half * 0.36,
            z0=(0.16 + 0.06 * sign) * height,
            z1=0.56 * height,
            bottom=half * 0.18,
            top=half * 0.26,
        )
        arm = trapezium(
            y=sign * half * 0.74,
            z0=0.58 * height,
            z1=0.80 * height,
            bottom=half * 0.16,
        )
        faces.append(Face(leg, trousers))
        faces.append(Face(arm, shade(shirt, 0.8)))

    trunk = trapezium(
        y=0,
        z0=0.50 * height,
        z1=0.83 * height,
        bottom=half * 0.50,
        top=half * 0.72,
    )
    faces.append(Face(trunk, shirt))

    return faces


def cone(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A traffic cone with one or two white bands."""
    half = float(size[1]) / 2
    height = float(size[2])
    orange = pick((ORANGE,), rng, 8)
    foot = trapezium(
        y=0,
        z0=0,
        z1=0.09 * height,
        bottom=half,
    )
    body = trapezium(
        y=0,
        z0=0.09 * height,
        z1=height,
        bottom=half * 0.72,
        top=half * 0.14,
    )
    faces = [Face(foot, shade(orange, 0.65)), Face(body, orange)]

    def half_width(share: float) -> float:
        return half * (0.72 - 0.58 * (share - 0.09) / 0.91)

    bands = int(rng.integers(1, 3))
    for low, high in ((0.36, 0.54), (0.68, 0.80))[:bands]:
        band = trapezium(
            y=0,
            z0=low * height,
            z1=high * height,
            bottom=half_width(low),
            top=half_width(high),
        )
        faces.append(Face(band, (245, 245, 240), shine=40.0))

    return (make_mesh([], faces, upright=True),)


_BUILDERS = {CAR: car, TRUCK: truck, BUS: bus, BICYCLE: bicycle, CONE: cone}


def actor_meshes(label: int, size: np.ndarray, look: int, stride: float = 0.0) -> tuple[Mesh, ...]:
    """The meshes of an actor.

    Args:
        label: index into ``CLASSES``.
        size: (3,) length, width, height in metres; the meshes fill this box.
        look: seed of the colours and the shape.
        stride: where in its step a walking person is, -1..1.
    """
    rng = np.random.default_rng(look)
    if label == PEDESTRIAN:
        return pedestrian(size, rng, stride)
    build = _BUILDERS[label]
    return build(size, rng)
