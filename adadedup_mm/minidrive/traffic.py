"""Who is on the road: actors with a size, a look and a path that is a closed formula of time."""

from dataclasses import dataclass, fields
from typing import NamedTuple

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
        angle = self.rate * t + self.phase
        sway = self.sway * np.sin(angle)
        s = self.s + self.speed * t + sway
        d = self.d + self.drift * t
        return s, d


def join(groups: list[Actors]) -> Actors:
    """All actors of several groups."""
    joined = {}
    for field in fields(Actors):
        parts = [getattr(group, field.name) for group in groups]
        joined[field.name] = np.concatenate(parts)
    return Actors(**joined)


def _typical_sizes(label: np.ndarray) -> np.ndarray:
    """(A, 3) mean length, width, height in metres of actors' classes."""
    means = [SIZES[i][0] for i in label]
    return np.array(means).reshape(-1, 3)


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
    spread = np.array([SIZES[i][1] for i in label]).reshape(count, 3)
    size = _typical_sizes(label) + spread * rng.uniform(-1.5, 1.5, (count, 3))

    def for_each(value: np.ndarray | float) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (count,))

    return Actors(
        label=label,
        size=size,
        s=for_each(s),
        d=for_each(d),
        speed=for_each(speed),
        drift=for_each(drift),
        sway=sway * rng.uniform(0.3, 1, count),
        rate=rng.uniform(0.2, 0.6, count),
        phase=rng.uniform(0, 2 * np.pi, count),
        turn=for_each(turn),
        look=rng.integers(0, 2**31, count),
    )


def vehicles(count: int, buses: float, rng: np.random.Generator) -> np.ndarray:
    """(count,) labels of vehicles: cars, one truck in six, and a share of buses."""
    others = 1 - buses
    cars = others * 5 / 6
    trucks = others / 6
    return rng.choice([CAR, TRUCK, BUS], count, p=[cars, trucks, buses])


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
    count = max(0, int((last - first) / 8))
    label = vehicles(count, density.buses, rng)
    lengths = _typical_sizes(label)[:, 0]
    gaps = 3.5 + rng.exponential(density.gap, count)
    s = first + np.cumsum(lengths + gaps) - lengths / 2
    chosen = s + lengths / 2 < last
    off_middle = rng.uniform(-0.25, 0.25, int(chosen.sum()))

    return make_actors(
        label[chosen],
        s=s[chosen],
        d=lane_d + off_middle,
        rng=rng,
        speed=speed,
        sway=min(1.5, abs(speed) / 4),
        turn=0.0 if lane_d < 0 else np.pi,
    )


