"""What things look like: small coloured meshes for every class, built from the actor's size and look."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .traffic import BICYCLE, BUS, CAR, PEDESTRIAN, TRUCK

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
    """Coloured polygons in a frame with x forward, y left, z up and its origin on the ground below the middle.

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
        middle: np.ndarray = (self.vertices.min(axis=0) + self.vertices.max(axis=0)) / 2
        return middle


Face = tuple[np.ndarray, Colour, float]  # (k, 3) corners, colour, shine


def make_mesh(solid: list[Face], details: list[Face], upright: bool = False) -> Mesh:
    """A mesh from faces; the normals follow from the order of the corners."""
    both = solid + details
    longest = max(len(corners) for corners, _, _ in both)
    vertices = np.concatenate([corners for corners, _, _ in both])
    counts = np.array([len(corners) for corners, _, _ in both])
    faces = (np.cumsum(counts) - counts)[:, None] + np.minimum(
        np.arange(longest), counts[:, None] - 1
    )
    normals = np.zeros((len(both), 3))
    if not upright:
        # Newell's formula holds for polygons with any number of corners, repeated ones included.
        corners = vertices[faces]
        normals = np.cross(corners, np.roll(corners, -1, axis=1)).sum(axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    colours = np.array([(*colour, shine) for _, colour, shine in both], dtype=np.float64)
    return Mesh(vertices, faces, colours, normals, len(solid), upright)


def polygon(*corners: tuple[float, float, float]) -> np.ndarray:
    """Corners as an array."""
    return np.array(corners, dtype=np.float64)


def side_panel(outline: np.ndarray, y: float) -> np.ndarray:
    """An outline (k, 2) in x and z, counter-clockwise with x to the right, in the side at ``y``, facing outwards."""
    corners = np.column_stack([outline[:, 0], np.full(len(outline), y), outline[:, 1]])
    return corners[::-1] if y > 0 else corners


def end_panel(x: float, left: float, right: float, bottom: float, top: float) -> np.ndarray:
    """A rectangle across the front (x > 0) or the rear, facing outwards; ``left`` > ``right`` along y."""
    corners = polygon((x, right, bottom), (x, left, bottom), (x, left, top), (x, right, top))
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
    faces: list[Face] = []
    for (x0, z0), (x1, z1), colour in zip(
        profile, np.roll(profile, -1, axis=0), colours, strict=True
    ):
        faces.append(
            (
                polygon((x0, half, z0), (x0, -half, z0), (x1, -half, z1), (x1, half, z1))[::-1],
                colour,
                0.0,
            )
        )
    return faces + [(side_panel(profile, y), side, 0.0) for y in (half, -half)]


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
    return extrude(
        rectangle(x0, x1, z0, z1), width, [colour, colour, roof or colour, colour], colour
    )[1:]


def disc(radius: float, x: float = 0.0, z: float = 0.0, count: int = 10) -> np.ndarray:
    """(count, 2) points on a circle round (x, z), counter-clockwise."""
    angle = np.arange(count) * 2 * np.pi / count
    return np.column_stack([x + radius * np.cos(angle), z + radius * np.sin(angle)])


def upper_half(outline: np.ndarray, bottom: float) -> np.ndarray:
    """An outline (k, 2) in x and z with everything below ``bottom`` flattened."""
    return np.column_stack([outline[:, 0], np.maximum(outline[:, 1], bottom)])


def flat(outline: np.ndarray) -> np.ndarray:
    """An outline (k, 2) in y and z of a mesh that faces the camera."""
    return np.column_stack([np.zeros(len(outline)), outline])


def trapezium(
    y: float, z0: float, z1: float, bottom: float, top: float | None = None
) -> np.ndarray:
    """Part of a mesh that faces the camera: from z0 to z1 around ``y``, with half widths ``bottom`` and ``top``."""
    top = bottom if top is None else top
    return flat(np.array([[y - bottom, z0], [y + bottom, z0], [y + top, z1], [y - top, z1]]))


def wheels(places: list[float], radius: float, width: float) -> list[Face]:
    """Wheels in the side walls."""
    faces: list[Face] = []
    for x in places:
        for y in (width / 2, -width / 2):
            for size, colour in ((radius, TYRE), (radius * 0.55, STEEL)):
                faces.append((side_panel(disc(size, x, radius), y), colour, 0.0))
    return faces


def rectangle(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """(4, 2) outline in x and z, counter-clockwise with x to the right."""
    return np.array([[x0, z0], [x1, z0], [x1, z1], [x0, z1]])


def both_sides(outline: np.ndarray, width: float, colour: Colour, shine: float = 0.0) -> list[Face]:
    """An outline (k, 2) in both side walls."""
    return [(side_panel(outline, y), colour, shine) for y in (width / 2, -width / 2)]


def light_pair(x: float, inner: float, outer: float, low: float, high: float) -> list[Face]:
    """Headlights (x > 0) or tail lights, ``inner`` to ``outer`` metres from the middle, ``low`` to ``high`` up."""
    colour, shine = (HEADLIGHT, 255.0) if x > 0 else (TAILLIGHT, 200.0)
    return [
        (end_panel(x, left, right, low, high), colour, shine)
        for left, right in ((outer, inner), (-inner, -outer))
    ]


def shade(colour: Colour, factor: float) -> Colour:
    """A darker or lighter tone."""
    r, g, b = (min(255.0, channel * factor) for channel in colour)
    return r, g, b


def pick(options: Palette, rng: np.random.Generator, jitter: float = 10.0) -> Colour:
    """One of the colours, slightly changed."""
    r, g, b = np.clip(
        np.array(options[rng.integers(len(options))]) + rng.normal(0, jitter, 3), 0, 255
    )
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
    profile = np.array(_CARS[str(rng.choice(list(_CARS)))]) * (length, height)
    paint = pick(PAINTS, rng)
    colours = [
        shade(paint, 0.5),
        paint,
        shade(paint, 1.06),
        GLASS,
        shade(paint, 1.1),
        GLASS,
        paint,
        paint,
    ]
    belt, roof = 0.62 * height, 0.95 * height
    (front_low, front_top), (rear_top, rear_low) = profile[[3, 4], 0], profile[[5, 6], 0]
    windows: list[Face] = []
    middle = (front_top + rear_top) / 2
    inset = 0.035 * length
    for begin_low, begin_top, end_low, end_top in (
        (front_low - 2 * inset, front_top - inset / 2, middle + inset / 3, middle + inset / 3),
        (middle - inset / 3, middle - inset / 3, rear_low + 2 * inset, rear_top + inset / 2),
    ):
        windows += both_sides(
            np.array([[end_low, belt], [begin_low, belt], [begin_top, roof], [end_top, roof]]),
            width,
            GLASS,
        )
    dark = shade(paint, 0.35)
    plates: list[Face] = [
        (end_panel(x, width * 0.2, -width * 0.2, 0.26 * height, 0.36 * height), colour, 0.0)
        for x, colour in ((length / 2, dark), (-length / 2, (225.0, 225.0, 215.0)))
    ]
    details = windows + plates
    for x in (length / 2, -length / 2):
        details += light_pair(x, 0.27 * width, 0.47 * width, 0.40 * height, 0.50 * height)
    details += wheels([0.30 * length, -0.30 * length], 0.22 * height, width)
    return (make_mesh(extrude(profile, width, colours, paint), details),)


def truck(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A lorry: a cab and a box that differs in colour."""
    length, width, height = (float(value) for value in size)
    paint, box = pick(PAINTS, rng), pick(CARGO, rng)
    cab, gap, floor, top = length * 0.24, length * 0.03, 0.16 * height, 0.86 * height
    front = length / 2
    profile = np.array(
        [
            [front - cab, floor],
            [front, floor],
            [front, 0.50 * height],
            [front - 0.12 * cab, top],
            [front - cab, top],
        ]
    )
    cabin = extrude(profile, width * 0.94, [paint, paint, GLASS, paint, paint], paint)
    window = np.array(
        [
            [front - 0.62 * cab, 0.52 * height],
            [front - 0.12 * cab, 0.52 * height],
            [front - 0.22 * cab, 0.78 * height],
            [front - 0.62 * cab, 0.78 * height],
        ]
    )
    details = both_sides(window, width * 0.94, GLASS)
    details += light_pair(front, 0.24 * width, 0.42 * width, 0.22 * height, 0.30 * height)
    details += wheels([front - 0.5 * cab], 0.17 * height, width * 0.94)
    end = front - cab - gap
    cargo = cuboid(-front, end, width, 0.24 * height, height, box, shade(box, 1.08))
    trim = both_sides(
        rectangle(-front, end, 0.36 * height, 0.44 * height), width, pick(STRIPES, rng)
    )
    trim += both_sides(rectangle(-front, front - cab, 0.14 * height, 0.24 * height), width, CHASSIS)
    trim.append(
        (end_panel(-front, width / 2, -width / 2, 0.14 * height, 0.24 * height), CHASSIS, 0.0)
    )
    trim.append(
        (end_panel(-front, 0.02, -0.02, 0.26 * height, 0.96 * height), shade(box, 0.6), 0.0)
    )
    trim += light_pair(-front, 0.30 * width, 0.47 * width, 0.16 * height, 0.22 * height)
    trim += wheels([-0.30 * length, -0.14 * length], 0.17 * height, width)
    return make_mesh(cabin, details), make_mesh(cargo, trim)


def bus(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A bus: one long body with a band of windows and a lit sign above the windscreen."""
    length, width, height = (float(value) for value in size)
    paint = pick(LIVERY, rng)
    body = cuboid(-length / 2, length / 2, width, 0.10 * height, height, paint, shade(paint, 1.1))
    details: list[Face] = []
    for begin, end in pairwise(np.linspace(-0.46 * length, 0.44 * length, 7)):
        details += both_sides(
            rectangle(begin + 0.12, end - 0.12, 0.50 * height, 0.82 * height), width, GLASS, 60.0
        )
    details += both_sides(
        rectangle(-length / 2, length / 2, 0.10 * height, 0.18 * height), width, shade(paint, 0.45)
    )
    door = rectangle(0.33 * length, 0.43 * length, 0.14 * height, 0.82 * height)
    details.append((side_panel(door, -width / 2), shade(GLASS, 0.8), 40.0))
    details.append(
        (
            end_panel(length / 2, width * 0.45, -width * 0.45, 0.40 * height, 0.84 * height),
            GLASS,
            0.0,
        )
    )
    details.append(
        (
            end_panel(length / 2, width * 0.3, -width * 0.3, 0.87 * height, 0.96 * height),
            (250, 190, 60),
            220.0,
        )
    )
    details.append(
        (
            end_panel(-length / 2, width * 0.4, -width * 0.4, 0.52 * height, 0.82 * height),
            GLASS,
            0.0,
        )
    )
    for x in (length / 2, -length / 2):
        details += light_pair(x, 0.27 * width, 0.47 * width, 0.18 * height, 0.25 * height)
    details += wheels([0.30 * length, -0.28 * length], 0.15 * height, width)
    return (make_mesh(body, details),)


def pedestrian(size: np.ndarray, rng: np.random.Generator, stride: float = 0.0) -> tuple[Mesh, ...]:
    """A person; ``stride`` in [-1, 1] sets the legs."""
    width, height = float(size[1]), float(size[2])
    half = width / 2
    shirt, legs, skin, hair = (
        pick(CLOTHES, rng),
        pick(TROUSERS, rng),
        pick(SKIN, rng, 4),
        pick(HAIR, rng, 4),
    )
    faces: list[Face] = []
    for sign in (1, -1):
        foot = sign * half * (0.28 + 0.34 * abs(stride))
        hip = sign * half * 0.28
        leg = np.array(
            [
                [foot - half * 0.2, 0],
                [foot + half * 0.2, 0],
                [hip + half * 0.27, 0.50 * height],
                [hip - half * 0.27, 0.50 * height],
            ]
        )
        faces.append((flat(leg), shade(legs, 1.0 if sign > 0 else 0.85), 0.0))
        hand = sign * half * (0.80 + 0.14 * stride * sign)
        shoulder = sign * half * 0.62
        arm = np.array(
            [
                [hand - half * 0.13, 0.44 * height],
                [hand + half * 0.13, 0.44 * height],
                [shoulder + half * 0.2, 0.80 * height],
                [shoulder - half * 0.2, 0.80 * height],
            ]
        )
        faces.append((flat(arm), shade(shirt, 0.8), 0.0))
    faces.append((trapezium(0, 0.47 * height, 0.83 * height, half * 0.52, half * 0.70), shirt, 0.0))
    if rng.random() < 0.4:
        faces.append(
            (
                trapezium(half * 0.1, 0.54 * height, 0.80 * height, half * 0.34),
                pick(CLOTHES, rng),
                0.0,
            )
        )
    crown = 0.915 * height
    faces.append((flat(disc(0.078 * height, z=crown, count=8)), skin, 0.0))
    faces.append(
        (flat(upper_half(disc(0.086 * height, z=crown, count=8), crown + 0.01 * height)), hair, 0.0)
    )
    return (make_mesh([], faces, upright=True),)


def bicycle(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A bicycle with its rider: wheels and frame lie in the plane of travel, the rider turns to the camera."""
    length, width, height = (float(value) for value in size)
    radius = length * 0.2
    frame, shirt, legs, skin = (
        pick(CLOTHES, rng),
        pick(SIGNAL, rng),
        pick(TROUSERS, rng),
        pick(SKIN, rng, 4),
    )
    faces: list[Face] = []
    for x in (length / 2 - radius, radius - length / 2):
        # A ring is one closed line round the outside and back round the inside; painted even-odd,
        # it has a hole.
        outer, inner = disc(radius, x, radius), disc(radius * 0.74, x, radius)[::-1]
        ring = np.concatenate([outer, outer[:1], inner[-1:], inner])
        faces.append((np.column_stack([ring[:, 0], np.zeros(len(ring)), ring[:, 1]]), TYRE, 0.0))
    thick = 0.035
    for (x0, z0), (x1, z1) in (
        ((-0.30, 0.24), (-0.06, 0.24)),
        ((-0.06, 0.24), (-0.14, 0.52)),
        ((-0.14, 0.50), (0.20, 0.54)),
        ((-0.06, 0.24), (0.20, 0.54)),
        ((0.30, 0.24), (0.18, 0.66)),
    ):
        x0, x1 = x0 * length, x1 * length
        faces.append(
            (
                polygon(
                    (x0, 0, z0 * 1.4 - thick),
                    (x1, 0, z1 * 1.4 - thick),
                    (x1 + thick, 0, z1 * 1.4 + thick),
                    (x0 + thick, 0, z0 * 1.4 + thick),
                ),
                frame,
                0.0,
            )
        )
    plane = make_mesh([], faces)
    plane = Mesh(plane.vertices, plane.faces, plane.colours, np.zeros_like(plane.normals), 0)
    half = width / 2
    rider: list[Face] = [
        (trapezium(0, 0, 0.40 * height, 0.045), TYRE, 0.0),
        (trapezium(0, 0.56 * height, 0.60 * height, half * 0.9), (40, 40, 44), 0.0),
    ]
    for sign in (1, -1):
        foot = (0.16 + 0.06 * sign) * height
        rider.append(
            (
                trapezium(sign * half * 0.36, foot, 0.56 * height, half * 0.18, half * 0.26),
                legs,
                0.0,
            )
        )
        rider.append(
            (
                trapezium(sign * half * 0.74, 0.58 * height, 0.80 * height, half * 0.16),
                shade(shirt, 0.8),
                0.0,
            )
        )
    rider.append((trapezium(0, 0.50 * height, 0.83 * height, half * 0.50, half * 0.72), shirt, 0.0))
    crown = 0.915 * height
    rider.append((flat(disc(0.075 * height, z=crown, count=8)), skin, 0.0))
    rider.append(
        (flat(upper_half(disc(0.09 * height, z=crown, count=8), crown)), pick(CLOTHES, rng), 0.0)
    )
    rider.append((trapezium(0, 0.42 * height, 0.46 * height, 0.07), TAILLIGHT, 200.0))
    return plane, make_mesh([], rider, upright=True)


def cone(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A traffic cone with one or two white bands."""
    half, height = float(size[1]) / 2, float(size[2])
    orange = pick((ORANGE,), rng, 8)
    faces: list[Face] = [
        (trapezium(0, 0, 0.09 * height, half), shade(orange, 0.65), 0.0),
        (trapezium(0, 0.09 * height, height, half * 0.72, half * 0.14), orange, 0.0),
    ]
    for low, high in ((0.36, 0.54), (0.68, 0.80))[: int(rng.integers(1, 3))]:
        wide, narrow = (half * (0.72 - 0.58 * (share - 0.09) / 0.91) for share in (low, high))
        faces.append(
            (trapezium(0, low * height, high * height, wide, narrow), (245, 245, 240), 40.0)
        )
    return (make_mesh([], faces, upright=True),)


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
    return {CAR: car, TRUCK: truck, BUS: bus, BICYCLE: bicycle}.get(label, cone)(size, rng)
