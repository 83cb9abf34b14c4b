"""The sky, hills and far towers round a scene, as one picture by azimuth and elevation."""

import cv2
import numpy as np

from .geometry import wrap_angle
from .props import LEAVES
from .shapes import Colour, pick
from .world import Scene

PANORAMA = (200, 1440)  # rows and columns, four columns per degree
LOWEST, HIGHEST = -0.06, 1.05  # elevations (radians) of the last and the first row

# share of haze in the colour, height in radians, waves of the lines of hills, the far one first
_HILL_LINES = ((0.72, 0.07, 7), (0.5, 0.04, 18))


def make_panorama(
    scene: Scene, zenith: Colour, haze: Colour, clouds: float, sun: float, rng: np.random.Generator
) -> np.ndarray:
    """Paints the surroundings.

    Args:
        scene: its setting and whether it is night.
        zenith: colour overhead.
        haze: colour at the horizon.
        clouds: how cloudy it is, 0..1; from .9 on the sun is hidden.
        sun: its azimuth, radians.
        rng: where clouds, hills and towers come from.

    Returns:
        ``(*PANORAMA, 4)`` uint8: R, G, B and how much shines by itself.
    """
    rows, columns = PANORAMA
    canvas = np.zeros((rows, columns, 4), dtype=np.uint8)
    air = _air(zenith, haze, clouds, sun, rng)
    canvas[..., :3] = np.clip(air, 0, 255).astype(np.uint8)
    if scene.night:
        _stars(canvas, rng)
    far = np.array(haze)
    green = np.array(pick(LEAVES[:4], rng))
    for haze_share, height, waves in _HILL_LINES:
        colour = far * haze_share + green * 0.8 * (1 - haze_share)
        _hills(canvas, height, waves, colour, rng)

    if scene.setting == 'city':
        _skyline(canvas, far, scene.night, rng)
    return canvas


def _hills(
    canvas: np.ndarray, height: float, waves: int, colour: np.ndarray, rng: np.random.Generator
) -> None:
    """A line of hills all round, ``height`` radians high on average."""
    rows, columns = PANORAMA
    line = _periodic(waves, rng)
    elevation = height * (0.75 + 0.5 * line)
    tops = _row(elevation)
    crest = np.column_stack([np.arange(columns), tops])
    bottom = [
        [columns, rows],
        [0, rows],
    ]
    outline = np.concatenate([crest, bottom]).astype(np.int32)
    cv2.fillPoly(canvas, [outline], (*colour.tolist(), 0.0))


def _air(
    zenith: Colour, haze: Colour, clouds: float, sun: float, rng: np.random.Generator
) -> np.ndarray:
    """(rows, columns, 3) sky with clouds and a glow round the sun."""
    rows, columns = PANORAMA
    above_horizon = np.linspace(HIGHEST, LOWEST, rows).clip(0)
    elevation = above_horizon[:, None, None]
    azimuth = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    from_sun = np.abs(wrap_angle(azimuth - sun))
    haze_share = np.exp(-elevation / 0.28)
    glow = _sun_glow(elevation, from_sun[None, :, None])
    cloud = np.array([250, 250, 250])
    overcast = clouds >= 0.9
    if overcast:
        glow = np.zeros_like(glow)
        cloud = np.array([222, 224, 228])

    blue = np.array(zenith) * (1 - haze_share)
    pale = np.array(haze) * haze_share
    warm = np.array([60, 48, 24]) * glow
    sky = blue + pale + warm

    cover = _clouds(rng)[..., None] * clouds
    clear = 1 - cover
    result: np.ndarray = sky * clear + cloud * cover

    return result


