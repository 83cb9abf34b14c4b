"""The steps of a multi-camera pipeline that mmdet3d lacks.

``results['img']`` is a list of (H, W, 3) float32 BGR images, one per camera, and
``results['lidar2img']`` a list of 4 x 4 float64 matrices from LiDAR coordinates to pixels of those
images. Normalising and padding is left to ``Det3DDataPreprocessor``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from mmengine.registry import TRANSFORMS

from ...base.errors import UserError
from .infos import frame_name

_INTRINSIC = ((3, 3), (3, 4), (4, 4))
_EXTRINSIC = ((4, 4),)


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Reads a frame's images and calibration from ``results['images']`` of mmdet3d's infos.

    Adds ``img``, ``img_path``, ``lidar2img``, ``img_shape`` and ``ori_shape``. Smaller images are
    padded right and bottom to the largest.

    Args:
        backend_args: mmengine's file backend.
    """

    def __init__(self, backend_args: dict[str, Any] | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads one frame.

        Raises:
            UserError: an image is missing or no image, or a calibration matrix has the wrong shape.
        """
        cameras = results['images']
        frame = frame_name(results)
        paths = [camera['img_path'] for camera in cameras.values()]
        images = [self._read(path) for path in paths]
        sizes = [image.shape[:2] for image in images]
        height, width = np.max(sizes, axis=0)
        shape = int(height), int(width)
        padded = []
        for image in images:
            padded.append(_pad(image, shape).astype(np.float32))
        matrices = []
        for name, camera in cameras.items():
            matrices.append(lidar2img(camera, f'{frame}, {name}'))
        results['img'] = padded
        results['img_path'] = paths
        results['lidar2img'] = matrices
        results['img_shape'] = shape
        results['ori_shape'] = shape

        return results

    def _read(self, path: str) -> np.ndarray:
        try:
            content = get(path, backend_args=self.backend_args)
            image = mmcv.imfrombytes(content, flag='color')
        except OSError as error:
            raise UserError(f'image {path}: {error.strerror or error}') from error
        if image is None:
            raise UserError(f'image {path}: not an image, or damaged')
        return image


def lidar2img(camera: Mapping[str, Any], name: str) -> np.ndarray:
    """The 4 x 4 float64 matrix from LiDAR coordinates to (u * depth, v * depth, depth, 1).

    Args:
        camera: ``cam2img`` (3 x 3, 3 x 4 or 4 x 4) and ``lidar2cam`` (4 x 4).
        name: for the message.

    Raises:
        UserError: a matrix is missing or has another shape.
    """
    intrinsic = _matrix(camera, 'cam2img', _INTRINSIC, name)
    extrinsic = _matrix(camera, 'lidar2cam', _EXTRINSIC, name)
    rows, columns = intrinsic.shape
    square = np.eye(4)
    square[:rows, :columns] = intrinsic
    return square @ extrinsic


def _matrix(
    camera: Mapping[str, Any], key: str, shapes: Sequence[tuple[int, int]], name: str
) -> np.ndarray:
    if key not in camera:
        raise UserError(f"frame {name}: '{key}' is missing from the infos")
    matrix = np.asarray(camera[key], dtype=np.float64)
    if matrix.shape not in shapes:
        expected = ' or '.join(str(shape) for shape in shapes)
        raise UserError(f"frame {name}: '{key}' has shape {matrix.shape}, expected {expected}")
    return matrix


def _pad(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = image.shape[:2]
    wanted_height, wanted_width = shape
    below = wanted_height - height
    right = wanted_width - width
    if below == 0 and right == 0:
        return image
    return np.pad(image, ((0, below), (0, right), (0, 0)))


@TRANSFORMS.register_module()
class MultiViewScale(BaseTransform):
    """Resizes all images of a frame by one factor and adapts ``lidar2img``.

    Args:
        scales: factors, of which one is drawn per frame.
    """

    def __init__(self, scales: Sequence[float]) -> None:
        self.scales = list(scales)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Sizes are rounded down."""
        images = results['img']
        matrices = results['lidar2img']
        drawn = np.random.randint(len(self.scales))
        scale = self.scales[drawn]
        height, width = images[0].shape[:2]
        height = int(height * scale)
        width = int(width * scale)
        scaled = []
        for image in images:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            scaled.append(image)

        factors = np.diag([scale, scale, 1.0, 1.0])
        results['img'] = scaled
        results['lidar2img'] = [factors @ matrix for matrix in matrices]
        results['img_shape'] = (height, width)
        results['scale_factor'] = scale

        return results


@TRANSFORMS.register_module()
class MultiViewPhotometricDistortion(BaseTransform):
    """Random brightness, contrast, saturation, hue and channel order of each camera, unclipped."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Draws from numpy's global state, which mmengine seeds in every worker."""
        images = results['img']
        results['img'] = [photometric_distortion(image, np.random) for image in images]
        return results


def photometric_distortion(image: np.ndarray, rng: Any) -> np.ndarray:
    """One image's distortion (SSD, arXiv 1512.02325, section 2.2), each part in half of the cases.

    Args:
        image: (H, W, 3) float32 BGR in 0..255.
        rng: a ``numpy.random.RandomState``, or the ``numpy.random`` module.

    Returns:
        The same shape and dtype.
    """
    if rng.randint(2):
        brightness = rng.uniform(-32, 32)
        image = image + np.float32(brightness)

    contrast_first = rng.randint(2)
    if contrast_first and rng.randint(2):
        image = _scale_contrast(image, rng)
    hsv: Any = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv = np.asarray(hsv, dtype=np.float32)
    if rng.randint(2):
        _scale_saturation(hsv, rng)
    if rng.randint(2):
        _turn_hue(hsv, rng)
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not contrast_first and rng.randint(2):
        image = _scale_contrast(image, rng)
    if rng.randint(2):
        channels = rng.permutation(3)
        image = np.ascontiguousarray(image[..., channels])

    return image


def _scale_contrast(image: np.ndarray, rng: Any) -> np.ndarray:
    contrast = rng.uniform(0.5, 1.5)
    contrast = np.float32(contrast)
    return image * contrast


def _scale_saturation(hsv: np.ndarray, rng: Any) -> None:
    """Multiplies the saturations, in place."""
    saturation = hsv[..., 1]
    factor = rng.uniform(0.5, 1.5)
    saturation *= np.float32(factor)


def _turn_hue(hsv: np.ndarray, rng: Any) -> None:
    """Adds to the hues, which are degrees, in place."""
    hue = hsv[..., 0]
    angle = rng.uniform(-18, 18)
    hue += np.float32(angle)
    hue[hue > 360] -= 360
    hue[hue < 0] += 360
