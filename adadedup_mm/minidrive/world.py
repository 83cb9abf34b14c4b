"""Scenes as pure state: where the ego vehicle and everybody else are, at which time. No pictures, no files."""

from dataclasses import dataclass

import numpy as np

from . import traffic
from .geometry import wrap_angle
from .roads import SETTINGS, Road, make_road
from .traffic import Actors, Density

KINDS = ('parked', 'slow', 'drive', 'fixed', 'rare')
MOST_SCENES = 480  # for which ``NUMBERS`` has names
RANGE = 60.0  # metres around the ego vehicle within which objects exist

# What scene i is. A scene must not depend on how many others there are, so the table is fixed;
# entries 12.. repeat. The first six hold every kind for training and one scene for validation.
# Validation has no parked scenes.
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
        pose = self.poses[frame, chosen]
        boxes = np.column_stack([pose[:, :2], size[:, 2] / 2, size, pose[:, 2]])
        return Objects(boxes, self.velocities[frame, chosen], self.actors.label[chosen], chosen)

    def generator(self, *key: int) -> np.random.Generator:
        """A random stream of its own for every ``key``."""
        return stream(self.seed, self.index, *key)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator at a place of the world: the same for the same seed and key, independent of all others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def scene_plan(index: int) -> tuple[str, bool, str]:
    """Kind, night and split of scene ``index``."""
    words = SCHEDULE[index if index < 12 else 12 + (index - 12) % (len(SCHEDULE) - 12)].split()
    split = 'val' if words[0] == 'val' else 'train'
    return next(word for word in words if word in KINDS), 'night' in words, split


def scene_name(index: int, order: int, split: str) -> str:
    """The name of scene ``order`` of a split: one of nuScenes', or where they run out, a number that nuScenes lacks."""
    numbers = _numbers(split)
    return f'scene-{numbers[order] if order < len(numbers) else 2000 + index:04d}'


def _numbers(split: str) -> list[int]:
    return [number for first, last in NUMBERS[split] for number in range(first, last + 1)]


def make_scene(seed: int, index: int, frames: int) -> Scene:
    """Plays one scene.

    Args:
        seed: the world's seed.
        index: which scene; scenes do not depend on each other.
        frames: how many.
    """
    kind, night, split = scene_plan(index)
    rng = stream(seed, index, 0)
    slowest, fastest, period = MOTION[kind]
    setting = str(
        rng.choice(['city', 'suburb'])
        if kind == 'fixed'
        else rng.choice(list(SETTINGS), p=[0.45, 0.35, 0.2])
    )
    speed = rng.uniform(slowest, fastest)
    clock = np.arange(frames) * period
    # In a parked scene time itself stands still: its frames differ by the sensor's noise alone.
    times = np.zeros(frames) if kind == 'parked' else clock
    crossings = _crossings(kind, setting, speed * clock[-1], rng)
    road = make_road(setting, speed * clock[-1] + 10, crossings, rng)
    ego = _ego(road, speed, rng)
    actors = _populate(kind, setting, road, ego, times, rng)
    poses, velocities = _trace(road, actors, times)
    ego_pose, ego_velocity = _trace(road, ego, times)
    s, d = actors.path(times)
    near = np.hypot(*np.moveaxis(poses[..., :2] - ego_pose[..., :2], -1, 0)) < RANGE
    # Beyond the first buildings nobody could be seen.
    near &= (s > road.start + 1) & (s < road.end - 1) & (np.abs(d) < road.front_line)
    if kind == 'fixed':
        # Everything that moves keeps its distance from the camera, so that it stays small.
        near &= (s > 18) | ~velocities.any(axis=-1)
    if kind == 'parked':
        velocities, ego_velocity = np.zeros_like(velocities), np.zeros_like(ego_velocity)
    stamps = 1_600_000_000_000_000 + index * 1_000_000_000 + (clock * 1e6).round().astype(np.int64)
    order = sum(scene_plan(earlier)[2] == split for earlier in range(index))
    return Scene(
        index,
        scene_name(index, order, split),
        order,
        seed,
        kind,
        night,
        split,
        setting,
        road,
        stamps,
        ego_pose[:, 0],
        np.hypot(*ego_velocity[:, 0].T),
        actors,
        poses,
        velocities,
        near,
    )


def _crossings(
    kind: str, setting: str, length: float, rng: np.random.Generator
) -> tuple[float, ...]:
    if kind == 'fixed':
        return (float(rng.uniform(32, 40)),)
    if setting == 'country':
        return ()
    return tuple(
        float(s + rng.uniform(-12, 12))
        for s in np.arange(-40 + rng.uniform(0, 50), length + 100, 75.0)
    )


def _ego(road: Road, speed: float, rng: np.random.Generator) -> Actors:
    """The ego vehicle as an actor at s = 0 in one of its lanes."""
    lane = int(rng.integers(road.lanes))
    return traffic.make_actors(
        np.zeros(1),
        np.zeros(1),
        np.array([road.lane(lane) + rng.uniform(-0.3, 0.3)]),
        rng,
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
    first, last = -RANGE - 10, float(ego.path(times)[0].max()) + RANGE + 10
    groups = []
    for side in (-1, 1):
        groups.append(traffic.parked_vehicles(road, side, first, last, density, rng))
        groups.append(traffic.walkers(road, side, first, last, density, rng))
        groups.append(traffic.cyclists(road, side, first, last, density, rng))
    groups.append(traffic.works(road, first, last, density, rng))
    if kind == 'fixed':
        groups.append(traffic.crossing_traffic(road, float(times[-1]), rng))
    else:
        groups += _lanes(road, ego, times, density, rng)
    return traffic.join(groups)


def _lanes(
    road: Road, ego: Actors, times: np.ndarray, density: Density, rng: np.random.Generator
) -> list[Actors]:
    """The traffic of all lanes; in the ego vehicle's own those in front may draw away and those behind fall back."""
    own = int(np.argmin([abs(road.lane(number) - ego.d[0]) for number in range(road.lanes)]))
    s, speed = ego.path(times)[0], float(ego.speed[0])
    groups = []
    for number in range(-road.lanes, road.lanes):
        if number == own:
            leaving = rng.choice([1.0, rng.uniform(1.1, 1.4)])
            groups.append(
                traffic.lane_traffic(road.lane(own), speed * leaving, 8.0, RANGE, density, rng)
            )
            groups.append(
                traffic.lane_traffic(road.lane(own), speed / leaving, -RANGE, -10.0, density, rng)
            )
            continue
        pace = speed * rng.uniform(0.75, 1.3) * (1 if number >= 0 else -1)
        start = s - pace * times[:, None]
        first, last = float(start.min()) - RANGE, float(start.max()) + RANGE
        groups.append(traffic.lane_traffic(road.lane(number), pace, first, last, density, rng))
    return groups


def _trace(road: Road, actors: Actors, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses (T, A, 3) and velocities (T, A, 2) in the global frame."""
    step = 1e-3
    here, soon = (road.place(*actors.path(times + later)) for later in (0.0, step))
    poses = here.copy()
    poses[..., 2] = wrap_angle(here[..., 2] + actors.turn)
    return poses, (soon - here)[..., :2] / step
