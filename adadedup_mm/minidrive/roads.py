"""A scene's road: a gently curving centre line with lanes, parking strips and pavements."""

from dataclasses import dataclass

import numpy as np

BEYOND = 130  # metres that the road goes on before and after what is driven

# lanes per direction, lane width, parking strip, pavement and verge beside it, how much the road
# winds (radians)
SETTINGS: dict[str, tuple[int, float, float, float, float, float]] = {
    'city': (2, 3.3, 2.4, 4.0, 1.0, 0.10),
    'suburb': (1, 3.5, 2.3, 2.0, 6.0, 0.20),
    'country': (1, 3.6, 1.2, 0.0, 5.0, 0.35),
}


@dataclass(frozen=True)
class Road:
    """A road in the global frame; right-hand traffic.

    Places on it are (s, d): metres along it, metres to the left of its centre line.

    Attributes:
        start: s of the first point of the centre line.
        points: (P, 2) centre line, one point per metre.
        headings: (P,) direction of the centre line, radians.
        lanes: lanes per direction.
        lane_width: metres.
        parking: width of the parking strip on each side, metres.
        pavement: width of the pavement on each side, metres; 0 where there is none.
        verge: metres between the pavement and the first building.
        crossings: s of the streets that cross, each with a zebra crossing 9 m before its middle.
    """

    start: float
    points: np.ndarray
    headings: np.ndarray
    lanes: int
    lane_width: float
    parking: float
    pavement: float
    verge: float
    crossings: tuple[float, ...]

    @property
    def carriageway(self) -> float:
        """Half the width of all lanes."""
        return self.lanes * self.lane_width

    @property
    def kerb(self) -> float:
        """Distance from the centre line to the kerb."""
        return self.carriageway + self.parking

    @property
    def front_line(self) -> float:
        """Distance from the centre line to the first building."""
        return self.kerb + self.pavement + self.verge

    @property
    def end(self) -> float:
        """Where the last point is, as s."""
        return self.start + len(self.points) - 1

    def lane(self, number: int) -> float:
        """The middle of a lane, as d.

        Lanes count from the centre line outwards: 0, 1, ... ahead and -1, -2, ... oncoming.
        """
        return -(number + 0.5) * self.lane_width

    def place(self, s: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Places on the road in the global frame.

        Args:
            s: metres along the road.
            d: metres to the left, broadcast together with ``s`` to shape (...).

        Returns:
            (..., 3) float64 x, y, heading.
        """
        s = np.asarray(s, dtype=np.float64)
        d = np.asarray(d, dtype=np.float64)
        s, d = np.broadcast_arrays(s, d)

        grid = np.arange(len(self.points)) + self.start
        points_x, points_y = self.points.T
        centre_x = np.interp(s, grid, points_x)
        centre_y = np.interp(s, grid, points_y)
        heading = np.interp(s, grid, self.headings)

        sin = np.sin(heading)
        cos = np.cos(heading)
        x = centre_x - d * sin
        y = centre_y + d * cos

        return np.stack([x, y, heading], axis=-1)


def make_road(
    setting: str, length: float, crossings: tuple[float, ...], rng: np.random.Generator
) -> Road:
    """A road whose middle part, s in [0, length], goes on for 130 m before and after it.

    Args:
        setting: one of ``SETTINGS``.
        length: of the middle part, metres.
        crossings: s of the streets that cross.
        rng: where its place, direction and bends come from.
    """
    lanes, lane_width, parking, pavement, verge, winding = SETTINGS[setting]
    start = -float(BEYOND)
    s = np.arange(start, length + BEYOND + 1)
    period = rng.uniform(35, 70)
    direction = rng.uniform(-np.pi, np.pi)
    phase = rng.uniform(0, 2 * np.pi)
    headings = direction + winding * np.sin(s / period + phase)
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1)
    origin = rng.uniform(300, 1700, 2)

    return Road(
        start=start,
        points=origin + np.cumsum(steps, axis=0),
        headings=headings,
        lanes=lanes,
        lane_width=lane_width,
        parking=parking,
        pavement=pavement,
        verge=verge,
        crossings=crossings,
    )
