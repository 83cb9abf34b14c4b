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

PAINTS: Palette = ((222, 224, 226), (176, 180, 186), (92, 96, 104), (42, 44, 50), (176, 34, 36), (36, 78, 156),
                   (24, 112, 120), (214, 176, 56), (58, 116, 66), (120, 66, 40), (196, 110, 44), (112, 150, 190))
# Colours hint at the class: boxes of lorries are pale or blue, buses red or yellow, riders wear signal colours.
CARGO: Palette = ((232, 232, 228), (206, 210, 214), (222, 214, 196), (170, 186, 200), (60, 104, 170))
STRIPES: Palette = ((190, 60, 50), (60, 104, 170), (84, 140, 90), (90, 92, 98))
LIVERY: Palette = ((206, 42, 40), (242, 190, 40), (238, 150, 40), (170, 40, 70))
SIGNAL: Palette = ((236, 240, 70), (255, 140, 30), (120, 230, 90), (250, 90, 130))
CLOTHES: Palette = ((200, 50, 48), (48, 92, 168), (240, 196, 60), (58, 130, 78), (236, 236, 232), (120, 70, 130),
                    (232, 120, 50), (70, 72, 80), (90, 180, 190), (226, 130, 160))
TROUSERS: Palette = ((40, 48, 74), (62, 58, 54), (34, 34, 38), (96, 84, 66), (70, 92, 128))
SKIN: Palette = ((240, 200, 170), (206, 158, 120), (150, 104, 74), (96, 66, 48))
HAIR: Palette = ((44, 32, 26), (96, 62, 34), (196, 160, 90), (120, 120, 120), (20, 20, 22))


