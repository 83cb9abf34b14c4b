"""Who is on the road: actors with a size, a look and a path that is a closed formula of time."""

from dataclasses import dataclass, fields

import numpy as np

from .roads import Road

# Names are nuScenes detection classes, so that its metric can be used.
CLASSES = ('car', 'truck', 'bus', 'bicycle', 'pedestrian', 'traffic_cone')
CAR, TRUCK, BUS, BICYCLE, PEDESTRIAN, CONE = range(len(CLASSES))

# mean and spread of length, width, height in metres
SIZES = {
    CAR: ((4.4, 1.85, 1.55), (0.3, 0.08, 0.12)),
    TRUCK: ((7.2, 2.45, 2.95), (0.9, 0.1, 0.25)),
    BUS: ((10.6, 2.7, 3.2), (0.7, 0.06, 0.1)),
    BICYCLE: ((1.75, 0.62, 1.72), (0.06, 0.03, 0.06)),
    PEDESTRIAN: ((0.6, 0.6, 1.72), (0.04, 0.04, 0.1)),
    CONE: ((0.55, 0.55, 0.95), (0.03, 0.03, 0.08)),
}


@dataclass(frozen=True)
class Density:
    """How much of everything there is; numbers per 100 m of road and side where not said otherwise.

    Attributes:
        gap: mean free metres between the vehicles of a lane, beyond the least distance.
        parked: share of parking places that are taken.
        pedestrians: people on the pavement.
        bicycles: cyclists between the lanes and the parking strip.
        works: chance that a stretch of 40 m has a row of cones.
        buses: share of buses among the vehicles.
    """

    gap: float
    parked: float
    pedestrians: float
    bicycles: float
    works: float
    buses: float


