"""From camera features to a BEV: temporal self-attention and spatial cross-attention in layers."""

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from torch import Tensor, nn

from .attention import CameraView, Shapes, SpatialCrossAttention, TemporalSelfAttention, camera_view
from .geometry import bev_centres, pillar_points, project


class BEVFormerEncoderLayer(BaseModule):
    """One layer, normalised after each of its three parts."""

    def __init__(
        self, embed_dims: int, num_levels: int, ffn_channels: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            [
                TemporalSelfAttention(embed_dims, num_heads, dropout),
                SpatialCrossAttention(embed_dims, num_levels, num_heads, dropout=dropout),
            ]
        )
        self.ffns = nn.ModuleList([FFN(embed_dims, ffn_channels, ffn_drop=dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(embed_dims) for _ in range(3)])

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        values: Tensor,
        references: Tensor,
        bev_shape: tuple[int, int],
        features: Tensor,
        view: CameraView,
        shapes: Shapes,
    ) -> Tensor:
        """Args and shapes: as the two attentions'."""
        temporal, spatial = self.attentions
        after_temporal, after_spatial, after_ffn = self.norms
        query = temporal(query, query_pos, values, references, bev_shape)
        query = after_temporal(query)
        query = spatial(query, features, view, shapes)
        query = after_spatial(query)
        query = self.ffns[0](query)
        return after_ffn(query)


class BEVFormerEncoder(BaseModule):
    """The stack of layers.

    Args:
        num_layers: layers.
        embed_dims: C.
        num_levels: feature levels.
        pc_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres.
        num_points_in_pillar: Z, heights at which a BEV cell is projected into the images; divides
            8.
        ffn_channels: hidden channels of the feed-forward nets.
        num_heads: attention heads.
        dropout: everywhere.
    """

    def __init__(
        self,
        num_layers: int,
        embed_dims: int,
        num_levels: int,
        pc_range: Sequence[float],
        num_points_in_pillar: int = 4,
        ffn_channels: int = 512,
        num_heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pc_range = list(pc_range)
        self.num_points_in_pillar = num_points_in_pillar
        self.layers = nn.ModuleList()
        for _ in range(num_layers):
            layer = BEVFormerEncoderLayer(embed_dims, num_levels, ffn_channels, num_heads, dropout)
            self.layers.append(layer)

    def forward(
        self,
        queries: Tensor,
        bev_pos: Tensor,
        bev_shape: tuple[int, int],
        features: Tensor,
        shapes: Shapes,
        lidar2img: Tensor,
        image_size: tuple[int, int],
        prev_bev: Tensor | None = None,
        has_history: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Encodes one frame.

        Args:
            queries: (B, H * W, C).
            bev_pos: (B, H * W, C).
            bev_shape: (H, W).
            features: (B, cameras, S, C).
            shapes: (height, width) per level.
            lidar2img: (B, cameras, 4, 4) float32.
            image_size: height and width of the padded images.
            prev_bev: (B, H * W, C), already rotated; None if no sample has a previous frame.
            has_history: (B,) bool, whose row of ``prev_bev`` counts. Needed with ``prev_bev``.
            shift: (B, 2) float32, where the previous BEV lies, as fractions of the BEV. Needed with
                ``prev_bev``.

        Returns:
            (B, H * W, C).
        """
        device = queries.device
        pillars = pillar_points(
            *bev_shape,
            self.num_points_in_pillar,
            self.pc_range,
            device,
        )
        points, visible = project(pillars, lidar2img, image_size)
        view = camera_view(points, visible)
        centres = bev_centres(*bev_shape, device)
        references = centres.expand(len(queries), 2, -1, -1)
        history = None
        rows = None
        if prev_bev is not None and has_history is not None and shift is not None:
            # The current half of the history is the initial queries in every layer, not refreshed
            # by deeper ones.
            history = torch.stack([prev_bev, queries], 1)
            rows = has_history[:, None, None, None]
            references = references + _offsets(shift, has_history)

        bev = queries
        for layer in self.layers:
            values = bev.unsqueeze(1).expand(-1, 2, -1, -1)
            if history is not None and rows is not None:
                values = torch.where(rows, history, values)
            bev = layer(
                bev,
                bev_pos,
                values,
                references,
                bev_shape,
                features,
                view,
                shapes,
            )

        return bev


def _offsets(shift: Tensor, has_history: Tensor) -> Tensor:
    """How far each query looks from its place on the previous and the current BEV, (B, 2, 1, 2)."""
    previous = shift * has_history[:, None]
    current = torch.zeros_like(previous)
    offsets = torch.stack([previous, current], 1)
    return offsets[:, :, None]