def parked_vehicles(
    road: Road, side: int, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """Vehicles in the parking strip on one side (+1 left, -1 right), never on a crossing street."""
    count = int((last - first) / 6)
    label = vehicles(count, density.buses / 2, rng)
    sizes = _typical_sizes(label)
    lengths = sizes[:, 0]
    widths = sizes[:, 1]
    gaps = rng.uniform(1.0, 2.5, count)
    fronts = first + np.cumsum(lengths + gaps)
    s = fronts - lengths / 2

    taken = rng.random(count) < density.parked
    chosen = (s < last) & taken
    for crossing in road.crossings:
        from_crossing = np.abs(s - crossing)
        chosen &= from_crossing > 13 + lengths / 2

    # Wide vehicles stand at the kerb's side, clear of the lane.
    d = side * (road.kerb - 0.5 * widths - 0.1)
    ahead = np.pi if side > 0 else 0.0
    turn = ahead + rng.normal(0, 0.02, count)

    return make_actors(
        label[chosen],
        s=s[chosen],
        d=d[chosen],
        rng=rng,
        turn=turn[chosen],
    )


def walkers(
    road: Road, side: int, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """People on the pavement, or beside the road where there is none.

    Two in three walk, the rest stand.
    """
    count = rng.poisson(density.pedestrians * (last - first) / 100)
    direction = rng.choice([-1, 1], count)
    pace = rng.uniform(0.9, 1.7, count)
    walks = rng.random(count) < 0.67
    width = max(road.pavement, 1.5)
    from_kerb = rng.uniform(0.4, width - 0.3, count)

    return make_actors(
        np.full(count, PEDESTRIAN),
        s=rng.uniform(first, last, count),
        d=side * (road.kerb + from_kerb),
        rng=rng,
        speed=direction * pace * walks,
        turn=np.where(direction > 0, 0.0, np.pi),
    )


def cyclists(
    road: Road, side: int, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """Cyclists at the edge of the outer lane."""
    count = rng.poisson(density.bicycles * (last - first) / 100)
    direction = -side
    off_edge = rng.uniform(-0.15, 0.15, count)
    return make_actors(
        np.full(count, BICYCLE),
        s=rng.uniform(first, last, count),
        d=side * (road.carriageway + off_edge),
        rng=rng,
        speed=direction * rng.uniform(3.0, 5.5, count),
        turn=0.0 if direction > 0 else np.pi,
    )


def works(
    road: Road, first: float, last: float, density: Density, rng: np.random.Generator
) -> Actors:
    """Rows of cones: along the edge of the road or between its directions."""
    edges = [
        0.0,
        road.carriageway,
        -road.carriageway,
    ]
    none = np.zeros(0)
    rows_s = [none]
    rows_d = [none]
    for begin in np.arange(first, last, 40.0):
        count = rng.integers(4, 9)
        step = rng.uniform(1.8, 3.2)
        edge = rng.choice(edges)
        place = begin + rng.uniform(0, 15)
        if rng.random() < density.works:
            along = place + step * np.arange(count)
            off_row = rng.normal(0, 0.15, count)
            off_edge = rng.normal(0, 0.1, count)
            rows_s.append(along + off_row)
            rows_d.append(edge + off_edge)

    s = np.concatenate(rows_s)
    d = np.concatenate(rows_d)
    label = np.full(len(s), CONE)

    return make_actors(label, s, d, rng)


class _Crossers(NamedTuple):
    """Actors of one kind that cross the road of a standing camera.

    Attributes:
        label: index into ``CLASSES``.
        every: seconds between two.
        slowest: metres per second.
        fastest: metres per second.
        offset: metres along the road from the middle of the street that crosses.
        spread: metres around the offset.
        directions: 1 to the left, -1 to the right.
    """

    label: int
    every: float
    slowest: float
    fastest: float
    offset: float
    spread: float
    directions: tuple[int, ...]


_CROSSING = (
    _Crossers(PEDESTRIAN, 5.0, 0.9, 1.7, -9.0, 1.4, (-1, 1)),
    _Crossers(PEDESTRIAN, 9.0, 0.9, 1.7, 9.0, 1.4, (-1, 1)),
    _Crossers(BICYCLE, 7.0, 2.5, 4.5, -6.2, 0.5, (-1,)),
    _Crossers(CAR, 5.0, 5.0, 8.0, 1.8, 0.2, (1,)),
    _Crossers(CAR, 6.0, 5.0, 8.0, -1.8, 0.2, (-1,)),
)


def crossing_traffic(road: Road, seconds: float, rng: np.random.Generator) -> Actors:
    """Small objects that come and go far in front of a standing camera.

    Args:
        road: with a street that crosses.
        seconds: for how long; each crosses the road once.
        rng: where everything comes from.
    """
    groups = [_cross(crossers, road, seconds, rng) for crossers in _CROSSING]
    return join(groups)


def _cross(crossers: _Crossers, road: Road, seconds: float, rng: np.random.Generator) -> Actors:
    longest_way = 2 * road.front_line
    earliest = -longest_way / crossers.slowest
    regular = np.arange(earliest, seconds, crossers.every)
    count = len(regular)
    delay = rng.uniform(-0.3, 0.3, count) * crossers.every
    start = regular + delay

    # One speed for the cars of a lane, so that none drives through another.
    speeds = 1 if crossers.label == CAR else count
    speed = rng.uniform(crossers.slowest, crossers.fastest, speeds)
    direction = rng.choice(crossers.directions, count)
    middle = road.crossings[0] + crossers.offset
    off_middle = rng.uniform(-crossers.spread, crossers.spread, count)

    return make_actors(
        np.full(count, crossers.label),
        s=middle + off_middle,
        d=-direction * (road.front_line + speed * start),
        rng=rng,
        drift=direction * speed,
        turn=direction * np.pi / 2,
    )