@dataclass(frozen=True)
class Actors:
    """A actors; each is at s(t) = s + speed t + sway sin(rate t + phase), d(t) = d + drift t.

    Attributes:
        label: (A,) index into ``CLASSES``.
        size: (A, 3) length, width, height in metres.
        s: (A,) metres along the road at time 0, without the sway.
        d: (A,) metres to the left of the road's centre line at time 0.
        speed: (A,) metres per second along the road.
        drift: (A,) metres per second to the left.
        sway: (A,) metres.
        rate: (A,) radians per second.
        phase: (A,) radians.
        turn: (A,) heading relative to the road, radians.
        look: (A,) seed of colours and shape.
    """

    label: np.ndarray
    size: np.ndarray
    s: np.ndarray
    d: np.ndarray
    speed: np.ndarray
    drift: np.ndarray
    sway: np.ndarray
    rate: np.ndarray
    phase: np.ndarray
    turn: np.ndarray
    look: np.ndarray

    def path(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places s and d at times (T,), both (T, A)."""
        t = times[:, None]
        s = self.s + self.speed * t + self.sway * np.sin(self.rate * t + self.phase)
        return s, self.d + self.drift * t


def join(groups: list[Actors]) -> Actors:
    """All actors of several groups."""
    return Actors(
        **{
            field.name: np.concatenate([getattr(group, field.name) for group in groups])
            for field in fields(Actors)
        }
    )


def make_actors(
    label: np.ndarray,
    s: np.ndarray,
    d: np.ndarray,
    rng: np.random.Generator,
    *,
    speed: np.ndarray | float = 0.0,
    drift: np.ndarray | float = 0.0,
    sway: float = 0.0,
    turn: np.ndarray | float = 0.0,
) -> Actors:
    """Actors at (s, d), with sizes typical for their class and looks of their own.

    Args:
        label: (A,) index into ``CLASSES``.
        s: (A,) metres along the road.
        d: (A,) metres to the left of its centre line.
        rng: where sizes, looks and the phases of their sway come from.
        speed: metres per second along the road; like ``drift`` and ``turn`` (A,) or one for all.
        drift: metres per second to the left.
        sway: the largest amplitude, metres.
        turn: heading relative to the road.
    """
    label = np.asarray(label, dtype=np.int64)
    count = len(label)
    mean = np.array([SIZES[i][0] for i in label]).reshape(count, 3)
    spread = np.array([SIZES[i][1] for i in label]).reshape(count, 3)
    size = mean + spread * rng.uniform(-1.5, 1.5, (count, 3))
    s, d, speed, drift, turn = (
        np.broadcast_to(np.asarray(value, dtype=np.float64), (count,))
        for value in (s, d, speed, drift, turn)
    )
    return Actors(
        label,
        size,
        s,
        d,
        speed,
        drift,
        sway * rng.uniform(0.3, 1, count),
        rng.uniform(0.2, 0.6, count),
        rng.uniform(0, 2 * np.pi, count),
        turn,
        rng.integers(0, 2**31, count),
    )


def vehicles(count: int, buses: float, rng: np.random.Generator) -> np.ndarray:
    """Labels of ``count`` vehicles: cars, one truck in six, and a share of buses."""
    return rng.choice([CAR, TRUCK, BUS], count, p=[(1 - buses) * 5 / 6, (1 - buses) / 6, buses])


def lane_traffic(
    lane_d: float,
    speed: float,
    first: float,
    last: float,
    density: Density,
    rng: np.random.Generator,
) -> Actors:
    """The vehicles of one lane, which all move with one speed.

    Args:
        lane_d: d of the lane's middle.
        speed: metres per second along the road; negative for oncoming traffic.
        first: s at time 0 of the place behind the last one.
        last: s at time 0 of the place before the first one.
        density: gaps and classes.
        rng: where everything comes from.
    """
    label = vehicles(max(0, int((last - first) / 8)), density.buses, rng)
    lengths = np.array([SIZES[i][0][0] for i in label])
    gaps = 3.5 + rng.exponential(density.gap, len(label))
    s = first + np.cumsum(lengths + gaps) - lengths / 2
    chosen = s + lengths / 2 < last
    return make_actors(
        label[chosen],
        s[chosen],
        lane_d + rng.uniform(-0.25, 0.25, int(chosen.sum())),
        rng,
        speed=speed,
        sway=min(1.5, abs(speed) / 4),
        turn=0.0 if lane_d < 0 else np.pi,
    )


def parked_vehicles(
    road: Road, side: int, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """Vehicles in the parking strip on one side (+1 left, -1 right), never on a crossing street."""
    label = vehicles(int((last - first) / 6), density.buses / 2, rng)
    lengths = np.array([SIZES[i][0][0] for i in label])
    s = first + np.cumsum(lengths + rng.uniform(1.0, 2.5, len(label))) - lengths / 2
    chosen = (s < last) & (rng.random(len(label)) < density.parked)
    for crossing in road.crossings:
        chosen &= np.abs(s - crossing) > 13 + lengths / 2
    # Wide vehicles stand at the kerb's side, clear of the lane.
    d = side * (road.kerb - 0.5 * np.array([SIZES[i][0][1] for i in label]) - 0.1)
    turn = (np.pi if side > 0 else 0.0) + rng.normal(0, 0.02, len(label))
    return make_actors(label[chosen], s[chosen], d[chosen], rng, turn=turn[chosen])


def walkers(
    road: Road, side: int, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """People on the pavement, or beside the road where there is none; two in three walk, the rest stand."""
    count = rng.poisson(density.pedestrians * (last - first) / 100)
    direction = rng.choice([-1, 1], count)
    speed = direction * rng.uniform(0.9, 1.7, count) * (rng.random(count) < 0.67)
    width = max(road.pavement, 1.5)
    d = side * (road.kerb + rng.uniform(0.4, width - 0.3, count))
    return make_actors(
        np.full(count, PEDESTRIAN),
        rng.uniform(first, last, count),
        d,
        rng,
        speed=speed,
        turn=np.where(direction > 0, 0.0, np.pi),
    )


def cyclists(
    road: Road, side: int, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """Cyclists at the edge of the outer lane."""
    count = rng.poisson(density.bicycles * (last - first) / 100)
    direction = -side
    d = side * (road.carriageway + rng.uniform(-0.15, 0.15, count))
    return make_actors(
        np.full(count, BICYCLE),
        rng.uniform(first, last, count),
        d,
        rng,
        speed=direction * rng.uniform(3.0, 5.5, count),
        turn=0.0 if direction > 0 else np.pi,
    )


def works(
    road: Road, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """Rows of cones: along the edge of the road or between its directions."""
    s: list[np.ndarray] = []
    d: list[np.ndarray] = []
    for begin in np.arange(first, last, 40.0):
        count, step = rng.integers(4, 9), rng.uniform(1.8, 3.2)
        edge = rng.choice([0.0, road.carriageway, -road.carriageway])
        place = begin + rng.uniform(0, 15)
        if rng.random() < density.works:
            s.append(place + step * np.arange(count) + rng.normal(0, 0.15, count))
            d.append(edge + rng.normal(0, 0.1, count))
    if not s:
        return make_actors(np.zeros(0), np.zeros(0), np.zeros(0), rng)
    return make_actors(np.full(sum(map(len, s)), CONE), np.concatenate(s), np.concatenate(d), rng)


# class, seconds between two, slowest and fastest speed, metres from the crossing's middle, spread,
# directions (1: left)
_CROSSING: tuple[tuple[int, float, float, float, float, float, tuple[int, ...]], ...] = (
    (PEDESTRIAN, 5.0, 0.9, 1.7, -9.0, 1.4, (-1, 1)),
    (PEDESTRIAN, 9.0, 0.9, 1.7, 9.0, 1.4, (-1, 1)),
    (BICYCLE, 7.0, 2.5, 4.5, -6.2, 0.5, (-1,)),
    (CAR, 5.0, 5.0, 8.0, 1.8, 0.2, (1,)),
    (CAR, 6.0, 5.0, 8.0, -1.8, 0.2, (-1,)),
)


def crossing_traffic(road: Road, seconds: float, rng: np.random.Generator) -> Actors:
    """Small objects that come and go far in front of a standing camera, for ``seconds``; each crosses the road once."""
    groups = []
    for label, every, slowest, fastest, offset, spread, directions in _CROSSING:
        start = np.arange(-2 * road.front_line / slowest, seconds, every)
        count = len(start)
        start = start + rng.uniform(-0.3, 0.3, count) * every
        # One speed for the cars of a lane, so that none drives through another.
        speed = np.broadcast_to(
            rng.uniform(slowest, fastest, 1 if label == CAR else count), (count,)
        )
        direction = rng.choice(directions, count)
        s = road.crossings[0] + offset + rng.uniform(-spread, spread, count)
        groups.append(
            make_actors(
                np.full(count, label),
                s,
                -direction * (road.front_line + speed * start),
                rng,
                drift=direction * speed,
                turn=direction * np.pi / 2,
            )
        )
    return join(groups)
