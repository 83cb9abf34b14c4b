"""The sky, hills and far towers round a scene, as one picture by azimuth and elevation."""

import cv2
import numpy as np

from .props import LEAVES
from .shapes import Colour, pick
from .world import Scene

PANORAMA = (200, 1440)  # rows and columns, four columns per degree
LOWEST, HIGHEST = -0.06, 1.05  # elevations (radians) of the last and the first row


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
    canvas[..., :3] = np.clip(_air(zenith, haze, clouds, sun, rng), 0, 255).astype(np.uint8)
    if scene.night:
        _stars(canvas, rng)
    x, base, green = np.arange(columns), np.array(haze), np.array(pick(LEAVES[:4], rng))
    for distance, height, waves in ((0.72, 0.07, 7), (0.5, 0.04, 18)):
        tops = _row(height * (0.75 + 0.5 * _periodic(waves, rng)))
        colour = base * distance + green * 0.8 * (1 - distance)
        outline = np.concatenate([np.column_stack([x, tops]), [[columns, rows], [0, rows]]])
        cv2.fillPoly(canvas, [outline.astype(np.int32)], (*colour.tolist(), 0.0))
    if scene.setting == 'city':
        _skyline(canvas, base, scene.night, rng)
    return canvas


def _air(
    zenith: Colour, haze: Colour, clouds: float, sun: float, rng: np.random.Generator
) -> np.ndarray:
    """(rows, columns, 3) sky with clouds and a glow round the sun."""
    rows, columns = PANORAMA
    elevation = np.linspace(HIGHEST, LOWEST, rows).clip(0)[:, None, None]
    share = np.exp(-elevation / 0.28)
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    apart = np.abs((angle - sun + np.pi) % (2 * np.pi) - np.pi)[None, :, None]
    glow = np.exp(-((apart / 0.5) ** 2) - (elevation - 0.3) ** 2 / 0.12) * (clouds < 0.9)
    sky = np.array(zenith) * (1 - share) + np.array(haze) * share + np.array([60, 48, 24]) * glow
    cover = _clouds(rng)[..., None] * clouds
    white = np.array([250, 250, 250] if clouds < 0.9 else [222, 224, 228])
    result: np.ndarray = sky * (1 - cover) + white * cover
    return result


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """(rows, columns) float32 share of cloud, seamless all round."""
    rows, columns = PANORAMA
    cover = np.zeros((rows, columns), dtype=np.float32)
    for _ in range(26):
        u, v = rng.integers(columns), int(_row(rng.uniform(0.12, 0.8)))
        for _ in range(5):
            centre = (int(u + rng.normal(0, 26)), int(v + rng.normal(0, 3)))
            axes = (int(rng.uniform(16, 46)), int(rng.uniform(3, 9)))
            strength = float(rng.uniform(0.5, 1.0))
            for shift in (-columns, 0, columns):
                cv2.ellipse(cover, (centre[0] + shift, centre[1]), axes, 0, 0, 360, [strength], -1)
    ring = np.concatenate([cover[:, -40:], cover, cover[:, :40]], axis=1)
    blurred: np.ndarray = cv2.GaussianBlur(ring, (0, 0), 6, sigmaY=2.5)
    return blurred[:, 40:-40]


def _periodic(waves: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random line round the horizon, (columns,), about -1..1."""
    angle = np.linspace(0, 2 * np.pi, PANORAMA[1], endpoint=False)
    orders = np.arange(1, waves + 1)
    phase, size = rng.uniform(0, 2 * np.pi, waves), rng.uniform(0.3, 1, waves) / np.sqrt(orders)
    line: np.ndarray = (size[:, None] * np.sin(orders[:, None] * angle + phase[:, None])).sum(
        axis=0
    )
    return line / np.abs(line).max()


def _row(elevation: float | np.ndarray) -> np.ndarray:
    """The panorama's row of an elevation in radians."""
    return (HIGHEST - np.asarray(elevation)) / (HIGHEST - LOWEST) * (PANORAMA[0] - 1)


def _stars(canvas: np.ndarray, rng: np.random.Generator) -> None:
    v, u = rng.integers(0, int(PANORAMA[0] * 0.85), 160), rng.integers(0, PANORAMA[1], 160)
    canvas[v, u] = (235, 238, 255, 190)
    cv2.circle(
        canvas, (int(rng.integers(PANORAMA[1])), int(_row(0.5))), 9, (244, 240, 214, 230), -1
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
            cv2.rectangle(canvas, (u, top), (u + width, rows), (*colour.tolist(), 0.0), -1)
            if night:
                spots = rng.integers(
                    (u + 1, top + 2), (u + max(width - 1, 2), rows), (width // 2, 2)
                )
                canvas[spots[:, 1].clip(0, rows - 1), spots[:, 0].clip(0, columns - 1)] = (
                    255,
                    214,
                    140,
                    150,
                )
        u += width + int(rng.integers(0, 16))
