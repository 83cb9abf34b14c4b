"""Scenes as pure state: where the ego vehicle and everybody else are, at which time.

No pictures, no files.
"""

from dataclasses import dataclass

import numpy as np

from .geometry import wrap_angle
from .roads import SETTINGS, Road, make_road
from .traffic import (
    CAR,
    Actors,
    Density,
    crossing_traffic,
    cyclists,
    join,
    lane_traffic,
    make_actors,
    parked_vehicles,
    walkers,
    works,
)

KINDS = ('parked', 'slow', 'drive', 'fixed', 'rare')
MOST_SCENES = 480  # for which ``NUMBERS`` has names
RANGE = 60.0  # metres around the ego vehicle within which objects exist

# What scene i is. A scene must not depend on how many others there are, so the table is fixed;
# entries from ``REPEATED`` on repeat. The first six hold every kind for training and one scene for
# validation. Validation has no parked scenes.
REPEATED = 12
SCHEDULE = (
    'drive',
    'parked',
    'fixed',
    'slow',
    'rare',
    'val rare',
    'parked',
    'val drive night',
    'drive night',
    'val fixed',
    'parked',
    'val slow',
    'parked night',
    'drive',
    'fixed night',
    'rare',
    'val drive',
    'parked',
    'drive night',
    'slow',
    'parked',
    'fixed',
    'val rare night',
    'drive',
    'parked',
    'rare night',
    'drive',
    'fixed',
    'val fixed',
    'parked',
    'drive night',
    'slow night',
    'parked night',
    'rare',
    'val drive night',
    'drive',
    'parked',
    'fixed',
    'drive night',
    'val slow',
    'parked',
    'rare',
    'drive',
    'fixed night',
    'parked',
    'val drive',
    'slow',
    'drive night',
)

START = 1_600_000_000_000_000  # of the first scene, microseconds since 1970
BETWEEN_SCENES = 1_000_000_000  # microseconds

# Long runs of scene numbers in nuScenes' official splits.
NUMBERS = {
    'train': (
        (41, 76),
        (120, 135),
        (157, 168),
        (170, 185),
        (224, 264),
        (283, 306),
        (347, 386),
        (388, 403),
        (410, 459),
        (525, 539),
        (582, 600),
        (639, 679),
        (703, 719),
        (882, 903),
        (994, 1025),
        (1044, 1058),
        (1074, 1102),
    ),
    'val': (
        (12, 18),
        (92, 110),
        (268, 278),
        (519, 524),
        (552, 565),
        (632, 638),
        (780, 784),
        (794, 800),
        (904, 917),
        (919, 931),
        (1059, 1073),
    ),
}

# kind -> slowest and fastest speed of the ego vehicle (m/s), seconds between frames
MOTION = {
    'parked': (0.0, 0.0, 0.5),
    'slow': (0.7, 1.2, 0.5),
    'drive': (7.0, 11.0, 0.5),
    'fixed': (0.0, 0.0, 1.0),
    'rare': (5.0, 8.0, 0.5),
}

# setting -> share of parking places taken, people per 100 m of pavement
BUSY = {'city': (0.5, 6.0), 'suburb': (0.4, 4.0), 'country': (0.06, 0.8)}


