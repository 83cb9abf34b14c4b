"""The painter: sky, ground, buildings, then everything else from far to near.

Night, exposure and noise come at the end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import cv2
import numpy as np

from .backdrop import PIXELS_PER_METRE, TILE, Backdrop, make_backdrop
from .cameras import HEIGHT, NEAR, WIDTH, Camera, to_pixels
from .geometry import box_corners, inverse, pose_matrix, transform, wrap_angle
from .props import Prop
from .roads import Road
from .shapes import Colour, Mesh, actor_meshes, shade
from .sky import HIGHEST, LOWEST, PANORAMA
from .traffic import PEDESTRIAN
from .world import Scene

SCALE = 2  # pictures are painted this much larger and averaged down
_GLOW_SCALE = 0.25  # lamps' light is painted on a picture this much smaller and enlarged
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
    meshes: dict[tuple[int, int], tuple[Mesh, ...]]  # by actor and step


def make_stage(scene: Scene) -> Stage:
    """Builds the backdrop; the actors' meshes follow when they are first seen."""
    return Stage(scene, make_backdrop(scene), meshes={})


def paint(stage: Stage, frame: int, camera: Camera, camera_index: int) -> np.ndarray:
    """Paints one picture.

    Args:
        stage: of the scene.
        frame: which moment.
        camera: which camera.
        camera_index: its number in the rig; every picture has noise of its own.

    Returns:
        (HEIGHT, WIDTH, 3) uint8, blue green red.
    """
    scene = stage.scene
    backdrop = stage.backdrop
    ego = scene.ego[frame]
    cam2global = pose_matrix(*ego) @ camera.cam2ego
    view = View(
        camera,
        pose=inverse(cam2global),
        place=cam2global[:3, 3],
        ego=ego,
    )
    canvas = np.zeros((HEIGHT * SCALE, WIDTH * SCALE, 4), dtype=np.uint8)
    _paint_sky(canvas, view, backdrop)
    _paint_ground(canvas, view, scene, backdrop)
    _paint_things(canvas, view, stage, frame)
    small = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    by_day = small[..., :3].astype(np.float32)
    picture = _night(small, view, backdrop) if scene.night else by_day

    return _sensor(picture, scene.night, scene.generator(2, frame, camera_index))


def _sensor(picture: np.ndarray, night: bool, rng: np.random.Generator) -> np.ndarray:
    """Exposure that flickers a little, and noise that is stronger in the dark."""
    exposure = np.float32(1 + 0.005 * rng.standard_normal())
    rows, columns = picture.shape[:2]
    noise = rng.standard_normal((rows, columns, 1), dtype=np.float32)
    picture *= exposure
    picture += (0.9 if night else 0.8) * noise
    red_green_blue = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return red_green_blue[..., ::-1]


