"""Steps of pipelines: loading as the training does, and naming the picture that others fail on."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import TRANSFORMS

from ..base.errors import UserError
from ..base.words import one_line
from .reader import Reader, read_file, read_pixels


@TRANSFORMS.register_module()
class LoadAsTraining(BaseTransform):
    """Reads ``img_path`` as another training does, for a detector that takes 3 channels of 8 bits.

    Sets ``img``, (H, W, 3) uint8 in BGR, ``img_shape`` and ``ori_shape``.

    Args:
        color_type: see ``Reader``.
        backend: likewise.
    """

    def __init__(self, color_type: str, backend: str) -> None:
        self.reader = Reader(color_type, backend)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises: BadImage: the training cannot read the image."""
        pixels = read_pixels(read_file(results['img_path']), self.reader)
        results['img'] = pixels
        results['img_shape'] = results['ori_shape'] = pixels.shape[:2]
        return results


class BadSampleError(Exception):
    """A pipeline failed on a sample; the message, of one line, names its picture."""


@TRANSFORMS.register_module()
class NamedPipeline(Compose):
    """Runs the steps of a pipeline; what one of them raises becomes a ``BadSampleError``."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Raises: BadSampleError: a step failed."""
        picture = _picture(results)
        try:
            return super().transform(results)
        except MemoryError:
            raise
        except Exception as error:
            words = f'{type(error).__name__}: {one_line(error, 300)}'
            raise BadSampleError(f'{picture} ({words})') from error


def name_failing_pictures(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a dataset's dict whose inner pipelines are ``NamedPipeline``."""
    named = dict(copy.deepcopy(dataset))
    if 'datasets' in named:
        named['datasets'] = [name_failing_pictures(inner) for inner in named['datasets']]
    elif 'dataset' in named:
        named['dataset'] = name_failing_pictures(named['dataset'])
    elif named.get('pipeline'):
        named['pipeline'] = [dict(type='NamedPipeline', transforms=named['pipeline'])]
    return named


@contextlib.contextmanager
def failing_pictures_named() -> Iterator[None]:
    """Turns a ``BadSampleError``, also out of a worker process, into a UserError of one line."""
    try:
        yield
    except BadSampleError as error:
        # A worker's has its traceback in the message, and its own message at the end.
        lines = str(error).strip().splitlines()
        words = lines[-1].rpartition(f'{BadSampleError.__name__}: ')[2]
        raise UserError(
            f"the proxy's pipeline fails on {words}: repair this picture or take it out of the "
            'annotation file, then go on with --resume'
        ) from error


def _picture(results: Mapping[str, Any]) -> str:
    """What to call a sample: the paths of its pictures, or its id."""
    cameras = results.get('images')
    if isinstance(cameras, Mapping):
        known = [camera for camera in cameras.values() if isinstance(camera, Mapping)]
        first = next((camera['img_path'] for camera in known if camera.get('img_path')), 'pictures')
        return f'the frame of {first}'

    for key in ('img_path', 'filename', 'img_id', 'sample_idx', 'token'):
        if results.get(key) is not None:
            return str(results[key])

    return 'a sample without a name'
