"""The painter: sky, ground, buildings, then everything else from far to near; night, noise and exposure at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import cv2
import numpy as np

from .backdrop import PIXELS_PER_METRE, TILE, Backdrop, make_backdrop
from .cameras import HEIGHT, NEAR, WIDTH, Camera
from .geometry import box_corners, inverse, pose_matrix, transform
from .props import Prop
from .shapes import Colour, Mesh, actor_meshes, shade
from .sky import HIGHEST, LOWEST, PANORAMA
from .traffic import PEDESTRIAN
from .world import Scene

SCALE = 2  # pictures are painted this much larger and averaged down
_SHIFT = 3  # fractional bits of corner coordinates
DETAIL = 95.0  # metres beyond which windows and the like are left out
HAZE = 170.0  # metres after which 63 % of a colour is haze
NIGHT = np.array([0.24, 0.26, 0.36], dtype=np.float32)  # daylight that is left at night, R G B


@dataclass(frozen=True)
class View:
    """One camera at one moment.

    Attributes:
        camera: whose picture.
        pose: (4, 4) global frame to camera frame.
        place: (3,) the camera in the global frame.
        ego: (3,) x, y, yaw of the ego vehicle.
    """

    camera: Camera
    pose: np.ndarray
    place: np.ndarray
    ego: np.ndarray


@dataclass(frozen=True)
class Stage:
    """A scene ready to be painted."""

    scene: Scene
    backdrop: Backdrop
    meshes: dict[tuple[int, int], tuple[Mesh, ...]]


def make_stage(scene: Scene) -> Stage:
    """Builds the backdrop; the actors' meshes follow when they are first seen."""
    return Stage(scene, make_backdrop(scene), {})


def render(stage: Stage, frame: int, camera: Camera, camera_index: int) -> np.ndarray:
    """Paints one picture.

    Args:
        stage: of the scene.
        frame: which moment.
        camera: which camera.
        camera_index: its number in the rig; every picture has noise of its own.

    Returns:
        (HEIGHT, WIDTH, 3) uint8, blue green red.
    """
    scene, backdrop = stage.scene, stage.backdrop
    ego = scene.ego[frame]
    world = pose_matrix(*ego) @ camera.cam2ego
    view = View(camera, inverse(world), world[:3, 3], ego)
    canvas = np.zeros((HEIGHT * SCALE, WIDTH * SCALE, 4), dtype=np.uint8)
    _paint_sky(canvas, view, backdrop)
    _paint_ground(canvas, view, scene, backdrop)
    _paint_things(canvas, view, stage, frame)
    small = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    picture = _night(small, view, backdrop) if scene.night else small[..., :3].astype(np.float32)
    return _sensor(picture, scene, scene.generator(2, frame, camera_index))


