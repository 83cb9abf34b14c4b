"""nuScenes frames with their history: dataset, sampler and metric for mmengine."""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Sized
from operator import itemgetter
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.evaluation.metrics import NuScenesMetric
from mmdet3d.models.data_preprocessors.utils import multiview_img_stack_batch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS, METRICS
from torch.utils.data import Sampler

from ...annotations.infos import check_pictures, info_records, naming_frame
from ...annotations.pickles import load_pickle
from ...base.errors import UserError
from .geometry import relative_can_bus
from .infos import frame_name, temporal_records


@DATASETS.register_module()
class BEVFormerDataset(NuScenesDataset):
    """nuScenes from BEVFormer's temporal infos, or from mmdet3d's for single frames.

    With ``queue_length`` q > 1 a training sample is a queue: the frame itself and q - 1 earlier
    ones, drawn from the q before it. ``img`` is (q * cameras, 3, H, W), the ground truth is the
    last frame's, and the data sample's meta data hold ``queue``: per frame ``lidar2img``,
    ``can_bus`` (changes since the frame before), ``prev_bev_exists`` (False where a scene begins),
    ``token``. In test mode frames come alone, in order of time, with ``scene_token`` and
    ``can_bus`` (absolute). Only the last frame of a queue must hold objects (``filter_empty_gt``).

    Args:
        queue_length: frames per training sample.
        data_prefix: as NuScenesDataset's, for mmdet3d's infos. Image paths of temporal infos are
            taken from ``samples/`` on, under ``data_root``.
        use_valid_flag: whether objects without any LiDAR or radar point are left out.
        modality: as NuScenesDataset's.
        trust_pickles: whether the infos may hold more than plain data, which can run code.
        kwargs: as NuScenesDataset's.

    Attributes:
        is_temporal: whether its annotation file, once loaded, holds temporal infos.
    """

    is_temporal = False

    def __init__(
        self,
        *args: Any,
        queue_length: int = 1,
        data_prefix: Mapping[str, str] | None = None,
        use_valid_flag: bool = True,
        modality: Mapping[str, bool] | None = None,
        trust_pickles: bool = False,
        **kwargs: Any,
    ) -> None:
        self.queue_length = queue_length
        self.trust_pickles = trust_pickles
        super().__init__(
            *args,
            data_prefix=dict(data_prefix or {'img': ''}),
            use_valid_flag=use_valid_flag,
            modality=dict(modality or {'use_camera': True}),
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Frames of temporal infos in order of time, others in the file's order.

        Raises:
            UserError: the infos are of the wrong generation or incomplete.
        """
        annotations = load_pickle(self.ann_file, self.trust_pickles)
        if not isinstance(annotations, Mapping):
            raise UserError(
                f'{self.ann_file} holds a {type(annotations).__name__} instead of a dict with infos'
            )

        if 'data_list' in annotations and self.queue_length == 1:
            records = self._load_infos(annotations)
        else:
            records = self._load_temporal_infos(annotations)

        return [self._parse(record) for record in records]

    def _load_infos(self, annotations: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records of mmdet3d's infos."""
        records = info_records(annotations, self.ann_file)
        check_pictures(records, self.ann_file)
        metainfo = _header(annotations, 'metainfo', self.ann_file)
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        return records

    def _load_temporal_infos(self, annotations: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records of temporal infos in order of time."""
        records = temporal_records(
            annotations,
            self.METAINFO['classes'],
            self.ann_file,
            with_can_bus=self.queue_length > 1,
        )
        self.is_temporal = True
        metadata = _header(annotations, 'metadata', self.ann_file)
        self._metainfo['version'] = metadata.get('version', self._metainfo['version'])
        self.data_prefix = {'img': self.data_root or ''}
        records.sort(key=itemgetter('timestamp'))

        return records

    def _parse(self, record: dict[str, Any]) -> dict[str, Any]:
        name = f'{self.ann_file}, frame {frame_name(record)}'
        with naming_frame(name):
            parsed: dict[str, Any] = self.parse_data_info(record)
            return parsed

    def prepare_data(self, index: int) -> dict[str, Any] | None:
        """One sample; None if it holds no object."""
        frame = self._frame(index)
        sample = frame['data_samples']
        if self.test_mode:
            return frame
        labels = sample.gt_instances_3d.labels_3d
        if self.filter_empty_gt and len(labels) == 0:
            return None
        if self.queue_length == 1:
            return frame
        frames = [self._frame(i) for i in draw_history(index, self.queue_length)]
        frames.append(frame)
        images = [one['inputs']['img'] for one in frames]
        metas = [one['data_samples'].metainfo for one in frames]
        stacked = multiview_img_stack_batch(images)
        frame['inputs']['img'] = stacked.flatten(0, 1)
        sample.set_metainfo({'queue': queue_metas(metas)})

        return frame

    def _frame(self, index: int) -> dict[str, Any]:
        info = self.get_data_info(index)
        known = {}
        for key in ('token', 'scene_token', 'can_bus'):
            if key in info:
                known[key] = info[key]

        frame: dict[str, Any] = self.pipeline(
            {
                **info,
                'box_type_3d': self.box_type_3d,
                'box_mode_3d': self.box_mode_3d,
            }
        )
        frame['data_samples'].set_metainfo(known)

        return frame


def _header(annotations: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    """What the infos say of the whole file; empty if they say nothing."""
    header = annotations.get(key) or {}
    if not isinstance(header, Mapping):
        raise UserError(
            f"{path}: '{key}' is a {type(header).__name__} instead of a dict, such as "
            "dict(version='v1.0-trainval'): correct it in the file"
        )
    return header


def draw_history(index: int, queue_length: int) -> list[int]:
    """Draws q - 1 of the q frames before ``index``, in order; frame 0 stands in for others."""
    candidates = list(range(index - queue_length, index))
    # Python's global generator, which mmengine seeds in every worker.
    random.shuffle(candidates)
    drawn = sorted(candidates[1:])
    return [max(i, 0) for i in drawn]


def queue_metas(metas: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the detector needs of each frame of a queue; metas hold absolute ``can_bus`` signals."""
    queue = []
    before: Mapping[str, Any] | None = None
    for meta in metas:
        if before is not None and before['scene_token'] != meta['scene_token']:
            before = None
        signals = relative_can_bus(meta['can_bus'], before['can_bus'] if before else None)
        frame = dict(
            token=meta['token'],
            lidar2img=meta['lidar2img'],
            can_bus=signals,
            prev_bev_exists=before is not None,
        )
        queue.append(frame)
        before = meta

    return queue


@DATA_SAMPLERS.register_module()
class ContiguousSampler(Sampler):
    """Gives each process one block of consecutive samples: it sees a frame's predecessor as well.

    Args:
        dataset: the dataset.
        seed: not used; mmengine gives it to every sampler.
    """

    def __init__(self, dataset: Sized, seed: int | None = None) -> None:
        rank, world = get_dist_info()
        blocks = np.array_split(np.arange(len(dataset)), world)
        self.indices = blocks[rank].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@METRICS.register_module()
class BEVFormerNuScenesMetric(NuScenesMetric):
    """NuScenesMetric that also reads temporal infos, and finds a frame by its token.

    Args:
        trust_pickles: as BEVFormerDataset's.
        kwargs: as NuScenesMetric's.
    """

    ann_file: str

    def __init__(self, *args: Any, trust_pickles: bool = False, **kwargs: Any) -> None:
        self.trust_pickles = trust_pickles
        super().__init__(*args, **kwargs)

    def process(
        self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Any]]
    ) -> None:
        """Data samples need ``token`` in their meta data."""
        super().process(data_batch, data_samples)
        results = self.results[-len(data_samples) :]
        for result, sample in zip(results, data_samples, strict=True):
            result['sample_idx'] = sample['token']

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The official devkit's detection metrics."""
        original = self.ann_file
        records = self._records()
        position = {record['token']: index for index, record in enumerate(records)}
        by_position = []
        for result in results:
            token = result['sample_idx']
            if token not in position:
                raise UserError(
                    f'{original}: no frame {token}; the metric needs the annotation file of the '
                    'dataset that is evaluated'
                )

            by_position.append({**result, 'sample_idx': position[token]})

        with tempfile.TemporaryDirectory() as folder:
            self.ann_file = str(Path(folder) / 'infos.pkl')
            mmengine.dump({'data_list': records}, self.ann_file)
            try:
                return super().compute_metrics(by_position)
            finally:
                self.ann_file = original

    def _records(self) -> list[dict[str, Any]]:
        """The frames of the annotation file."""
        annotations = load_pickle(self.ann_file, self.trust_pickles)
        records: list[dict[str, Any]] | None = annotations.get('data_list')
        if records:
            return records
        return temporal_records(annotations, [], self.ann_file, with_can_bus=False)