@dataclass(frozen=True)
class Mesh:
    """Coloured polygons in a frame with x forward, y left, z up and its origin on the ground below the middle.

    Attributes:
        vertices: (V, 3) float64, metres.
        faces: (F, k) int64 indices of vertices, counter-clockwise seen from outside; short faces repeat their last one.
        colours: (F, 4) float64 R, G, B, 0..255, and how much of it shines by itself at night, 0..255.
        normals: (F, 3) float64 unit vectors; zero for faces that are seen from both sides.
        solid: how many faces, from the first, are sorted by distance; the rest are painted after them in their order.
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
    faces = (np.cumsum(counts) - counts)[:, None] + np.minimum(np.arange(longest), counts[:, None] - 1)
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
    for (x0, z0), (x1, z1), colour in zip(profile, np.roll(profile, -1, axis=0), colours, strict=True):
        faces.append((polygon((x0, half, z0), (x0, -half, z0), (x1, -half, z1), (x1, half, z1))[::-1], colour, 0.))
    return faces + [(side_panel(profile, y), side, 0.) for y in (half, -half)]


def cuboid(x0: float, x1: float, width: float, z0: float, z1: float, colour: Colour,
           roof: Colour | None = None) -> list[Face]:
    """An upright box from x0 to x1 and z0 to z1, centred on y = 0, without a floor."""
    return extrude(rectangle(x0, x1, z0, z1), width, [colour, colour, roof or colour, colour], colour)[1:]


def disc(radius: float, x: float = 0., z: float = 0., count: int = 10) -> np.ndarray:
    """(count, 2) points on a circle round (x, z), counter-clockwise."""
    angle = np.arange(count) * 2 * np.pi / count
    return np.column_stack([x + radius * np.cos(angle), z + radius * np.sin(angle)])


def upper_half(outline: np.ndarray, bottom: float) -> np.ndarray:
    """An outline (k, 2) in x and z with everything below ``bottom`` flattened."""
    return np.column_stack([outline[:, 0], np.maximum(outline[:, 1], bottom)])


def flat(outline: np.ndarray) -> np.ndarray:
    """An outline (k, 2) in y and z of a mesh that faces the camera."""
    return np.column_stack([np.zeros(len(outline)), outline])


def trapezium(y: float, z0: float, z1: float, bottom: float, top: float | None = None) -> np.ndarray:
    """Part of a mesh that faces the camera: from z0 to z1 around ``y``, with half widths ``bottom`` and ``top``."""
    top = bottom if top is None else top
    return flat(np.array([[y - bottom, z0], [y + bottom, z0], [y + top, z1], [y - top, z1]]))


def wheels(places: list[float], radius: float, width: float) -> list[Face]:
    """Wheels in the side walls."""
    faces: list[Face] = []
    for x in places:
        for y in (width / 2, -width / 2):
            for size, colour in ((radius, TYRE), (radius * .55, STEEL)):
                faces.append((side_panel(disc(size, x, radius), y), colour, 0.))
    return faces


def rectangle(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """(4, 2) outline in x and z, counter-clockwise with x to the right."""
    return np.array([[x0, z0], [x1, z0], [x1, z1], [x0, z1]])


def both_sides(outline: np.ndarray, width: float, colour: Colour, shine: float = 0.) -> list[Face]:
    """An outline (k, 2) in both side walls."""
    return [(side_panel(outline, y), colour, shine) for y in (width / 2, -width / 2)]


def light_pair(x: float, inner: float, outer: float, low: float, high: float) -> list[Face]:
    """Headlights (x > 0) or tail lights, ``inner`` to ``outer`` metres from the middle, ``low`` to ``high`` up."""
    colour, shine = (HEADLIGHT, 255.) if x > 0 else (TAILLIGHT, 200.)
    return [(end_panel(x, left, right, low, high), colour, shine) for left, right in ((outer, inner), (-inner, -outer))]


def shade(colour: Colour, factor: float) -> Colour:
    """A darker or lighter tone."""
    r, g, b = (min(255., channel * factor) for channel in colour)
    return r, g, b


def pick(options: Palette, rng: np.random.Generator, jitter: float = 10.) -> Colour:
    """One of the colours, slightly changed."""
    r, g, b = np.clip(np.array(options[rng.integers(len(options))]) + rng.normal(0, jitter, 3), 0, 255)
    return float(r), float(g), float(b)


# Side views of cars, as shares of length and height: bumper, bonnet, windscreen, roof, rear window, boot.
_CARS = {
    'saloon': ((-.5, .20), (.5, .20), (.5, .52), (.22, .60), (.06, 1.), (-.22, 1.), (-.36, .64), (-.5, .60)),
    'hatchback': ((-.5, .20), (.5, .20), (.5, .54), (.26, .62), (.08, 1.), (-.36, .98), (-.48, .62), (-.5, .50)),
    'suv': ((-.5, .22), (.5, .22), (.5, .58), (.24, .64), (.12, 1.), (-.42, 1.), (-.49, .64), (-.5, .55)),
    'van': ((-.5, .18), (.5, .18), (.5, .52), (.40, .58), (.22, 1.), (-.48, 1.), (-.5, .60), (-.5, .50)),
}


def car(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A car: saloon, hatchback, sport utility vehicle or van."""
    length, width, height = (float(value) for value in size)
    profile = np.array(_CARS[str(rng.choice(list(_CARS)))]) * (length, height)
    paint = pick(PAINTS, rng)
    colours = [shade(paint, .5), paint, shade(paint, 1.06), GLASS, shade(paint, 1.1), GLASS, paint, paint]
    belt, roof = .62 * height, .95 * height
    (front_low, front_top), (rear_top, rear_low) = profile[[3, 4], 0], profile[[5, 6], 0]
    windows: list[Face] = []
    middle = (front_top + rear_top) / 2
    inset = .035 * length
    for begin_low, begin_top, end_low, end_top in (
            (front_low - 2 * inset, front_top - inset / 2, middle + inset / 3, middle + inset / 3),
            (middle - inset / 3, middle - inset / 3, rear_low + 2 * inset, rear_top + inset / 2)):
        windows += both_sides(np.array([[end_low, belt], [begin_low, belt], [begin_top, roof], [end_top, roof]]), width,
                              GLASS)
    dark = shade(paint, .35)
    plates: list[Face] = [(end_panel(x, width * .2, -width * .2, .26 * height, .36 * height), colour, 0.)
                          for x, colour in ((length / 2, dark), (-length / 2, (225., 225., 215.)))]
    details = windows + plates
    for x in (length / 2, -length / 2):
        details += light_pair(x, .27 * width, .47 * width, .40 * height, .50 * height)
    details += wheels([.30 * length, -.30 * length], .22 * height, width)
    return (make_mesh(extrude(profile, width, colours, paint), details),)


