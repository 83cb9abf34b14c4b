"""BEVFormer as an mmdet3d detector: features, queues of frames in training, history in tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import MODELS
from torch import Tensor

from .geometry import relative_can_bus
from .grid_mask import apply_grid_mask


@dataclass(frozen=True)
class History:
    """What the detector remembers of the last frame of a scene.

    Attributes:
        scene: the scene's token.
        bev: (1, H * W, C).
        can_bus: (18,), absolute.
    """

    scene: str
    bev: Tensor
    can_bus: np.ndarray


@MODELS.register_module()
class BEVFormer(Base3DDetector):
    """BEVFormer (arXiv 2203.17270), and with ``temporal=False`` BEVFormer-S for single frames.

    Images come as (B, frames * cameras, 3, H, W), frames in order of time. With several frames per
    sample, the data sample's meta data hold ``queue``, one dict per frame with ``lidar2img``,
    ``can_bus`` (changes since the frame before) and ``prev_bev_exists``; :class:`BEVFormerDataset`
    makes them. Single frames have ``lidar2img``, ``can_bus`` (absolute) and ``scene_token`` in the
    meta data itself.

    At test time a frame's history is the BEV of the frame before it in the same scene, so frames
    must come in order: on several GPUs with :class:`ContiguousSampler`.

    Args:
        img_backbone: config of the backbone.
        img_neck: config of the neck.
        pts_bbox_head: config of the head.
        temporal: whether frames look at their history.
        use_grid_mask: whether training images are partly masked.
        data_preprocessor: config of ``Det3DDataPreprocessor``.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        img_backbone: dict[str, Any],
        img_neck: dict[str, Any],
        pts_bbox_head: dict[str, Any],
        temporal: bool = True,
        use_grid_mask: bool = True,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.pts_bbox_head = MODELS.build(pts_bbox_head)
        self.temporal = temporal
        self.use_grid_mask = use_grid_mask
        self.history: History | None = None

    def train(self, mode: bool = True) -> 'BEVFormer':
        """Also forgets the history: every evaluation starts anew."""
        self.history = None
        return super().train(mode)

    def extract_feat(self, images: Tensor) -> list[Tensor]:
        """(B, cameras, 3, H, W) to features (B, cameras, C, h, w) per level."""
        batch_and_cameras = images.shape[:2]
        features = self.img_backbone(images.flatten(0, 1))
        levels = self.img_neck(features)
        return [level.unflatten(0, batch_and_cameras) for level in levels]

    def loss(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """The losses of the last frame of each sample.

        Args:
            batch_inputs_dict: ``imgs`` (B, frames * cameras, 3, H, W).
            batch_data_samples: B samples with ``gt_instances_3d``.
        """
        frames = _frames(batch_data_samples)
        images = batch_inputs_dict['imgs']
        images = images.unflatten(1, (len(frames), -1))
        prev_bev = None
        if len(frames) > 1 and self.temporal:
            prev_bev = self._encode_history(images[:, :-1], frames[:-1])
        current = images[:, -1]
        if self.training and self.use_grid_mask:
            # mmengine seeds numpy's global state per process; nothing here may carry a generator of
            # its own.
            current = apply_grid_mask(current, np.random)

        bev = self._encode(
            self.extract_feat(current),
            frames[-1],
            current.shape[-2:],
            prev_bev,
        )
        head = self.pts_bbox_head
        logits, codes = head.decode(bev)
        truths = [sample.gt_instances_3d for sample in batch_data_samples]
        losses: dict[str, Tensor] = head.loss(logits, codes, truths)

        return losses

    @torch.no_grad()
    def _encode_history(
        self, images: Tensor, frames: Sequence[Sequence[Mapping[str, Any]]]
    ) -> Tensor | None:
        """The BEV of the last of these frames, without dropout and gradients.

        Args:
            images: (B, frames, cameras, 3, H, W).
            frames: meta data per frame and sample.
        """
        training = self.training
        self.eval()
        batch_and_frames = images.shape[:2]
        image_size = images.shape[-2:]
        levels = self.extract_feat(images.flatten(0, 1))
        levels = [level.unflatten(0, batch_and_frames) for level in levels]
        bev: Tensor | None = None
        for index, metas in enumerate(frames):
            features = [level[:, index] for level in levels]
            bev = self._encode(features, metas, image_size, bev)

        self.train(training)

        return bev

    def _encode(
        self,
        features: Sequence[Tensor],
        metas: Sequence[Mapping[str, Any]],
        image_size: Sequence[int],
        prev_bev: Tensor | None,
    ) -> Tensor:
        known = [bool(meta.get('prev_bev_exists', False)) for meta in metas]
        if not any(known):
            prev_bev = None
        height, width = image_size
        bev: Tensor = self.pts_bbox_head.encode(
            features,
            metas,
            (height, width),
            prev_bev,
            known,
        )

        return bev

    def _forward(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: Sequence[Det3DDataSample]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """BEV, and logits and codes per decoder layer, of single frames without history."""
        images = batch_inputs_dict['imgs']
        features = self.extract_feat(images)
        metas = _first_frames(batch_data_samples)
        bev = self._encode(features, metas, images.shape[-2:], None)
        logits, codes = self.pts_bbox_head.decode(bev)
        return bev, logits, codes

    def predict(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: Sequence[Det3DDataSample]
    ) -> Sequence[Det3DDataSample]:
        """Detections as ``pred_instances_3d``; frames of a scene in one batch follow each other.

        Args:
            batch_inputs_dict: ``imgs`` (B, cameras, 3, H, W).
            batch_data_samples: B samples.
        """
        head = self.pts_bbox_head
        images = batch_inputs_dict['imgs']
        image_size = images.shape[-2:]
        features = self.extract_feat(images)
        if self.temporal:
            bev = self._encode_in_order(features, batch_data_samples, image_size)
        else:
            metas = _first_frames(batch_data_samples)
            bev = self._encode(features, metas, image_size, None)

        logits, codes = head.decode(bev)
        box_types = [sample.metainfo['box_type_3d'] for sample in batch_data_samples]
        found = head.predict(logits[-1], codes[-1], box_types)

        return self.add_pred_to_datasample(batch_data_samples, found)

    def _encode_in_order(
        self,
        features: Sequence[Tensor],
        samples: Sequence[Det3DDataSample],
        image_size: Sequence[int],
    ) -> Tensor:
        """The BEVs of frames that follow each other in time, (B, H * W, C)."""
        bevs = []
        for i, sample in enumerate(samples):
            frame = [level[i : i + 1] for level in features]
            bevs.append(self._encode_next(frame, sample.metainfo, image_size))
        return torch.cat(bevs)

    def _encode_next(
        self, features: Sequence[Tensor], meta: Mapping[str, Any], image_size: Sequence[int]
    ) -> Tensor:
        """The BEV of one frame after the remembered one, features (1, cameras, C, h, w)."""
        history = self.history
        if history is not None and history.scene != meta.get('scene_token'):
            history = None
        bev = self._encode(
            features,
            [_relative(meta, history)],
            image_size,
            None if history is None else history.bev,
        )
        if 'scene_token' in meta and 'can_bus' in meta:
            self.history = History(
                scene=meta['scene_token'],
                bev=bev.detach(),
                can_bus=np.array(meta['can_bus'], dtype=np.float64),
            )

        return bev


def _frames(samples: Sequence[Det3DDataSample]) -> list[list[Mapping[str, Any]]]:
    """Meta data per frame and sample."""
    queues = []
    for sample in samples:
        meta = sample.metainfo
        queue = meta.get('queue') or [_relative(meta, None)]
        queues.append(queue)
    return [list(frame) for frame in zip(*queues, strict=True)]


def _first_frames(samples: Sequence[Det3DDataSample]) -> list[Mapping[str, Any]]:
    return [_relative(sample.metainfo, None) for sample in samples]


def _relative(meta: Mapping[str, Any], history: History | None) -> Mapping[str, Any]:
    """Meta data with the CAN bus signals as changes since the remembered frame."""
    if 'can_bus' not in meta:
        return meta
    before = None if history is None else history.can_bus
    return {
        **meta,
        'can_bus': relative_can_bus(meta['can_bus'], before),
        'prev_bev_exists': history is not None,
    }