def _sun_glow(elevation: np.ndarray, from_sun: np.ndarray) -> np.ndarray:
    """The light round the sun, 0..1, by elevation and angle from the sun, broadcast together."""
    beside = (from_sun / 0.5) ** 2
    above = (elevation - 0.3) ** 2 / 0.12
    glow: np.ndarray = np.exp(-beside - above)
    return glow


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """(rows, columns) float32 share of cloud, seamless all round."""
    cover = np.zeros(PANORAMA, dtype=np.float32)
    for _ in range(26):
        u = rng.integers(PANORAMA[1])
        v = int(_row(rng.uniform(0.12, 0.8)))
        for _ in range(5):
            centre_u = u + rng.normal(0, 26)
            centre_v = v + rng.normal(0, 3)
            half_width = rng.uniform(16, 46)
            half_height = rng.uniform(3, 9)
            strength = rng.uniform(0.5, 1.0)
            _puff(
                cover,
                centre=(int(centre_u), int(centre_v)),
                axes=(int(half_width), int(half_height)),
                strength=float(strength),
            )

    margin = 40
    before = cover[:, -margin:]
    behind = cover[:, :margin]
    ring = np.concatenate([before, cover, behind], axis=1)
    blurred: np.ndarray = cv2.GaussianBlur(ring, (0, 0), 6, sigmaY=2.5)

    return blurred[:, margin:-margin]


def _puff(
    cover: np.ndarray, centre: tuple[int, int], axes: tuple[int, int], strength: float
) -> None:
    """Part of a cloud, which goes on at the other side where it leaves the panorama."""
    u, v = centre
    columns = PANORAMA[1]
    for shift in (-columns, 0, columns):
        cv2.ellipse(
            cover,
            center=(u + shift, v),
            axes=axes,
            angle=0,
            startAngle=0,
            endAngle=360,
            color=[strength],
            thickness=cv2.FILLED,
        )


def _periodic(waves: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random line round the horizon, (columns,), about -1..1."""
    angle = np.linspace(0, 2 * np.pi, PANORAMA[1], endpoint=False)
    orders = np.arange(1, waves + 1)
    phase = rng.uniform(0, 2 * np.pi, waves)
    strength = rng.uniform(0.3, 1, waves)
    size = strength / np.sqrt(orders)
    sines = np.sin(orders[:, None] * angle + phase[:, None])
    waves_by_order = size[:, None] * sines
    line: np.ndarray = waves_by_order.sum(axis=0)
    highest = np.abs(line).max()

    return line / highest


def _row(elevation: float | np.ndarray) -> np.ndarray:
    """The panorama's row of an elevation in radians."""
    share_down = (HIGHEST - np.asarray(elevation)) / (HIGHEST - LOWEST)
    return share_down * (PANORAMA[0] - 1)


def _stars(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Stars, which fill most of the sky, and a moon."""
    rows, columns = PANORAMA
    star_rows = rng.integers(0, int(rows * 0.85), 160)
    star_columns = rng.integers(0, columns, 160)
    canvas[star_rows, star_columns] = (235, 238, 255, 190)
    cv2.circle(
        canvas,
        center=(int(rng.integers(columns)), int(_row(0.5))),
        radius=9,
        color=(244, 240, 214, 230),
        thickness=cv2.FILLED,
    )


def _skyline(canvas: np.ndarray, haze: np.ndarray, night: bool, rng: np.random.Generator) -> None:
    """Far towers with, at night, lit windows."""
    rows, columns = PANORAMA
    u = 0
    while u < columns:
        width = int(rng.integers(12, 44))
        if rng.random() < 0.6:
            top = int(_row(rng.uniform(0.04, 0.19)))
            colour = haze * rng.uniform(0.62, 0.82)
            cv2.rectangle(
                canvas,
                pt1=(u, top),
                pt2=(u + width, rows),
                color=(*colour.tolist(), 0.0),
                thickness=cv2.FILLED,
            )
            if night:
                _light_windows(canvas, u, width, top, rng)

        gap = int(rng.integers(0, 16))
        u += width + gap


def _light_windows(
    canvas: np.ndarray, u: int, width: int, top: int, rng: np.random.Generator
) -> None:
    """Lights single pixels of the tower that begins at column ``u`` and row ``top``."""
    rows, columns = PANORAMA
    count = width // 2
    first = (u + 1, top + 2)
    beyond = (u + max(width - 1, 2), rows)
    windows = rng.integers(first, beyond, (count, 2))

    last_column = columns - 1
    last_row = rows - 1
    window_columns = windows[:, 0].clip(0, last_column)
    window_rows = windows[:, 1].clip(0, last_row)
    canvas[window_rows, window_columns] = (255, 214, 140, 150)