def truck(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A lorry: a cab and a box that differs in colour."""
    length, width, height = (float(value) for value in size)
    paint, box = pick(PAINTS, rng), pick(CARGO, rng)
    cab, gap, floor, top = length * .24, length * .03, .16 * height, .86 * height
    front = length / 2
    profile = np.array([[front - cab, floor], [front, floor], [front, .50 * height], [front - .12 * cab, top],
                        [front - cab, top]])
    cabin = extrude(profile, width * .94, [paint, paint, GLASS, paint, paint], paint)
    window = np.array([[front - .62 * cab, .52 * height], [front - .12 * cab, .52 * height],
                       [front - .22 * cab, .78 * height], [front - .62 * cab, .78 * height]])
    details = both_sides(window, width * .94, GLASS)
    details += light_pair(front, .24 * width, .42 * width, .22 * height, .30 * height)
    details += wheels([front - .5 * cab], .17 * height, width * .94)
    end = front - cab - gap
    cargo = cuboid(-front, end, width, .24 * height, height, box, shade(box, 1.08))
    trim = both_sides(rectangle(-front, end, .36 * height, .44 * height), width, pick(STRIPES, rng))
    trim += both_sides(rectangle(-front, front - cab, .14 * height, .24 * height), width, CHASSIS)
    trim.append((end_panel(-front, width / 2, -width / 2, .14 * height, .24 * height), CHASSIS, 0.))
    trim.append((end_panel(-front, .02, -.02, .26 * height, .96 * height), shade(box, .6), 0.))
    trim += light_pair(-front, .30 * width, .47 * width, .16 * height, .22 * height)
    trim += wheels([-.30 * length, -.14 * length], .17 * height, width)
    return make_mesh(cabin, details), make_mesh(cargo, trim)


def bus(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A bus: one long body with a band of windows and a lit sign above the windscreen."""
    length, width, height = (float(value) for value in size)
    paint = pick(LIVERY, rng)
    body = cuboid(-length / 2, length / 2, width, .10 * height, height, paint, shade(paint, 1.1))
    details: list[Face] = []
    for begin, end in pairwise(np.linspace(-.46 * length, .44 * length, 7)):
        details += both_sides(rectangle(begin + .12, end - .12, .50 * height, .82 * height), width, GLASS, 60.)
    details += both_sides(rectangle(-length / 2, length / 2, .10 * height, .18 * height), width, shade(paint, .45))
    door = rectangle(.33 * length, .43 * length, .14 * height, .82 * height)
    details.append((side_panel(door, -width / 2), shade(GLASS, .8), 40.))
    details.append((end_panel(length / 2, width * .45, -width * .45, .40 * height, .84 * height), GLASS, 0.))
    details.append((end_panel(length / 2, width * .3, -width * .3, .87 * height, .96 * height), (250, 190, 60), 220.))
    details.append((end_panel(-length / 2, width * .4, -width * .4, .52 * height, .82 * height), GLASS, 0.))
    for x in (length / 2, -length / 2):
        details += light_pair(x, .27 * width, .47 * width, .18 * height, .25 * height)
    details += wheels([.30 * length, -.28 * length], .15 * height, width)
    return (make_mesh(body, details),)


def pedestrian(size: np.ndarray, rng: np.random.Generator, stride: float = 0.) -> tuple[Mesh, ...]:
    """A person; ``stride`` in [-1, 1] sets the legs."""
    width, height = float(size[1]), float(size[2])
    half = width / 2
    shirt, legs, skin, hair = pick(CLOTHES, rng), pick(TROUSERS, rng), pick(SKIN, rng, 4), pick(HAIR, rng, 4)
    faces: list[Face] = []
    for sign in (1, -1):
        foot = sign * half * (.28 + .34 * abs(stride))
        hip = sign * half * .28
        leg = np.array([[foot - half * .2, 0], [foot + half * .2, 0], [hip + half * .27, .50 * height],
                        [hip - half * .27, .50 * height]])
        faces.append((flat(leg), shade(legs, 1. if sign > 0 else .85), 0.))
        hand = sign * half * (.80 + .14 * stride * sign)
        shoulder = sign * half * .62
        arm = np.array([[hand - half * .13, .44 * height], [hand + half * .13, .44 * height],
                        [shoulder + half * .2, .80 * height], [shoulder - half * .2, .80 * height]])
        faces.append((flat(arm), shade(shirt, .8), 0.))
    faces.append((trapezium(0, .47 * height, .83 * height, half * .52, half * .70), shirt, 0.))
    if rng.random() < .4:
        faces.append((trapezium(half * .1, .54 * height, .80 * height, half * .34), pick(CLOTHES, rng), 0.))
    crown = .915 * height
    faces.append((flat(disc(.078 * height, z=crown, count=8)), skin, 0.))
    faces.append((flat(upper_half(disc(.086 * height, z=crown, count=8), crown + .01 * height)), hair, 0.))
    return (make_mesh([], faces, upright=True),)


def bicycle(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A bicycle with its rider: wheels and frame lie in the plane of travel, the rider turns to the camera."""
    length, width, height = (float(value) for value in size)
    radius = length * .2
    frame, shirt, legs, skin = pick(CLOTHES, rng), pick(SIGNAL, rng), pick(TROUSERS, rng), pick(SKIN, rng, 4)
    faces: list[Face] = []
    for x in (length / 2 - radius, radius - length / 2):
        # A ring is one closed line round the outside and back round the inside; painted even-odd, it has a hole.
        outer, inner = disc(radius, x, radius), disc(radius * .74, x, radius)[::-1]
        ring = np.concatenate([outer, outer[:1], inner[-1:], inner])
        faces.append((np.column_stack([ring[:, 0], np.zeros(len(ring)), ring[:, 1]]), TYRE, 0.))
    thick = .035
    for (x0, z0), (x1, z1) in (((-.30, .24), (-.06, .24)), ((-.06, .24), (-.14, .52)), ((-.14, .50), (.20, .54)),
                               ((-.06, .24), (.20, .54)), ((.30, .24), (.18, .66))):
        x0, x1 = x0 * length, x1 * length
        faces.append((polygon((x0, 0, z0 * 1.4 - thick), (x1, 0, z1 * 1.4 - thick), (x1 + thick, 0, z1 * 1.4 + thick),
                              (x0 + thick, 0, z0 * 1.4 + thick)), frame, 0.))
    plane = make_mesh([], faces)
    plane = Mesh(plane.vertices, plane.faces, plane.colours, np.zeros_like(plane.normals), 0)
    half = width / 2
    rider: list[Face] = [(trapezium(0, 0, .40 * height, .045), TYRE, 0.),
                         (trapezium(0, .56 * height, .60 * height, half * .9), (40, 40, 44), 0.)]
    for sign in (1, -1):
        foot = (.16 + .06 * sign) * height
        rider.append((trapezium(sign * half * .36, foot, .56 * height, half * .18, half * .26), legs, 0.))
        rider.append((trapezium(sign * half * .74, .58 * height, .80 * height, half * .16), shade(shirt, .8), 0.))
    rider.append((trapezium(0, .50 * height, .83 * height, half * .50, half * .72), shirt, 0.))
    crown = .915 * height
    rider.append((flat(disc(.075 * height, z=crown, count=8)), skin, 0.))
    rider.append((flat(upper_half(disc(.09 * height, z=crown, count=8), crown)), pick(CLOTHES, rng), 0.))
    rider.append((trapezium(0, .42 * height, .46 * height, .07), TAILLIGHT, 200.))
    return plane, make_mesh([], rider, upright=True)


def cone(size: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """A traffic cone with one or two white bands."""
    half, height = float(size[1]) / 2, float(size[2])
    orange = pick((ORANGE,), rng, 8)
    faces: list[Face] = [(trapezium(0, 0, .09 * height, half), shade(orange, .65), 0.),
                         (trapezium(0, .09 * height, height, half * .72, half * .14), orange, 0.)]
    for low, high in ((.36, .54), (.68, .80))[:int(rng.integers(1, 3))]:
        wide, narrow = (half * (.72 - .58 * (share - .09) / .91) for share in (low, high))
        faces.append((trapezium(0, low * height, high * height, wide, narrow), (245, 245, 240), 40.))
    return (make_mesh([], faces, upright=True),)


def actor_meshes(label: int, size: np.ndarray, look: int, stride: float = 0.) -> tuple[Mesh, ...]:
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
