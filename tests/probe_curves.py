"""Curves as a probe could measure them, with the noise of scenes and of seeds."""

from collections.abc import Mapping

import numpy as np

from adadedup_mm.probe.curve import Curve, Point

RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7)


def make_curve(
    strategies: Mapping[str, Mapping[float, float]],
    random: Mapping[float, float],
    whole: float,
    *,
    spread: float = 0.01,
    seeds: int = 3,
    blocks: int = 12,
    scene_noise: float = 0.01,
    own_noise: float = 0.002,
    notes: tuple[str, ...] = (),
    rng_seed: int = 0,
) -> Curve:
    """A curve around true qualities by strategy and ratio.

    Args:
        strategies: without random.
        random: the mean of random's draws.
        whole: the quality of all samples.
        spread: standard deviation of a draw at 10 %, less above.
        seeds: draws of random.
        blocks: of validation scenes.
        scene_noise: standard error over scenes that all selections share.
        own_noise: the part of it that is each selection's own.
        notes: of the curve.
        rng_seed: of the noise.
    """
    rng = np.random.default_rng(rng_seed)
    # The deviation of a jackknife's values is sqrt(S) / (S - 1) standard errors.
    scale = np.sqrt(blocks) / max(blocks - 1, 1)
    shared = rng.normal(0, scene_noise * scale, blocks)
    shift = rng.normal(0, scene_noise)

    def point(strategy: str, ratio: float, seed: int, quality: float) -> Point:
        own = rng.normal(0, own_noise * scale, blocks)
        measured = quality + shift + rng.normal(0, own_noise)
        by_scene = np.clip(measured + shared + own, 0, 1)
        return Point(
            strategy=strategy,
            keep_ratio=ratio,
            seed=seed,
            samples=round(1000 * ratio),
            quality=float(np.clip(measured, 0, 1)),
            by_scene=tuple(by_scene.tolist()),
        )

    points = []
    for ratio, quality in random.items():
        deviation = spread * np.sqrt(0.1 * (1 - ratio) / 0.9 / ratio)
        for seed in range(seeds):
            points.append(point('random', ratio, seed, quality + rng.normal(0, deviation)))
    for strategy, qualities in strategies.items():
        for ratio, quality in qualities.items():
            points.append(point(strategy, ratio, 0, quality))
    points.append(point('whole', 1.0, 0, whole))

    return Curve(
        measure='AP50',
        validation='464 images of the validation set, 34 scenes',
        samples=1000,
        points=tuple(points),
        seconds=74.0,
        notes=notes,
    )


def along(*qualities: float, ratios: tuple[float, ...] = RATIOS) -> dict[float, float]:
    """Qualities by ratio."""
    return dict(zip(ratios, qualities, strict=True))


def cctv(**options: object) -> Curve:
    """Copies abound: density finds them, and loses nothing from 50 % on."""
    return make_curve(
        dict(
            uniform_stride=along(0.138, 0.198, 0.238, 0.259, 0.268),
            clip_dedup=along(0.156, 0.223, 0.255, 0.272, 0.273),
        ),
        along(0.131, 0.190, 0.229, 0.252, 0.262),
        0.273,
        **options,  # type: ignore[arg-type]
    )


def distinct(**options: object) -> Curve:
    """No duplicates: every sample counts, and no choice is better than another."""
    return make_curve(
        dict(
            uniform_stride=along(0.31, 0.37, 0.412, 0.462, 0.482),
            clip_dedup=along(0.31, 0.37, 0.412, 0.462, 0.482),
        ),
        along(0.31, 0.37, 0.412, 0.462, 0.482),
        0.51,
        **options,  # type: ignore[arg-type]
    )


def plain_redundancy(**options: object) -> Curve:
    """Much too many samples, yet whichever go does not matter."""
    flat = along(0.44, 0.481, 0.5, 0.5, 0.5)
    return make_curve(
        dict(clip_dedup=flat),
        flat,
        0.5,
        spread=0.002,
        **options,  # type: ignore[arg-type]
    )
