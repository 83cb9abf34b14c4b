"""BEVFormer's head: queries and branches around the transformer, the loss, and detections."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...base.errors import UserError
from .coder import encode_boxes, scale_centres, select_boxes
from .infos import HOW_TO_MAKE, frame_name
from .losses import box_loss, focal_loss, match
from .transformer import CAN_BUS_SIZE

NO_CAN_BUS = (
    "frame {}: no 'can_bus'; BEVFormer needs nuscenes_infos_temporal_*.pkl, "
    + HOW_TO_MAKE
    + ', read by BEVFormerDataset; BEVFormer-S does without'
)


class LearnedPositionalEncoding(nn.Module):
    """One learned vector per column and one per row, each of half the channels."""

    def __init__(self, bev_h: int, bev_w: int, embed_dims: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(bev_h, embed_dims // 2)
        self.col_embed = nn.Embedding(bev_w, embed_dims // 2)

    def forward(self) -> Tensor:
        """(H * W, C), the column's half first."""
        rows, columns = self.row_embed.weight, self.col_embed.weight
        shape = (len(rows), len(columns), -1)
        return torch.cat([columns[None].expand(shape), rows[:, None].expand(shape)], -1).flatten(
            0, 1
        )


@MODELS.register_module()
class BEVFormerHead(BaseModule):
    """Turns camera features into a BEV, the BEV into boxes, boxes into losses or detections.

    Args:
        num_classes: classes.
        transformer: config of the transformer; ``pc_range`` is handed on to it.
        pc_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres.
        post_center_range: like ``pc_range``; detections with centres outside are dropped.
        bev_h: BEV cells along y.
        bev_w: BEV cells along x.
        num_query: object queries.
        code_weights: weights of the box code's entries in the L1 loss: 10 with velocity, 8 without.
        max_num: detections per sample.
        score_threshold: see :func:`select_boxes`.
        cls_weight: of the focal loss and the focal matching cost.
        box_weight: of the L1 loss and the L1 matching cost.
    """

    def __init__(
        self,
        num_classes: int,
        transformer: dict[str, Any],
        pc_range: Sequence[float],
        post_center_range: Sequence[float],
        bev_h: int = 200,
        bev_w: int = 200,
        num_query: int = 900,
        code_weights: Sequence[float] = (*[1.0] * 8, 0.2, 0.2),
        max_num: int = 300,
        score_threshold: float | None = None,
        cls_weight: float = 2.0,
        box_weight: float = 0.25,
    ) -> None:
        super().__init__()
        self.pc_range, self.bev_shape, self.num_classes = (
            list(pc_range),
            (bev_h, bev_w),
            num_classes,
        )
        self.post_center_range, self.max_num, self.score_threshold = (
            list(post_center_range),
            max_num,
            score_threshold,
        )
        self.cls_weight, self.box_weight = cls_weight, box_weight
        self.code_weights = nn.Parameter(
            torch.tensor(code_weights, dtype=torch.float32), requires_grad=False
        )
        self.transformer = MODELS.build({**transformer, 'pc_range': self.pc_range})
        dims = self.transformer.embed_dims
        self.positional_encoding = LearnedPositionalEncoding(bev_h, bev_w, dims)
        self.bev_embedding = nn.Embedding(bev_h * bev_w, dims)
        self.query_embedding = nn.Embedding(num_query, 2 * dims)
        layers = len(self.transformer.decoder.layers)
        self.cls_branches = _copies(_classification_branch(dims, num_classes), layers)
        self.reg_branches = _copies(_regression_branch(dims, len(code_weights)), layers)

    def init_weights(self) -> None:
        """The transformer's own start; the classifiers begin at a probability of 1 %."""
        self.transformer.init_weights()
        for branch in self.cls_branches:
            nn.init.constant_(branch[-1].bias, bias_init_with_prob(0.01))

    def encode(
        self,
        features: Sequence[Tensor],
        metas: Sequence[Mapping[str, Any]],
        image_size: tuple[int, int],
        prev_bev: Tensor | None = None,
        has_history: Sequence[bool] | None = None,
    ) -> Tensor:
        """One frame's BEV.

        Args:
            features: per level (B, cameras, C, h, w).
            metas: B frames' meta data: ``lidar2img`` (cameras, 4, 4) and, unless the transformer
                ignores it and there is no history, ``can_bus`` (18,) with [:3] and [-1] as changes
                since the previous frame.
            image_size: height and width in pixels of the images the features come from, padding
                included.
            prev_bev: (B, H * W, C).
            has_history: whose row of ``prev_bev`` counts; None for all.

        Returns:
            (B, H * W, C).
        """
        needed = self.transformer.use_can_bus or prev_bev is not None
        cameras, device = features[0].shape[1], features[0].device
        lidar2img = np.stack([_lidar2img(meta, cameras) for meta in metas])
        return self.transformer.encode(
            features,
            self.bev_embedding.weight,
            self.positional_encoding(),
            self.bev_shape,
            torch.as_tensor(lidar2img, dtype=torch.float32, device=device),
            image_size,
            np.stack([_can_bus(meta, needed) for meta in metas]),
            prev_bev,
            has_history,
        )

    def decode(self, bev: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Per decoder layer logits (B, Q, classes) and box codes (B, Q, 8 or 10) with centres in metres, float32."""
        states, codes = self.transformer.decode(
            bev, self.query_embedding.weight, self.bev_shape, self.reg_branches
        )
        logits = [
            branch(state).float() for branch, state in zip(self.cls_branches, states, strict=True)
        ]
        return logits, [scale_centres(code, self.pc_range) for code in codes]

    def loss(
        self,
        logits: Sequence[Tensor],
        codes: Sequence[Tensor],
        ground_truths: Sequence[InstanceData],
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_bbox`` of every decoder layer, all but the last with the prefix ``d<layer>.``.

        Args:
            logits: per layer (B, Q, classes).
            codes: per layer (B, Q, D).
            ground_truths: B times ``bboxes_3d`` (LiDARInstance3DBoxes) and ``labels_3d``.

        Raises:
            UserError: the boxes do not have what the head predicts.
        """
        targets = [self._encode(truth).to(logits[0].device) for truth in ground_truths]
        labels = [truth.labels_3d.long().to(logits[0].device) for truth in ground_truths]
        losses = {}
        for layer, (layer_logits, layer_codes) in enumerate(zip(logits, codes, strict=True)):
            prefix = '' if layer == len(logits) - 1 else f'd{layer}.'
            cls, box = self._layer_loss(layer_logits, layer_codes, labels, targets)
            losses[f'{prefix}loss_cls'], losses[f'{prefix}loss_bbox'] = cls, box
        return losses

    def _encode(self, truth: InstanceData) -> Tensor:
        boxes = truth.bboxes_3d.tensor.float()
        if len(boxes) == 0:
            return boxes.new_zeros(0, len(self.code_weights))
        codes = encode_boxes(boxes)
        if codes.shape[1] != len(self.code_weights):
            raise UserError(
                f'BEVFormerHead has {len(self.code_weights)} code_weights, but the ground truth '
                'has boxes '
                f'of {boxes.shape[1]} numbers: give 10 weights for boxes with velocity, 8 for '
                'others'
            )
        return codes

    def _layer_loss(
        self, logits: Tensor, codes: Tensor, labels: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        one_hot, box, matched = torch.zeros_like(logits), codes.new_zeros(()), 0
        for i, (label, target) in enumerate(zip(labels, targets, strict=True)):
            queries, truths = match(
                logits[i], codes[i], label, target, self.cls_weight, self.box_weight
            )
            one_hot[i, queries, label[truths]] = 1
            box = box + box_loss(codes[i, queries], target[truths], self.code_weights)
            matched += len(queries)
        positives = reduce_mean(logits.new_tensor(matched)).clamp(min=1)
        cls = self.cls_weight * focal_loss(logits, one_hot) / positives
        return torch.nan_to_num(cls), torch.nan_to_num(self.box_weight * box / positives)

    def predict(
        self, logits: Tensor, codes: Tensor, box_types: Sequence[type]
    ) -> list[InstanceData]:
        """Detections from the last decoder layer.

        Args:
            logits: (B, Q, classes).
            codes: (B, Q, D).
            box_types: B classes of boxes, LiDARInstance3DBoxes.

        Returns:
            B times ``bboxes_3d``, ``scores_3d`` and ``labels_3d``.
        """
        results = []
        for one_logits, one_codes, box_type in zip(logits, codes, box_types, strict=True):
            boxes, scores, labels = select_boxes(
                one_logits, one_codes, self.post_center_range, self.max_num, self.score_threshold
            )
            results.append(
                InstanceData(
                    bboxes_3d=box_type(boxes, box_dim=boxes.shape[-1]),
                    scores_3d=scores,
                    labels_3d=labels,
                )
            )
        return results


def _classification_branch(dims: int, num_classes: int) -> nn.Sequential:
    hidden = [
        layer
        for _ in range(2)
        for layer in (nn.Linear(dims, dims), nn.LayerNorm(dims), nn.ReLU(inplace=True))
    ]
    return nn.Sequential(*hidden, nn.Linear(dims, num_classes))


def _regression_branch(dims: int, code_size: int) -> nn.Sequential:
    hidden = [layer for _ in range(2) for layer in (nn.Linear(dims, dims), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(dims, code_size))


def _copies(branch: nn.Module, count: int) -> nn.ModuleList:
    return nn.ModuleList([copy.deepcopy(branch) for _ in range(count)])


def _lidar2img(meta: Mapping[str, Any], cameras: int) -> np.ndarray:
    matrices = (
        np.asarray(meta['lidar2img'], dtype=np.float64) if 'lidar2img' in meta else np.zeros(0)
    )
    if matrices.shape != (cameras, 4, 4):
        raise UserError(
            f"frame {frame_name(meta)}: 'lidar2img' has shape {matrices.shape}, expected "
            f'{(cameras, 4, 4)} for {cameras} images; LoadMultiViewImages makes it, '
            "Pack3DDetInputs' meta_keys must name it"
        )
    return matrices


def _can_bus(meta: Mapping[str, Any], needed: bool) -> np.ndarray:
    if 'can_bus' not in meta:
        if needed:
            raise UserError(NO_CAN_BUS.format(frame_name(meta)))
        return np.zeros(CAN_BUS_SIZE)
    signals = np.asarray(meta['can_bus'], dtype=np.float64)
    if signals.shape != (CAN_BUS_SIZE,):
        raise UserError(
            f"frame {frame_name(meta)}: 'can_bus' has shape {signals.shape}, expected "
            f'{(CAN_BUS_SIZE,)}'
        )
    return signals