@cache
def _rays(focal: float, direction: float, scale: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a camera's upper rows look, in the ego frame.

    Args:
        focal: pixels of the whole picture.
        direction: of the camera, radians.
        scale: how many pixels a side of one of the picture's is wide.
        rows: how many, from the top.

    Returns:
        Azimuth and elevation in radians, both (rows, columns) float32.
    """
    columns = int(WIDTH * scale)
    middle_column = WIDTH / 2
    horizon_row = HEIGHT * 0.53
    right = (np.arange(columns) + 0.5) / scale - middle_column
    down = (np.arange(rows) + 0.5) / scale - horizon_row
    u, v = np.meshgrid(right, down)

    to_the_right = np.arctan2(u, focal)
    azimuth = direction - to_the_right
    level_distance = np.hypot(u, focal)
    elevation = np.arctan2(-v, level_distance)

    return azimuth.astype(np.float32), elevation.astype(np.float32)


def _camera_rays(camera: Camera, scale: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """The rays of a camera's pixels at a scale, down to a share ``height`` of the picture."""
    axis = camera.cam2ego[:, 2]
    return _rays(
        focal=float(camera.intrinsic[0, 0]),
        direction=float(np.arctan2(axis[1], axis[0])),
        scale=scale,
        rows=int(HEIGHT * scale * height),
    )


def _paint_sky(canvas: np.ndarray, view: View, backdrop: Backdrop) -> None:
    azimuth, elevation = _camera_rays(view.camera, scale=SCALE, height=0.56)
    panorama_rows, panorama_columns = PANORAMA
    full_turn = np.float32(2 * np.pi)
    columns_per_radian = np.float32(panorama_columns / (2 * np.pi))
    rows_per_radian = np.float32((panorama_rows - 1) / (HIGHEST - LOWEST))
    global_azimuth = (azimuth + np.float32(view.ego[2])) % full_turn
    columns = global_azimuth * columns_per_radian
    rows = (HIGHEST - elevation) * rows_per_radian
    sky = cv2.remap(
        backdrop.panorama,
        columns,
        rows,
        interpolation=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    canvas[: len(sky)] = sky


def _pixels(view: View, points: np.ndarray) -> np.ndarray:
    """Points in the camera frame to fixed-point pixels of the large canvas.

    Args:
        view: whose camera.
        points: (..., 3) in front of it.

    Returns:
        (..., 2) int32.
    """
    pixels = to_pixels(view.camera.intrinsic, points)
    fixed_point = pixels * (SCALE << _SHIFT)
    return np.clip(fixed_point, -1e6, 1e6).astype(np.int32)


def clip_near(points: np.ndarray) -> np.ndarray:
    """The part of a polygon beyond the near plane, by Sutherland and Hodgman's rule.

    Args:
        points: (k, 3) in the camera frame.

    Returns:
        (m, 3).
    """
    following = np.roll(points, -1, axis=0)
    result = []
    for point, next_point in zip(points, following, strict=True):
        beyond = point[2] - NEAR
        next_beyond = next_point[2] - NEAR
        if beyond >= 0:
            result.append(point)
        crosses = (beyond >= 0) != (next_beyond >= 0)
        if crosses:
            share = beyond / (beyond - next_beyond)
            result.append(point + share * (next_point - point))

    return np.array(result).reshape(-1, 3)


def _fill(
    canvas: np.ndarray,
    view: View,
    polygons: Sequence[np.ndarray] | np.ndarray,
    colour: Colour,
    shine: float = 0.0,
) -> None:
    """Fills polygons that do not overlap.

    Args:
        canvas: what is painted on.
        view: whose picture it is.
        polygons: each (k, 3) in the camera frame; an array of them is quicker than a list.
        colour: R, G, B.
        shine: how much of it shines by itself.
    """
    flat = []
    if isinstance(polygons, np.ndarray):
        in_front = polygons[..., 2].min(axis=1) >= NEAR
        flat += list(_pixels(view, polygons[in_front]))
        polygons = polygons[~in_front]

    for points in polygons:
        visible = _before_camera(points)
        if len(visible) > 2:
            flat.append(_pixels(view, visible))

    if flat:
        cv2.fillPoly(canvas, flat, (*colour, shine), shift=_SHIFT)


def _before_camera(points: np.ndarray) -> np.ndarray:
    """The part of a polygon (k, 3) in the camera frame that can be projected."""
    depth = points[:, 2]
    if depth.min() >= NEAR:
        return points
    if depth.max() <= NEAR:
        return points[:0]
    return clip_near(points)


def _paint_ground(canvas: np.ndarray, view: View, scene: Scene, backdrop: Backdrop) -> None:
    horizon = int(HEIGHT * 0.53 * SCALE)
    canvas[horizon:] = (*backdrop.ground, 0)
    for corners, colour in backdrop.fields:
        _fill(canvas, view, [_on_ground(view, corners)], colour)
    _paint_road(canvas, view, scene.road, backdrop)
    _paint_marks(canvas, view, backdrop)
    _texture_ground(canvas, view, backdrop, horizon)


def _paint_road(canvas: np.ndarray, view: View, road: Road, backdrop: Backdrop) -> None:
    """Pavements, kerbstones, the streets that cross, parking strips and lanes."""
    s = _places_around(road, view.ego[:2])

    def line(d: float) -> np.ndarray:
        """The line ``d`` metres to the left of the road's centre, in the camera frame."""
        places = road.place(s, d)
        return _on_ground(view, places[:, :2])

    def strip(left: float, right: float) -> np.ndarray:
        """The outline of what lies between two lines."""
        left_edge = line(left)
        right_edge = line(right)
        return np.concatenate([left_edge, right_edge[::-1]])

    kerb = road.kerb
    edge = road.carriageway
    if road.pavement:
        outside = kerb + road.pavement
        stone = kerb + 0.25
        pavements = [
            strip(outside, kerb),
            strip(-kerb, -outside),
        ]
        kerbstones = [
            strip(stone, kerb),
            strip(-kerb, -stone),
        ]
        _fill(canvas, view, pavements, backdrop.pavement)
        _fill(canvas, view, kerbstones, (206, 204, 198))

    streets = [_on_ground(view, corners) for corners in backdrop.streets]
    _fill(canvas, view, streets, backdrop.asphalt)

    darker_asphalt = shade(backdrop.asphalt, 0.9)
    whole_road = strip(kerb, -kerb)
    lanes = strip(edge, -edge)
    _fill(canvas, view, [whole_road], darker_asphalt)
    _fill(canvas, view, [lanes], backdrop.asphalt)


def _places_around(road: Road, place: np.ndarray) -> np.ndarray:
    """Places along the road, as s, from 75 m before to 105 m beyond a place (2,)."""
    squared_distance = ((road.points - place) ** 2).sum(axis=1)
    nearest = int(np.argmin(squared_distance))
    at = nearest + road.start
    first = max(at - 75, road.start)
    last = min(at + 105, road.end)

    return np.arange(first, last + 1, 3.0)


def _paint_marks(canvas: np.ndarray, view: View, backdrop: Backdrop) -> None:
    first_corners = backdrop.marks[:, 0]
    away = first_corners - view.ego[:2]
    distance = np.abs(away).max(axis=1)
    near = backdrop.marks[distance < 100]

    marks = _on_ground(view, near)
    depth = marks[..., 2]
    in_front = depth.max(axis=1) > NEAR
    _fill(canvas, view, marks[in_front], backdrop.line)


def _on_ground(view: View, places: np.ndarray) -> np.ndarray:
    """Places (..., 2) on the ground in the global frame to points (..., 3) in the camera frame."""
    east_and_north = view.pose[:3, :2]
    origin = view.pose[:3, 3]
    return places @ east_and_north.T + origin


def _texture_ground(canvas: np.ndarray, view: View, backdrop: Backdrop, horizon: int) -> None:
    """Lays the texture on the ground, where it moves with the world, and haze over what is far."""
    ground = canvas[horizon:]
    rows, columns = ground.shape[:2]
    small = _ground_texture(view, backdrop.texture, horizon / SCALE, (columns, rows))
    texture = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)

    depth = _ground_depth(view, rows)
    fading = np.minimum(1.0, 16 / depth)
    strength = fading.astype(np.float32) / 128
    contrast = texture.astype(np.float32) - 128
    brightness = 1 + contrast * strength

    haze_share = _haze_share(depth).astype(np.float32)
    haze = np.array(backdrop.haze, dtype=np.float32)
    clear_share = 1 - haze_share
    factor = brightness * clear_share
    added = haze_share * haze

    painted = ground[..., :3]
    colours = painted * factor[..., None] + added[:, None]
    bounded = np.minimum(colours, 255)
    ground[..., :3] = bounded.astype(np.uint8)


def _ground_depth(view: View, rows: int) -> np.ndarray:
    """(rows, 1) metres to the ground in the canvas' rows below the horizon."""
    focal = view.camera.intrinsic[1, 1]
    camera_height = view.place[2]
    row_numbers = np.arange(rows)
    below_horizon = row_numbers[:, None] + 0.5
    depth: np.ndarray = focal * camera_height * SCALE / below_horizon

    return depth


def _haze_share(distance: np.ndarray | float) -> np.ndarray:
    """How much of the colour at a distance is haze, 0..1."""
    share: np.ndarray = 1 - np.exp(-distance / HAZE)
    return share


def _ground_texture(
    view: View, tile: np.ndarray, horizon: float, canvas_size: tuple[int, int]
) -> np.ndarray:
    """The texture as the camera sees it below its row ``horizon``, not enlarged."""
    columns, rows = canvas_size
    intrinsic = view.camera.intrinsic.copy()
    intrinsic[1, 2] -= horizon
    east = view.pose[:3, 0]
    north = view.pose[:3, 1]
    origin = view.pose[:3, 3]
    metres2pixels = intrinsic @ np.column_stack([east, north, origin])
    # Whole tiles are taken off to keep the numbers small.
    period = TILE / PIXELS_PER_METRE
    first_x, first_y = np.floor(view.place[:2] / period) * period
    texture2metres = [
        [1 / PIXELS_PER_METRE, 0, first_x],
        [0, 1 / PIXELS_PER_METRE, first_y],
        [0, 0, 1],
    ]
    seen: np.ndarray = cv2.warpPerspective(
        tile,
        metres2pixels @ np.array(texture2metres),
        (columns // SCALE, rows // SCALE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )

    return seen


def _paint_things(canvas: np.ndarray, view: View, stage: Stage, frame: int) -> None:
    """Buildings first, then trees, lamps and traffic, from far to near."""
    backdrop = stage.backdrop
    objects = stage.scene.objects(frame)
    things: list[tuple[bool, float, Prop | int]] = []
    for prop, distance in _near_props(view, backdrop.props):
        things.append((not prop.tall, -distance, prop))

    object_distances = _distances(view, objects.boxes)
    for i, distance in enumerate(object_distances):
        things.append((True, -distance, i))

    things.sort(key=lambda thing: thing[:2])
    for _, _, thing in things:
        if isinstance(thing, Prop):
            _paint_mesh(canvas, view, thing.mesh, thing.pose, backdrop)
        else:
            box = objects.boxes[thing]
            actor = int(objects.actors[thing])
            meshes = _meshes(stage, actor, frame)
            _paint_actor(canvas, view, meshes, box, backdrop)


def _near_props(view: View, props: Sequence[Prop]) -> Iterator[tuple[Prop, float]]:
    """The props that are near enough to be painted, and how far they are."""
    poses = [prop.pose for prop in props]
    places = np.array(poses).reshape(-1, 3)
    distances = _distances(view, places)
    for prop, distance in zip(props, distances, strict=True):
        farthest = 120 if prop.tall else 80
        if distance < farthest:
            yield prop, distance


def _distances(view: View, places: np.ndarray) -> np.ndarray:
    """Metres on the ground from the camera to places (n, 2 or more), (n,)."""
    away = places[:, :2] - view.place[:2]
    return np.hypot(away[:, 0], away[:, 1])


def _paint_actor(
    canvas: np.ndarray, view: View, meshes: tuple[Mesh, ...], box: np.ndarray, backdrop: Backdrop
) -> None:
    """An actor in its box (7,) and the shadow below it."""
    pose = box[[0, 1, 6]]
    if not _in_view(view, pose, radius=7.0):
        return
    bottom = box_corners(box[None])[0, :4]
    shadow = transform(view.pose, bottom * (1, 1, 0))
    _fill(canvas, view, [shadow], shade(backdrop.asphalt, 0.5))
    for mesh in _from_far_to_near(meshes, pose, view):
        _paint_mesh(canvas, view, mesh, pose, backdrop)


def _from_far_to_near(meshes: tuple[Mesh, ...], pose: np.ndarray, view: View) -> Sequence[Mesh]:
    """The meshes of one actor in the order of painting.

    What turns to the camera, such as a rider, stays last.
    """
    if len(meshes) == 1 or meshes[-1].upright:
        return meshes
    matrix = pose_matrix(*pose)

    def nearness(mesh: Mesh) -> float:
        away = transform(matrix, mesh.middle) - view.place
        return -float(np.linalg.norm(away))

    return sorted(meshes, key=nearness)


# Where a walking person's legs are in the four steps of a stride.
_STRIDES = (0.0, 1.0, 0.0, -1.0)


def _meshes(stage: Stage, actor: int, frame: int) -> tuple[Mesh, ...]:
    """The meshes of an actor, built when they are first needed."""
    actors = stage.scene.actors
    step = _step(stage.scene, actor, frame)
    key = actor, step
    if key not in stage.meshes:
        stage.meshes[key] = actor_meshes(
            label=int(actors.label[actor]),
            size=actors.size[actor],
            look=int(actors.look[actor]),
            stride=_STRIDES[step],
        )

    return stage.meshes[key]


def _step(scene: Scene, actor: int, frame: int) -> int:
    """Which of the steps of a stride a walking person does; 0 for everybody else."""
    actors = scene.actors
    moves = np.any(scene.velocities[frame, actor])
    if actors.label[actor] != PEDESTRIAN or not moves:
        return 0

    now = scene.poses[frame, actor, :2]
    at_first = scene.poses[0, actor, :2]
    x, y = now - at_first
    walked = np.hypot(x, y)
    steps = walked / 0.35 + actors.phase[actor]

    return int(steps) % 4


def _in_view(view: View, pose: np.ndarray, radius: float) -> bool:
    """Whether a circle on the ground can be in the picture."""
    x, _, z = _on_ground(view, pose[:2])
    focal = view.camera.intrinsic[0, 0]
    slope = WIDTH / 2 / focal
    margin = radius * np.hypot(1, slope)
    half_width = slope * z + margin
    ahead = z > -radius
    between_sides = abs(x) < half_width

    return bool(ahead and between_sides)


def _paint_mesh(
    canvas: np.ndarray, view: View, mesh: Mesh, pose: np.ndarray, backdrop: Backdrop
) -> None:
    across = mesh.vertices[:, :2]
    reach = float(np.abs(across).max())
    if not _in_view(view, pose, radius=reach * 1.5):
        return

    x, y, yaw = pose
    east, north = view.place[:2] - pose[:2]
    distance = float(np.linalg.norm([east, north]))
    if mesh.upright:
        yaw = np.arctan2(north, east)
    mesh2cam = view.pose @ pose_matrix(x, y, yaw)
    vertices = transform(mesh2cam, mesh.vertices)
    depth = vertices[:, 2]
    if depth.max() < NEAR:
        return

    order = _painting_order(
        mesh,
        vertices,
        rotation=mesh2cam[:3, :3],
        detailed=distance <= DETAIL,
    )
    if not len(order):
        return

    _paint_faces(
        canvas,
        view,
        vertices,
        faces=mesh.faces[order],
        colours=_lit_colours(mesh, order, yaw, distance, backdrop),
        is_solid=order < mesh.solid,
    )


def _painting_order(
    mesh: Mesh, vertices: np.ndarray, rotation: np.ndarray, detailed: bool
) -> np.ndarray:
    """The faces that can be seen: the solid ones from far to near, then the details.

    Args:
        mesh: what is painted.
        vertices: (V, 3) its vertices in the camera frame.
        rotation: (3, 3) of the mesh's frame to the camera's.
        detailed: whether a mesh with solid faces shows its details.

    Returns:
        Indices of faces.
    """
    normals = mesh.normals @ rotation.T
    first_corners = vertices[mesh.faces[:, 0]]
    faces_camera = np.einsum('fc,fc->f', normals, first_corners) < 0
    shown = _two_sided(mesh) | faces_camera
    if not detailed and mesh.solid > 0:
        shown[mesh.solid :] = False
    chosen = np.flatnonzero(shown)
    is_solid = chosen < mesh.solid
    solid = chosen[is_solid]
    details = chosen[~is_solid]

    corner_depths = vertices[mesh.faces[solid], 2]
    depth = corner_depths.mean(axis=1)
    from_far_to_near = np.argsort(-depth, kind='stable')
    sorted_solid = solid[from_far_to_near]

    return np.concatenate([sorted_solid, details])


def _two_sided(mesh: Mesh) -> np.ndarray:
    """(F,) bool: the faces that are seen from both sides."""
    one_sided = mesh.normals.any(axis=1)
    return ~one_sided


def _lit_colours(
    mesh: Mesh, order: np.ndarray, yaw: float, distance: float, backdrop: Backdrop
) -> np.ndarray:
    """(len(order), 4) R, G, B, shine of some faces in the sun, with haze over what is far."""
    global2mesh = pose_matrix(0, 0, -yaw)[:3, :3]
    sun = global2mesh @ backdrop.sun
    sunlight = (mesh.normals @ sun).clip(0)
    one_sided_light = 0.72 + sunlight
    light = np.where(_two_sided(mesh), 0.94, one_sided_light)

    colours = mesh.colours[order]
    bright = colours[:, :3] * light[order, None]
    lit = np.minimum(bright, 255)

    haze = np.array(backdrop.haze)
    haze_share = _haze_share(distance)
    clear_share = 1 - haze_share
    colours[:, :3] = lit * clear_share + haze * haze_share

    return colours


def _paint_faces(
    canvas: np.ndarray,
    view: View,
    vertices: np.ndarray,
    faces: np.ndarray,
    colours: np.ndarray,
    is_solid: np.ndarray,
) -> None:
    """Paints faces (n, k) of colours (n, 4) in their order.

    Neighbours in the order with one colour, such as a wall's windows, go in one call; solid faces
    may overlap and go alone.
    """
    another_colour = (np.diff(colours, axis=0) != 0).any(axis=1)
    breaks = np.flatnonzero(another_colour | is_solid[1:]) + 1
    touches_camera = vertices[:, 2].min() < NEAR
    polygons = vertices[faces] if touches_camera else _pixels(view, vertices)[faces]
    for begin, end in pairwise([0, *breaks, len(faces)]):
        red, green, blue, shine = colours[begin].tolist()
        if touches_camera:
            _fill(canvas, view, polygons[begin:end], (red, green, blue), shine)
        else:
            cv2.fillPoly(
                canvas,
                list(polygons[begin:end]),
                (red, green, blue, shine),
                shift=_SHIFT,
            )


def _night(small: np.ndarray, view: View, backdrop: Backdrop) -> np.ndarray:
    """Darkens a picture except for headlights, street lamps and what shines by itself."""
    lamplight = _lamplight(view, backdrop.lamps)
    warm_white = np.array([1.0, 0.94, 0.8], dtype=np.float32)
    light = NIGHT + lamplight[..., None] * warm_white

    colour = small[..., :3].astype(np.float32)
    shine = small[..., 3:].astype(np.float32) / 255
    shining = colour * shine
    halo = cv2.GaussianBlur(shining, (0, 0), 3.0) * 0.6
    brightness = np.maximum(light, shine)

    return colour * brightness + halo


def _lamplight(view: View, lamps: np.ndarray) -> np.ndarray:
    """(HEIGHT, WIDTH) float32 light of the headlights and the street lamps (n, 2) nearby."""
    glow = _headlights(view.camera)
    for spot in _lit_spots(view, lamps):
        glow += _pool_of_light(glow, spot, view.camera)

    blurred = cv2.GaussianBlur(glow, (0, 0), 2.5)
    lamplight: np.ndarray = cv2.resize(
        blurred,
        (WIDTH, HEIGHT),
        interpolation=cv2.INTER_LINEAR,
    )

    return lamplight


def _lit_spots(view: View, lamps: np.ndarray) -> np.ndarray:
    """(m, 3) the ground below the lamps (n, 2) near a camera and before it, in its frame."""
    distance = _distances(view, lamps)
    near = lamps[distance < 60]
    height = np.zeros(len(near))
    on_ground = np.column_stack([near, height])
    spots = transform(view.pose, on_ground)
    depth = spots[:, 2]

    return spots[depth > 3]


def _headlights(camera: Camera) -> np.ndarray:
    """The ego vehicle's beam, wide, low and straight ahead, in a picture of a quarter's size."""
    azimuth, elevation = _camera_rays(camera, scale=_GLOW_SCALE, height=1.0)
    across = wrap_angle(azimuth) / 0.42
    down = (elevation + 0.07) / 0.085
    beam: np.ndarray = 0.85 * np.exp(-(across**2) - down**2)
    return beam.astype(np.float32)


def _pool_of_light(glow: np.ndarray, spot: np.ndarray, camera: Camera) -> np.ndarray:
    """The light of one street lamp around a spot (3,) on the ground in the camera frame."""
    x, y, z = spot
    (focal_u, _, middle_u), (_, focal_v, middle_v), _ = camera.intrinsic / 4
    u = x / z * focal_u + middle_u
    v = y / z * focal_v + middle_v
    radius = 5.0 / z * focal_u
    flattened = radius * (1.5 / z + 0.25)
    pool = np.zeros_like(glow)
    cv2.ellipse(
        pool,
        center=(int(u), int(v)),
        axes=(max(1, int(radius)), max(1, int(flattened))),
        angle=0,
        startAngle=0,
        endAngle=360,
        color=[0.28],
        thickness=cv2.FILLED,
    )

    return pool
