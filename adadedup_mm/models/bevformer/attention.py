"""Deformable attention in BEVFormer's three forms: over the BEV, two BEVs in time, and cameras.

All tensors are batch first. Sampling runs in float32 whatever the autocast dtype: on a map of 128
pixels a bfloat16 coordinate is half a pixel off.
"""

import math
from dataclasses import dataclass

import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor, nn

Shapes = list[tuple[int, int]]


def deformable_sample(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples, zero outside the maps (arXiv 2010.04159, eq. 3).

    Args:
        value: (B, S, heads, C / heads); S runs over all levels, row-major inside a level.
        shapes: (height, width) of each of the L levels.
        locations: (B, Q, heads, L, P, 2) as (x, y) in [0, 1] over a level's full extent.
        weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, C), float32.
    """
    value = value.float()
    locations = locations.float()
    weights = weights.float()
    with torch.autocast(value.device.type, enabled=False):
        if not value.is_cuda:
            return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
        sizes = torch.tensor(shapes, device=value.device)
        ends = sizes.prod(1).cumsum(0)
        starts = torch.cat([sizes.new_zeros(1), ends[:-1]])
        # The kernel asks for a step that divides the batch.
        step = len(value)
        return MultiScaleDeformableAttnFunction.apply(
            value.contiguous(),
            sizes,
            starts,
            locations.contiguous(),
            weights.contiguous(),
            step,
        )


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention without the residual.

    Args:
        embed_dims: C.
        num_heads: heads; divides C.
        num_levels: L.
        num_points: sampling points per head and level.
        num_queues: maps that one query looks at with offsets and weights of their own.
        with_output_proj: whether the heads' results pass a last linear layer.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 8,
        num_levels: int = 1,
        num_points: int = 4,
        num_queues: int = 1,
        with_output_proj: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.num_queues = num_queues
        points = num_queues * num_heads * num_levels * num_points
        query_dims = num_queues * embed_dims
        self.sampling_offsets = nn.Linear(query_dims, 2 * points)
        self.attention_weights = nn.Linear(query_dims, points)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        if with_output_proj:
            self.output_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        """Heads look in evenly spaced directions, point p at distance p + 1, with equal weights."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

        with torch.no_grad():
            offsets = self._first_offsets()
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))

        for name in ('value_proj', 'output_proj'):
            projection = getattr(self, name, None)
            if projection is not None:
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    def _first_offsets(self) -> Tensor:
        """Offsets before any training, (heads, queues * levels, points, 2)."""
        angle = 2 * math.pi / self.num_heads
        angles = torch.arange(self.num_heads) * angle
        ring = torch.stack([angles.cos(), angles.sin()], -1)
        longest = ring.abs().max(-1, keepdim=True)
        ring = ring / longest.values

        distances = torch.arange(1, self.num_points + 1)
        distances = distances.view(1, 1, -1, 1)
        directions = ring.view(-1, 1, 1, 2)
        offsets = directions * distances
        maps = self.num_queues * self.num_levels

        return offsets.expand(-1, maps, -1, -1)

    def sample(self, query: Tensor, value: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        """Attends to ``value`` around ``references``.

        Args:
            query: (B, Q, num_queues * C); what offsets and weights are computed from.
            value: (B * num_queues, S, C), queues of one sample side by side.
            references: (B * num_queues, Q, R, 2) in [0, 1]; R divides the number of points, and
                point p belongs to reference p % R.
            shapes: (height, width) per level.

        Returns:
            (B * num_queues, Q, C), float32.
        """
        locations = self._locations(query, references, shapes)
        weights = self._weights(query)
        values = self.value_proj(value)
        rows, length = values.shape[:2]
        by_head = values.view(rows, length, self.num_heads, -1)
        return deformable_sample(by_head, shapes, locations, weights)

    def _locations(self, query: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        """Where to look, (B * num_queues, Q, heads, L, P, 2) in [0, 1]."""
        grid = self._grid(query)
        offsets = self.sampling_offsets(query)
        offsets = offsets.view(*grid, 2)
        offsets = self._queues_to_batch(offsets.float())
        sizes = [(width, height) for height, width in shapes]
        sizes_of_levels = offsets.new_tensor(sizes)

        repeats = self.num_points // references.shape[2]
        anchors = references.float().repeat(1, 1, repeats, 1)
        anchors = anchors[:, :, None, None]
        shifts = offsets / sizes_of_levels[:, None]

        return anchors + shifts

    def _weights(self, query: Tensor) -> Tensor:
        """Weights of the places, (B * num_queues, Q, heads, L, P), whose sum over L and P is 1."""
        grid = self._grid(query)
        logits = self.attention_weights(query)
        logits = logits.view(*grid[:4], -1)
        weights = logits.float().softmax(-1)
        return self._queues_to_batch(weights.view(grid))

    def _grid(self, query: Tensor) -> tuple[int, ...]:
        """What there is one offset and one weight for: (B, Q, heads, num_queues, L, P)."""
        batch, length = query.shape[:2]
        return (
            batch,
            length,
            self.num_heads,
            self.num_queues,
            self.num_levels,
            self.num_points,
        )

    def _queues_to_batch(self, values: Tensor) -> Tensor:
        """(B, Q, heads, num_queues, ...) to (B * num_queues, Q, heads, ...)."""
        return values.movedim(3, 1).flatten(0, 1)


class BEVCrossAttention(DeformableAttention):
    """The decoder's attention: object queries look at the BEV around their reference point."""

    def __init__(self, embed_dims: int, num_heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__(embed_dims, num_heads)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        bev: Tensor,
        references: Tensor,
        shape: tuple[int, int],
    ) -> Tensor:
        """Attends to the BEV.

        Args:
            query: (B, Q, C).
            query_pos: (B, Q, C).
            bev: (B, H * W, C).
            references: (B, Q, 2) as (x, y) in [0, 1].
            shape: (H, W).

        Returns:
            (B, Q, C).
        """
        asked = query + query_pos
        points = references[:, :, None]
        found = self.sample(asked, bev, points, [shape])
        found = self.output_proj(found)
        return self.dropout(found) + query


class TemporalSelfAttention(DeformableAttention):
    """BEV queries look at the previous BEV and at the current one; the mean counts (eq. 5)."""

    def __init__(self, embed_dims: int, num_heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__(embed_dims, num_heads, num_queues=2)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        values: Tensor,
        references: Tensor,
        shape: tuple[int, int],
    ) -> Tensor:
        """Attends over time.

        Args:
            query: (B, H * W, C).
            query_pos: (B, H * W, C), added to the query alone.
            values: (B, 2, H * W, C), the previous BEV (aligned with the current one) and the
                current one.
            references: (B, 2, H * W, 2), where each query sits on either map, as (x, y) in [0, 1].
            shape: (H, W).

        Returns:
            (B, H * W, C).
        """
        previous = values[:, 0]
        asked = query + query_pos
        both = torch.cat([previous, asked], -1)
        maps = values.flatten(0, 1)
        points = references.flatten(0, 1)
        points = points[:, :, None]
        found = self.sample(both, maps, points, [shape])
        found = found.view(values.shape)
        found = self.output_proj(found.mean(1))

        return self.dropout(found) + query


@dataclass(frozen=True)
class CameraView:
    """Which BEV queries each camera sees, padded to the longest list; all layers share it.

    Attributes:
        index: (B, cameras, M) int64, BEV queries; rows are distinct, the seen ones first.
        seen: (B, cameras, M) bool, False for padding.
        references: (B, cameras, M, Z, 2), their pillar's points in the image, as (x, y) in [0, 1].
        count: (B, H * W, 1) float32, by how many cameras a query is seen, at least 1.
    """

    index: Tensor
    seen: Tensor
    references: Tensor
    count: Tensor


def camera_view(points: Tensor, visible: Tensor) -> CameraView:
    """Sends each BEV query to the cameras that see any point of its pillar.

    Args:
        points: (B, cameras, H * W, Z, 2), the pillars' points in the images.
        visible: (B, cameras, H * W, Z) bool.
    """
    hit = visible.any(-1)
    most = int(hit.sum(-1).max())
    longest = max(most, 1)
    order = hit.to(torch.uint8).argsort(
        stable=True,
        dim=-1,
        descending=True,
    )
    index = order[..., :longest]
    rows = index[..., None, None]
    rows = rows.expand(-1, -1, -1, *points.shape[-2:])
    cameras = hit.sum(1).clamp(min=1)

    return CameraView(
        index=index,
        seen=hit.gather(-1, index),
        references=points.gather(2, rows),
        count=cameras.unsqueeze(-1).float(),
    )


class SpatialCrossAttention(nn.Module):
    """BEV queries look into the cameras that see their pillar; the mean counts (eq. 3)."""

    def __init__(
        self,
        embed_dims: int,
        num_levels: int,
        num_heads: int = 8,
        num_points: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.deformable_attention = DeformableAttention(
            embed_dims, num_heads, num_levels, num_points, with_output_proj=False
        )
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        """As the deformable attention's."""
        self.deformable_attention.init_weights()
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(self, query: Tensor, features: Tensor, view: CameraView, shapes: Shapes) -> Tensor:
        """Attends over space.

        Args:
            query: (B, H * W, C).
            features: (B, cameras, S, C), all levels of each camera.
            view: which camera sees which query.
            shapes: (height, width) per level.

        Returns:
            (B, H * W, C).
        """
        batch, cameras, longest = view.index.shape
        channels = query.shape[-1]
        rows = view.index.flatten(1).unsqueeze(-1)
        rows = rows.expand(-1, -1, channels)
        asked = query.gather(1, rows)
        found = self.deformable_attention.sample(
            asked.view(batch * cameras, longest, channels),
            features.flatten(0, 1),
            view.references.flatten(0, 1),
            shapes,
        )
        found = found.view(batch, cameras, longest, channels)
        found = found * view.seen.unsqueeze(-1)
        found = found.flatten(1, 2)
        total = found.new_zeros(query.shape)
        total = total.scatter_add(1, rows, found)
        mean = total / view.count
        mean = self.output_proj(mean)

        return self.dropout(mean) + query
