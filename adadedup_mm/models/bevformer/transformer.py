"""The perception transformer: camera features and ego movement to a BEV, the BEV to queries."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...base.errors import UserError
from .attention import DeformableAttention, Shapes, SpatialCrossAttention
from .decoder import BEVFormerDecoder
from .encoder import BEVFormerEncoder
from .geometry import ego_shift, rotate_bev

CAN_BUS_SIZE = 18


@MODELS.register_module()
class BEVFormerTransformer(BaseModule):
    """BEVFormer's encoder and decoder with their embeddings (arXiv 2203.17270).

    Args:
        pc_range: the BEV's range, (x_min, y_min, z_min, x_max, y_max, z_max) in metres.
        embed_dims: C.
        num_cams: cameras per frame.
        num_levels: feature levels.
        encoder_layers: layers of the encoder.
        decoder_layers: layers of the decoder.
        num_points_in_pillar: heights at which a BEV cell is projected into the images; divides 8.
        ffn_channels: hidden channels of the feed-forward nets.
        num_heads: attention heads.
        dropout: everywhere.
        use_can_bus: whether the BEV queries know the CAN bus signals. Without it frames need none,
            as long as they have no history.
        use_shift: whether the previous BEV is shifted by the ego vehicle's movement.
        rotate_prev_bev: whether the previous BEV is turned by the ego vehicle's rotation.
        rotate_center: (column, row) of the pivot in cells; None for the middle of the BEV.
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        embed_dims: int = 256,
        num_cams: int = 6,
        num_levels: int = 4,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        num_points_in_pillar: int = 4,
        ffn_channels: int = 512,
        num_heads: int = 8,
        dropout: float = 0.1,
        use_can_bus: bool = True,
        use_shift: bool = True,
        rotate_prev_bev: bool = True,
        rotate_center: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.pc_range = list(pc_range)
        self.embed_dims = embed_dims
        self.num_cams = num_cams
        self.num_levels = num_levels
        self.use_can_bus = use_can_bus
        self.use_shift = use_shift
        self.rotate_prev_bev = rotate_prev_bev
        self.rotate_center = rotate_center
        # The published weights hold four level embeddings for any number of levels.
        self.level_embeds = nn.Parameter(torch.empty(max(num_levels, 4), embed_dims))
        self.cams_embeds = nn.Parameter(torch.empty(num_cams, embed_dims))
        self.encoder = BEVFormerEncoder(
            encoder_layers,
            embed_dims,
            num_levels,
            pc_range,
            num_points_in_pillar,
            ffn_channels,
            num_heads,
            dropout,
        )
        self.decoder = BEVFormerDecoder(
            decoder_layers,
            embed_dims,
            ffn_channels,
            num_heads,
            dropout,
        )
        self.reference_points = nn.Linear(embed_dims, 3)
        self.can_bus_mlp = nn.Sequential(
            nn.Linear(CAN_BUS_SIZE, embed_dims // 2),
            nn.ReLU(inplace=True),
            nn.Linear(embed_dims // 2, embed_dims),
            nn.ReLU(inplace=True),
        )
        self.can_bus_mlp.add_module('norm', nn.LayerNorm(embed_dims))

    def init_weights(self) -> None:
        """Xavier for matrices, then the attentions' own start, and unit normals for embeddings."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention | SpatialCrossAttention):
                module.init_weights()
        nn.init.normal_(self.level_embeds)
        nn.init.normal_(self.cams_embeds)
        nn.init.zeros_(self.reference_points.bias)

    def encode(
        self,
        features: Sequence[Tensor],
        bev_queries: Tensor,
        bev_pos: Tensor,
        bev_shape: tuple[int, int],
        lidar2img: Tensor,
        image_size: tuple[int, int],
        can_bus: np.ndarray,
        prev_bev: Tensor | None = None,
        has_history: Sequence[bool] | None = None,
    ) -> Tensor:
        """One frame's BEV.

        Args:
            features: per level (B, cameras, C, h, w).
            bev_queries: (H * W, C).
            bev_pos: (H * W, C).
            bev_shape: (H, W).
            lidar2img: (B, cameras, 4, 4).
            image_size: height and width of the padded images.
            can_bus: (B, 18) float64, [:3] and [-1] as changes since the previous BEV.
            prev_bev: (B, H * W, C), the BEVs of the previous frames in those frames' coordinates.
            has_history: whose row of ``prev_bev`` counts; None for all.

        Returns:
            (B, H * W, C).
        """
        batch = len(features[0])
        queries = self._queries(bev_queries, can_bus, batch)
        known = None
        shift = None
        if prev_bev is not None:
            if self.rotate_prev_bev:
                prev_bev = self._rotated(prev_bev, can_bus, bev_shape)
            known = torch.tensor(has_history or [True] * batch, device=queries.device)
            moved = ego_shift(can_bus, self.pc_range)
            shift = torch.as_tensor(moved, device=queries.device) * float(self.use_shift)

        flat, shapes = self._flatten(features)

        return self.encoder(
            queries,
            bev_pos.expand(batch, -1, -1),
            bev_shape,
            flat,
            shapes,
            lidar2img,
            image_size,
            prev_bev,
            known,
            shift,
        )

    def _queries(self, bev_queries: Tensor, can_bus: np.ndarray, batch: int) -> Tensor:
        """The BEV queries of each sample, (B, H * W, C)."""
        signals = torch.as_tensor(can_bus, dtype=torch.float32, device=bev_queries.device)
        # The MLP runs in any case, so that its parameters are never without a gradient in
        # distributed training.
        known = self.can_bus_mlp(signals)[:, None]
        queries = bev_queries.expand(batch, -1, -1)
        return queries + known * float(self.use_can_bus)

    def _rotated(self, bev: Tensor, can_bus: np.ndarray, shape: tuple[int, int]) -> Tensor:
        """The previous BEVs in the present frames' directions."""
        rows, columns = shape
        centre = self.rotate_center or (columns / 2, rows / 2)
        degrees = can_bus[:, -1].tolist()
        return rotate_bev(bev, degrees, shape, centre)

    def _flatten(self, features: Sequence[Tensor]) -> tuple[Tensor, Shapes]:
        cameras = features[0].shape[1]
        if len(features) != self.num_levels or cameras != self.num_cams:
            raise UserError(
                f'BEVFormer was built for {self.num_cams} cameras and {self.num_levels} feature '
                f'levels, but got {cameras} and {len(features)}: see num_cams and num_levels of '
                'its transformer'
            )

        camera_embeds = self.cams_embeds[:, None]
        flat = []
        shapes = []
        for level, level_embed in zip(features, self.level_embeds, strict=False):
            height, width = level.shape[-2:]
            shapes.append((height, width))
            pixels = level.flatten(3).transpose(2, 3)
            pixels = pixels + camera_embeds + level_embed
            flat.append(pixels)

        return torch.cat(flat, 2), shapes

    def decode(
        self,
        bev: Tensor,
        query_embedding: Tensor,
        bev_shape: tuple[int, int],
        branches: nn.ModuleList,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Object queries' states and box codes per decoder layer.

        Args:
            bev: (B, H * W, C).
            query_embedding: (Q, 2 * C), the position first.
            bev_shape: (H, W).
            branches: one regression branch per layer.

        Returns:
            As :meth:`BEVFormerDecoder.forward`.
        """
        batch = len(bev)
        position, content = query_embedding.split(self.embed_dims, -1)
        query_pos = position.expand(batch, -1, -1)
        query = content.expand(batch, -1, -1)
        with torch.autocast(bev.device.type, enabled=False):
            references = self.reference_points(query_pos.float()).sigmoid()
        return self.decoder(
            query,
            query_pos,
            bev,
            references,
            bev_shape,
            branches,
        )