@dataclass(frozen=True)
class Objects:
    """The n objects around the ego vehicle in one frame.

    Attributes:
        boxes: (n, 7) float64 x y z (centre), length, width, height, yaw, in the global frame.
        velocities: (n, 2) float64 metres per second, global frame.
        labels: (n,) int64 indices into ``CLASSES``.
        actors: (n,) int64 indices into the scene's actors.
    """

    boxes: np.ndarray
    velocities: np.ndarray
    labels: np.ndarray
    actors: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One drive of T frames with A actors.

    Attributes:
        index: its number; also where its private random streams start.
        name: a name from nuScenes' list of scenes for its split, because nuScenes' evaluation goes
            by names.
        order: how many scenes of its split come before it.
        seed: the world's seed.
        kind: one of ``KINDS``.
        night: whether it is dark.
        split: ``'train'`` or ``'val'``.
        setting: one of ``SETTINGS``.
        road: what it plays on.
        timestamps: (T,) int64, microseconds.
        ego: (T, 3) float64 x, y, yaw in the global frame.
        speed: (T,) float64 metres per second of the ego vehicle.
        actors: what the A actors look like.
        poses: (T, A, 3) float64 x, y, yaw in the global frame.
        velocities: (T, A, 2) float64 metres per second, global frame.
        present: (T, A) bool, whether the actor is near enough to exist.
    """

    index: int
    name: str
    order: int
    seed: int
    kind: str
    night: bool
    split: str
    setting: str
    road: Road
    timestamps: np.ndarray
    ego: np.ndarray
    speed: np.ndarray
    actors: Actors
    poses: np.ndarray
    velocities: np.ndarray
    present: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamps)

    def objects(self, frame: int) -> Objects:
        """The objects of one frame, in the order of the actors."""
        chosen = np.flatnonzero(self.present[frame])
        size = self.actors.size[chosen]
        height = size[:, 2]
        pose = self.poses[frame, chosen]
        places = pose[:, :2]
        yaw = pose[:, 2]

        return Objects(
            boxes=np.column_stack([places, height / 2, size, yaw]),
            velocities=self.velocities[frame, chosen],
            labels=self.actors.label[chosen],
            actors=chosen,
        )

    def generator(self, *key: int) -> np.random.Generator:
        """A random stream of its own for every ``key``."""
        return stream(self.seed, self.index, *key)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator at a place of the world.

    It is the same for the same seed and key and independent of all others.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.default_rng(sequence)


def scene_plan(index: int) -> tuple[str, bool, str]:
    """Kind, night and split of scene ``index``."""
    entry = index
    if index >= REPEATED:
        period = len(SCHEDULE) - REPEATED
        entry = REPEATED + (index - REPEATED) % period
    words = SCHEDULE[entry].split()
    kind = next(word for word in words if word in KINDS)
    split = 'val' if words[0] == 'val' else 'train'
    return kind, 'night' in words, split


def nuscenes_name(index: int, order: int, split: str) -> str:
    """The name of a scene: one of nuScenes', or where they run out, a number that nuScenes lacks.

    Args:
        index: its number.
        order: how many scenes of its split come before it.
        split: ``'train'`` or ``'val'``.
    """
    numbers: list[int] = []
    for first, last in NUMBERS[split]:
        numbers += range(first, last + 1)
    number = numbers[order] if order < len(numbers) else 2000 + index
    return f'scene-{number:04d}'


def make_scene(seed: int, index: int, frames: int) -> Scene:
    """Plays one scene.

    Args:
        seed: the world's seed.
        index: which scene; scenes do not depend on each other.
        frames: how many.
    """
    kind, night, split = scene_plan(index)
    order = sum(scene_plan(earlier)[2] == split for earlier in range(index))
    rng = stream(seed, index, 0)
    slowest, fastest, period = MOTION[kind]
    setting = _setting(kind, rng)
    speed = rng.uniform(slowest, fastest)
    clock = np.arange(frames) * period
    # In a parked scene time itself stands still: its frames differ by the sensor's noise alone.
    parked = kind == 'parked'
    times = np.zeros(frames) if parked else clock
    way = speed * clock[-1]
    crossings = _crossings(kind, setting, way, rng)
    road = make_road(setting, way + 10, crossings, rng)
    ego = _ego(road, speed, rng)
    actors = _populate(kind, setting, road, ego, times, rng)
    poses, velocities = _trace(road, actors, times)
    ego_poses, ego_velocities = _trace(road, ego, times)
    present = _present(kind, road, actors.path(times), poses, ego_poses, velocities)
    if parked:
        velocities = np.zeros_like(velocities)
        ego_velocities = np.zeros_like(ego_velocities)

    microseconds = (clock * 1e6).round().astype(np.int64)

    return Scene(
        index=index,
        name=nuscenes_name(index, order, split),
        order=order,
        seed=seed,
        kind=kind,
        night=night,
        split=split,
        setting=setting,
        road=road,
        timestamps=START + index * BETWEEN_SCENES + microseconds,
        ego=ego_poses[:, 0],
        speed=np.hypot(ego_velocities[:, 0, 0], ego_velocities[:, 0, 1]),
        actors=actors,
        poses=poses,
        velocities=velocities,
        present=present,
    )


def _setting(kind: str, rng: np.random.Generator) -> str:
    if kind == 'fixed':
        return str(rng.choice(['city', 'suburb']))
    return str(rng.choice(list(SETTINGS), p=[0.45, 0.35, 0.2]))


def _present(
    kind: str,
    road: Road,
    path: tuple[np.ndarray, np.ndarray],
    poses: np.ndarray,
    ego_poses: np.ndarray,
    velocities: np.ndarray,
) -> np.ndarray:
    """(T, A) bool: who is near enough to exist.

    Args:
        kind: of the scene.
        road: what it plays on.
        path: s and d of the actors, both (T, A).
        poses: (T, A, 3) of the actors.
        ego_poses: (T, 1, 3).
        velocities: (T, A, 2) of the actors.
    """
    s, d = path
    away = poses - ego_poses
    near = np.hypot(away[..., 0], away[..., 1]) < RANGE
    on_road = (s > road.start + 1) & (s < road.end - 1)
    # Beyond the first buildings nobody could be seen.
    visible = np.abs(d) < road.front_line
    present: np.ndarray = near & on_road & visible
    if kind == 'fixed':
        # Everything that moves keeps its distance from the camera, so that it stays small.
        stands = ~velocities.any(axis=-1)
        present &= (s > 18) | stands

    return present


def _crossings(
    kind: str, setting: str, length: float, rng: np.random.Generator
) -> tuple[float, ...]:
    if kind == 'fixed':
        return (float(rng.uniform(32, 40)),)
    if setting == 'country':
        return ()
    first = -40 + rng.uniform(0, 50)
    places = np.arange(first, length + 100, 75.0)
    return tuple(float(s + rng.uniform(-12, 12)) for s in places)


def _ego(road: Road, speed: float, rng: np.random.Generator) -> Actors:
    """The ego vehicle as an actor at s = 0 in one of its lanes."""
    lane = int(rng.integers(road.lanes))
    off_middle = rng.uniform(-0.3, 0.3)
    return make_actors(
        label=np.array([CAR]),
        s=np.zeros(1),
        d=np.array([road.lane(lane) + off_middle]),
        rng=rng,
        speed=speed,
        sway=min(1.5, speed / 5),
    )


def _populate(
    kind: str, setting: str, road: Road, ego: Actors, times: np.ndarray, rng: np.random.Generator
) -> Actors:
    """Everybody else."""
    rare = kind == 'rare'
    parked, pedestrians = BUSY[setting]
    density = Density(
        gap=4.0 if kind == 'slow' else 20.0,
        parked=parked,
        pedestrians=2.0 if kind == 'fixed' else pedestrians,
        bicycles=2.6 if rare else 0.5,
        works=0.6 if rare else 0.1,
        buses=0.3 if rare else 0.04,
    )
    farthest = float(ego.path(times)[0].max())
    first = -RANGE - 10
    last = farthest + RANGE + 10
    groups = []
    for side in (-1, 1):
        groups += [
            parked_vehicles(road, side, first, last, density, rng),
            walkers(road, side, first, last, density, rng),
            cyclists(road, side, first, last, density, rng),
        ]

    groups.append(works(road, first, last, density, rng))
    if kind == 'fixed':
        seconds = float(times[-1])
        groups.append(crossing_traffic(road, seconds, rng))
    else:
        groups += _lanes(road, ego, times, density, rng)

    return join(groups)


def _lanes(
    road: Road, ego: Actors, times: np.ndarray, density: Density, rng: np.random.Generator
) -> list[Actors]:
    """The traffic of all lanes.

    In the ego vehicle's own those in front may draw away and those behind fall back.
    """
    ego_s = ego.path(times)[0]
    ego_speed = float(ego.speed[0])
    from_ego = [abs(road.lane(number) - ego.d[0]) for number in range(road.lanes)]
    own = int(np.argmin(from_ego))
    groups = []
    for number in range(-road.lanes, road.lanes):
        lane = road.lane(number)
        if number == own:
            leaving = rng.choice([1.0, rng.uniform(1.1, 1.4)])
            in_front = ego_speed * leaving
            behind = ego_speed / leaving
            groups += [
                lane_traffic(
                    lane,
                    in_front,
                    first=8.0,
                    last=RANGE,
                    density=density,
                    rng=rng,
                ),
                lane_traffic(
                    lane,
                    behind,
                    first=-RANGE,
                    last=-10.0,
                    density=density,
                    rng=rng,
                ),
            ]
        else:
            direction = 1 if number >= 0 else -1
            speed = ego_speed * rng.uniform(0.75, 1.3) * direction
            # Where at time 0 those are whom the ego vehicle meets at some time.
            start = ego_s - speed * times[:, None]
            vehicles = lane_traffic(
                lane,
                speed,
                first=float(start.min()) - RANGE,
                last=float(start.max()) + RANGE,
                density=density,
                rng=rng,
            )
            groups.append(vehicles)

    return groups


def _trace(road: Road, actors: Actors, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses (T, A, 3) and velocities (T, A, 2) in the global frame."""
    step = 1e-3
    here = road.place(*actors.path(times))
    soon = road.place(*actors.path(times + step))
    moved = soon - here
    poses = here.copy()
    poses[..., 2] = wrap_angle(here[..., 2] + actors.turn)
    return poses, moved[..., :2] / step