def _sensor(picture: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Exposure that flickers a little, and noise that is stronger in the dark."""
    picture *= np.float32(1 + 0.005 * rng.standard_normal())
    picture += (0.9 if scene.night else 0.8) * rng.standard_normal(
        (*picture.shape[:2], 1), dtype=np.float32
    )
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)[..., ::-1]


@cache
def _rays(
    name: str, focal: float, direction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Azimuth in the ego frame and elevation of a camera's pixels: of the large sky, and of a small whole picture."""
    result = []
    for scale, rows in ((SCALE, int(HEIGHT * SCALE * 0.56)), (0.25, int(HEIGHT * 0.25))):
        u, v = np.meshgrid(
            (np.arange(int(WIDTH * scale)) + 0.5) / scale - WIDTH / 2,
            (np.arange(rows) + 0.5) / scale - HEIGHT * 0.53,
        )
        result += [
            (direction - np.arctan2(u, focal)).astype(np.float32),
            np.arctan2(-v, np.hypot(u, focal)).astype(np.float32),
        ]
    return result[0], result[1], result[2], result[3]


def _camera_rays(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return _rays(
        camera.name,
        float(camera.intrinsic[0, 0]),
        float(np.arctan2(camera.cam2ego[1, 2], camera.cam2ego[0, 2])),
    )


def _paint_sky(canvas: np.ndarray, view: View, backdrop: Backdrop) -> None:
    azimuth, elevation, _, _ = _camera_rays(view.camera)
    columns = (
        (azimuth + np.float32(view.ego[2]))
        % np.float32(2 * np.pi)
        * np.float32(PANORAMA[1] / (2 * np.pi))
    )
    rows = (HIGHEST - elevation) * np.float32((PANORAMA[0] - 1) / (HIGHEST - LOWEST))
    sky = cv2.remap(
        backdrop.panorama, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    canvas[: len(sky)] = sky


def _pixels(view: View, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) in the camera frame to fixed-point pixels (..., 2) int32 of the large canvas."""
    intrinsic = view.camera.intrinsic
    flat = points[..., :2] / points[..., 2:] * intrinsic[[0, 1], [0, 1]] + intrinsic[:2, 2]
    return np.clip(flat * (SCALE << _SHIFT), -1e6, 1e6).astype(np.int32)


def clip_near(points: np.ndarray) -> np.ndarray:
    """The part of a polygon (k, 3) in the camera frame beyond the near plane, by Sutherland and Hodgman's rule."""
    depth = points[:, 2] - NEAR
    following = np.roll(points, -1, axis=0)
    result = []
    for point, then, here, there in zip(points, following, depth, np.roll(depth, -1), strict=True):
        if here >= 0:
            result.append(point)
        if (here >= 0) != (there >= 0):
            result.append(point + here / (here - there) * (then - point))
    return np.array(result).reshape(-1, 3)


def _fill(
    canvas: np.ndarray,
    view: View,
    polygons: Sequence[np.ndarray] | np.ndarray,
    colour: Colour,
    shine: float = 0.0,
) -> None:
    """Fills polygons, each (k, 3) in the camera frame, that do not overlap; an array of them is quicker than a list."""
    flat = []
    if isinstance(polygons, np.ndarray):
        front = polygons[..., 2].min(axis=1) >= NEAR
        flat += list(_pixels(view, polygons[front]))
        polygons = polygons[~front]
    for points in polygons:
        if points[:, 2].min() < NEAR:
            points = clip_near(points) if points[:, 2].max() > NEAR else points[:0]
        if len(points) > 2:
            flat.append(_pixels(view, points))
    if flat:
        cv2.fillPoly(canvas, flat, (*colour, shine), shift=_SHIFT)


def _paint_ground(canvas: np.ndarray, view: View, scene: Scene, backdrop: Backdrop) -> None:
    horizon = int(HEIGHT * 0.53 * SCALE)
    canvas[horizon:] = (*backdrop.ground, 0)
    road = scene.road
    at = int(np.argmin(((road.points - view.ego[:2]) ** 2).sum(axis=1))) + road.start
    s = np.arange(max(at - 75, road.start), min(at + 105, road.end) + 1, 3.0)

    def strips(*edges: tuple[float, float]) -> list[np.ndarray]:
        lines = _on_ground(view, road.place(s, np.array(edges).reshape(-1, 1))[..., :2])
        return [
            np.concatenate([left, right[::-1]])
            for left, right in zip(lines[::2], lines[1::2], strict=True)
        ]

    for corners, colour in backdrop.fields:
        _fill(canvas, view, [_on_ground(view, corners)], colour)
    kerb, edge = road.kerb, road.carriageway
    if road.pavement:
        wide = kerb + road.pavement
        _fill(canvas, view, strips((wide, kerb), (-kerb, -wide)), backdrop.pavement)
        _fill(canvas, view, strips((kerb + 0.25, kerb), (-kerb, -kerb - 0.25)), (206, 204, 198))
    _fill(
        canvas, view, [_on_ground(view, corners) for corners in backdrop.streets], backdrop.asphalt
    )
    _fill(canvas, view, strips((kerb, -kerb)), shade(backdrop.asphalt, 0.9))
    _fill(canvas, view, strips((edge, -edge)), backdrop.asphalt)
    near = np.abs(backdrop.marks[:, 0] - view.ego[:2]).max(axis=1) < 100
    marks = _on_ground(view, backdrop.marks[near])
    _fill(canvas, view, marks[marks[..., 2].max(axis=1) > NEAR], backdrop.line)
    _texture_ground(canvas, view, backdrop, horizon)


def _on_ground(view: View, places: np.ndarray) -> np.ndarray:
    """Places (..., 2) on the ground in the global frame to points (..., 3) in the camera frame."""
    return places @ view.pose[:3, :2].T + view.pose[:3, 3]


def _texture_ground(canvas: np.ndarray, view: View, backdrop: Backdrop, horizon: int) -> None:
    """Lays the texture on the ground, where it moves with the world, and haze over what is far."""
    intrinsic = view.camera.intrinsic.copy()
    intrinsic[1, 2] -= horizon / SCALE
    plane = intrinsic @ np.column_stack([view.pose[:3, 0], view.pose[:3, 1], view.pose[:3, 3]])
    # Whole tiles are taken off to keep the numbers small.
    period = TILE / PIXELS_PER_METRE
    origin = np.floor(view.place[:2] / period) * period
    to_metres = np.array(
        [[1 / PIXELS_PER_METRE, 0, origin[0]], [0, 1 / PIXELS_PER_METRE, origin[1]], [0, 0, 1]]
    )
    ground = canvas[horizon:]
    rows, columns = ground.shape[:2]
    texture = cv2.warpPerspective(
        backdrop.texture,
        plane @ to_metres,
        (columns // SCALE, rows // SCALE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    depth = intrinsic[1, 1] * view.place[2] * SCALE / (np.arange(rows) + 0.5)
    strength = np.minimum(1.0, 16 / depth).astype(np.float32)[:, None] / 128
    share = (1 - np.exp(-depth / HAZE)).astype(np.float32)[:, None]
    large = cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    factor = (1 + (large - 128) * strength) * (1 - share)
    colours = (
        ground[..., :3] * factor[..., None]
        + (share * np.array(backdrop.haze, dtype=np.float32))[:, None]
    )
    ground[..., :3] = np.minimum(colours, 255).astype(np.uint8)


def _paint_things(canvas: np.ndarray, view: View, stage: Stage, frame: int) -> None:
    """Buildings first, then trees, lamps and traffic, from far to near."""
    scene, backdrop = stage.scene, stage.backdrop
    objects = scene.objects(frame)
    poses = np.array([prop.pose for prop in backdrop.props]).reshape(-1, 3)
    distance = np.hypot(*(poses[:, :2] - view.place[:2]).T)
    things: list[tuple[bool, float, Prop | int]] = []
    for prop, far in zip(backdrop.props, distance, strict=True):
        if far < (120 if prop.tall else 80):
            things.append((not prop.tall, -far, prop))
    things += [
        (True, -far, i)
        for i, far in enumerate(np.hypot(*(objects.boxes[:, :2] - view.place[:2]).T))
    ]
    for _, _, thing in sorted(things, key=lambda item: item[:2]):
        if isinstance(thing, Prop):
            _paint_mesh(canvas, view, thing.mesh, thing.pose, backdrop)
            continue
        actor, box = int(objects.actors[thing]), objects.boxes[thing]
        pose = box[[0, 1, 6]]
        if not _in_view(view, pose, 7.0):
            continue
        shadow = transform(view.pose, box_corners(box[None])[0, :4] * (1, 1, 0))
        _fill(canvas, view, [shadow], shade(backdrop.asphalt, 0.5))
        for mesh in _from_far_to_near(_meshes(stage, actor, frame), pose, view):
            _paint_mesh(canvas, view, mesh, pose, backdrop)


def _from_far_to_near(meshes: tuple[Mesh, ...], pose: np.ndarray, view: View) -> Sequence[Mesh]:
    """The meshes of one actor in the order of painting; what turns to the camera, such as a rider, stays last."""
    if len(meshes) == 1 or meshes[-1].upright:
        return meshes
    matrix = pose_matrix(*pose)
    return sorted(
        meshes, key=lambda mesh: -float(np.linalg.norm(transform(matrix, mesh.middle) - view.place))
    )


def _meshes(stage: Stage, actor: int, frame: int) -> tuple[Mesh, ...]:
    actors = stage.scene.actors
    label = int(actors.label[actor])
    step = 0
    if label == PEDESTRIAN and np.any(stage.scene.velocities[frame, actor]):
        walked = np.hypot(*(stage.scene.poses[frame, actor, :2] - stage.scene.poses[0, actor, :2]))
        step = int(walked / 0.35 + actors.phase[actor]) % 4
    key = actor, step
    if key not in stage.meshes:
        stage.meshes[key] = actor_meshes(
            label, actors.size[actor], int(actors.look[actor]), (0.0, 1.0, 0.0, -1.0)[step]
        )
    return stage.meshes[key]


def _in_view(view: View, pose: np.ndarray, radius: float) -> bool:
    """Whether a circle on the ground can be in the picture."""
    x, _, z = view.pose[:3, :2] @ pose[:2] + view.pose[:3, 3]
    slope = WIDTH / 2 / view.camera.intrinsic[0, 0]
    return bool(z > -radius and abs(x) < slope * z + radius * np.hypot(1, slope))


def _paint_mesh(
    canvas: np.ndarray, view: View, mesh: Mesh, pose: np.ndarray, backdrop: Backdrop
) -> None:
    if not _in_view(view, pose, float(np.abs(mesh.vertices[:, :2]).max()) * 1.5):
        return
    place = view.place[:2] - pose[:2]
    yaw = np.arctan2(place[1], place[0]) if mesh.upright else pose[2]
    matrix = view.pose @ pose_matrix(pose[0], pose[1], yaw)
    vertices = transform(matrix, mesh.vertices)
    if vertices[:, 2].max() < NEAR:
        return
    normals = mesh.normals @ matrix[:3, :3].T
    two_sided = ~mesh.normals.any(axis=1)
    shown = two_sided | (np.einsum('fc,fc->f', normals, vertices[mesh.faces[:, 0]]) < 0)
    far = float(np.linalg.norm(place))
    if far > DETAIL:
        shown[mesh.solid :] &= mesh.solid == 0
    chosen = np.flatnonzero(shown)
    solid = chosen[chosen < mesh.solid]
    solid = solid[np.argsort(-vertices[mesh.faces[solid], 2].mean(axis=1), kind='stable')]
    order = np.concatenate([solid, chosen[len(solid) :]])
    if not len(order):
        return
    light = np.where(
        two_sided,
        0.94,
        0.72 + (mesh.normals @ (pose_matrix(0, 0, -yaw)[:3, :3] @ backdrop.sun)).clip(0),
    )
    share = 1 - np.exp(-far / HAZE)
    colours = mesh.colours[order]
    lit = np.minimum(colours[:, :3] * light[order, None], 255)
    colours[:, :3] = lit * (1 - share) + np.array(backdrop.haze) * share
    # Neighbours in the order with one colour, such as a wall's windows, go in one call.
    change = (np.diff(colours, axis=0) != 0).any(axis=1) | (order[1:] < mesh.solid)
    bounds = [0, *(np.flatnonzero(change) + 1), len(order)]
    near = vertices[:, 2].min() < NEAR
    polygons = vertices[mesh.faces[order]] if near else _pixels(view, vertices)[mesh.faces[order]]
    for begin, end in pairwise(bounds):
        if near:
            red, green, blue, shine = colours[begin].tolist()
            _fill(canvas, view, polygons[begin:end], (red, green, blue), shine)
        else:
            cv2.fillPoly(canvas, list(polygons[begin:end]), colours[begin].tolist(), shift=_SHIFT)


def _night(small: np.ndarray, view: View, backdrop: Backdrop) -> np.ndarray:
    """Darkens a picture except for headlights, street lamps and what shines by itself."""
    _, _, azimuth, elevation = _camera_rays(view.camera)
    # The ego vehicle's beam: wide, low, straight ahead.
    beam = 0.85 * np.exp(
        -((((azimuth + np.pi) % (2 * np.pi) - np.pi) / 0.42) ** 2)
        - ((elevation + 0.07) / 0.085) ** 2
    )
    near = backdrop.lamps[np.hypot(*(backdrop.lamps - view.place[:2]).T) < 60]
    glow = beam.astype(np.float32)
    spots = transform(view.pose, np.column_stack([near, np.zeros(len(near))]))
    for x, y, z in spots[spots[:, 2] > 3]:
        intrinsic = view.camera.intrinsic / 4
        centre = (
            int(x / z * intrinsic[0, 0] + intrinsic[0, 2]),
            int(y / z * intrinsic[1, 1] + intrinsic[1, 2]),
        )
        pool = np.zeros_like(glow)
        radius = 5.0 / z * intrinsic[0, 0]
        axes = (max(1, int(radius)), max(1, int(radius * (1.5 / z + 0.25))))
        cv2.ellipse(pool, centre, axes, 0, 0, 360, [0.28], -1)
        glow += pool
    blurred = cv2.GaussianBlur(glow, (0, 0), 2.5)
    spread: np.ndarray = cv2.resize(blurred, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    colour = small[..., :3].astype(np.float32)
    shine = small[..., 3:].astype(np.float32) / 255
    light = NIGHT + spread[..., None] * np.array([1.0, 0.94, 0.8], dtype=np.float32)
    halo = cv2.GaussianBlur(colour * shine, (0, 0), 3.0) * 0.6
    return colour * np.maximum(light, shine) + halo
