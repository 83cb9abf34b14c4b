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
        half = embed_dims // 2
        self.row_embed = nn.Embedding(bev_h, half)
        self.col_embed = nn.Embedding(bev_w, half)

    def forward(self) -> Tensor:
        """(H * W, C), the column's half first."""
        rows = self.row_embed.weight
        columns = self.col_embed.weight
        shape = (len(rows), len(columns), -1)
        column_half = columns[None].expand(shape)
        row_half = rows[:, None].expand(shape)
        cells = torch.cat([column_half, row_half], -1)
        return cells.flatten(0, 1)


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
        self.pc_range = list(pc_range)
        self.bev_shape = bev_h, bev_w
        self.num_classes = num_classes
        self.post_center_range = list(post_center_range)
        self.max_num = max_num
        self.score_threshold = score_threshold
        self.cls_weight = cls_weight
        self.box_weight = box_weight
        weights = torch.tensor(code_weights, dtype=torch.float32)
        self.code_weights = nn.Parameter(weights, requires_grad=False)
        self.transformer = MODELS.build({**transformer, 'pc_range': self.pc_range})
        dims = self.transformer.embed_dims
        self.positional_encoding = LearnedPositionalEncoding(bev_h, bev_w, dims)
        self.bev_embedding = nn.Embedding(bev_h * bev_w, dims)
        self.query_embedding = nn.Embedding(num_query, 2 * dims)
        layers = len(self.transformer.decoder.layers)
        cls_branch = _classification_branch(dims, num_classes)
        self.cls_branches = _copies(cls_branch, layers)
        reg_branch = _regression_branch(dims, len(code_weights))
        self.reg_branches = _copies(reg_branch, layers)

    def init_weights(self) -> None:
        """The transformer's own start; the classifiers begin at a probability of 1 %."""
        self.transformer.init_weights()
        rare = bias_init_with_prob(0.01)
        for branch in self.cls_branches:
            nn.init.constant_(branch[-1].bias, rare)

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
        needs_can_bus = self.transformer.use_can_bus or prev_bev is not None
        cameras = features[0].shape[1]
        device = features[0].device
        matrices = np.stack([_lidar2img(meta, cameras) for meta in metas])
        can_bus = np.stack([_can_bus(meta, needs_can_bus) for meta in metas])

        return self.transformer.encode(
            features,
            self.bev_embedding.weight,
            self.positional_encoding(),
            self.bev_shape,
            torch.as_tensor(matrices, dtype=torch.float32, device=device),
            image_size,
            can_bus,
            prev_bev,
            has_history,
        )

    def decode(self, bev: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, Q, classes) and codes (B, Q, 8 or 10) in metres of each layer, float32."""
        states, codes = self.transformer.decode(
            bev,
            self.query_embedding.weight,
            self.bev_shape,
            self.reg_branches,
        )
        logits = []
        for branch, state in zip(self.cls_branches, states, strict=True):
            logits.append(branch(state).float())
        in_metres = [scale_centres(code, self.pc_range) for code in codes]

        return logits, in_metres

    def loss(
        self,
        logits: Sequence[Tensor],
        codes: Sequence[Tensor],
        ground_truths: Sequence[InstanceData],
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_bbox`` of every layer, all but the last prefixed ``d<layer>.``.

        Args:
            logits: per layer (B, Q, classes).
            codes: per layer (B, Q, D).
            ground_truths: B times ``bboxes_3d`` (LiDARInstance3DBoxes) and ``labels_3d``.

        Raises:
            UserError: the boxes do not have what the head predicts.
        """
        device = logits[0].device
        targets = []
        labels = []
        for truth in ground_truths:
            targets.append(self._encode(truth).to(device))
            labels.append(truth.labels_3d.long().to(device))

        losses = {}
        last = len(logits) - 1
        for layer, layer_logits in enumerate(logits):
            cls, box = self._layer_loss(layer_logits, codes[layer], labels, targets)
            prefix = '' if layer == last else f'd{layer}.'
            losses[f'{prefix}loss_cls'] = cls
            losses[f'{prefix}loss_bbox'] = box

        return losses

    def _encode(self, truth: InstanceData) -> Tensor:
        size = len(self.code_weights)
        boxes = truth.bboxes_3d.tensor.float()
        if len(boxes) == 0:
            return boxes.new_zeros(0, size)
        codes = encode_boxes(boxes)
        if codes.shape[1] != size:
            raise UserError(
                f'BEVFormerHead has {size} code_weights, but the ground truth has boxes of '
                f'{boxes.shape[1]} numbers: give 10 weights for boxes with velocity, 8 for others'
            )

        return codes

    def _layer_loss(
        self, logits: Tensor, codes: Tensor, labels: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        one_hot = torch.zeros_like(logits)
        box = codes.new_zeros(())
        matched = 0
        for i, target in enumerate(targets):
            queries, truths = match(
                logits[i],
                codes[i],
                labels[i],
                target,
                self.cls_weight,
                self.box_weight,
            )
            classes = labels[i][truths]
            one_hot[i, queries, classes] = 1
            found = codes[i, queries]
            box = box + box_loss(found, target[truths], self.code_weights)
            matched += len(queries)

        positives = reduce_mean(logits.new_tensor(matched))
        positives = positives.clamp(min=1)
        cls = self.cls_weight * focal_loss(logits, one_hot)
        cls = cls / positives
        box = self.box_weight * box
        box = box / positives

        return torch.nan_to_num(cls), torch.nan_to_num(box)

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
                one_logits,
                one_codes,
                self.post_center_range,
                self.max_num,
                self.score_threshold,
            )
            found = InstanceData(
                bboxes_3d=box_type(boxes, box_dim=boxes.shape[-1]),
                scores_3d=scores,
                labels_3d=labels,
            )
            results.append(found)

        return results


def _classification_branch(dims: int, num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Linear(dims, dims),
            nn.LayerNorm(dims),
            nn.ReLU(inplace=True),
        ]
    layers.append(nn.Linear(dims, num_classes))
    return nn.Sequential(*layers)


def _regression_branch(dims: int, code_size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Linear(dims, dims), nn.ReLU()]
    layers.append(nn.Linear(dims, code_size))
    return nn.Sequential(*layers)


def _copies(branch: nn.Module, count: int) -> nn.ModuleList:
    copies = nn.ModuleList()
    for _ in range(count):
        copies.append(copy.deepcopy(branch))
    return copies


def _lidar2img(meta: Mapping[str, Any], cameras: int) -> np.ndarray:
    matrices = np.zeros(0)
    if 'lidar2img' in meta:
        matrices = np.asarray(meta['lidar2img'], dtype=np.float64)
    expected = (cameras, 4, 4)
    if matrices.shape != expected:
        raise UserError(
            f"frame {frame_name(meta)}: 'lidar2img' has shape {matrices.shape}, expected "
            f'{expected} for {cameras} images; LoadMultiViewImages makes it, '
            "Pack3DDetInputs' meta_keys must name it"
        )

    return matrices


def _can_bus(meta: Mapping[str, Any], needed: bool) -> np.ndarray:
    if 'can_bus' in meta:
        signals = np.asarray(meta['can_bus'], dtype=np.float64)
    elif needed:
        raise UserError(NO_CAN_BUS.format(frame_name(meta)))
    else:
        signals = np.zeros(CAN_BUS_SIZE)

    expected = (CAN_BUS_SIZE,)
    if signals.shape != expected:
        raise UserError(
            f"frame {frame_name(meta)}: 'can_bus' has shape {signals.shape}, expected {expected}"
        )

    return signals
