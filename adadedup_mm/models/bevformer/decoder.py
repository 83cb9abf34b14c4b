"""From a BEV to object queries: self-attention, attention to the BEV, refined boxes."""

import torch
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmengine.model import BaseModule
from torch import Tensor, nn

from .attention import BEVCrossAttention
from .coder import CENTRE


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of ``x`` clamped to [0, 1], both sides of the fraction being at least ``eps``."""
    x = x.clamp(0, 1)
    above = x.clamp(min=eps)
    below = (1 - x).clamp(min=eps)
    return torch.log(above / below)


def refine(branch: nn.Module, states: Tensor, references: Tensor) -> Tensor:
    """Box codes around references, in float32.

    Args:
        branch: maps C to the code size; entries 0, 1 and 4 of the code are offsets of x, y and z in
            logit space.
        states: (B, Q, C).
        references: (B, Q, 3) as (x, y, z) in [0, 1].

    Returns:
        (B, Q, code size); entries 0, 1 and 4 in [0, 1].
    """
    with torch.autocast(states.device.type, enabled=False):
        code = branch(states.float())
        anchor = inverse_sigmoid(references.float())
        xy = code[..., :2] + anchor[..., :2]
        z = code[..., 4:5] + anchor[..., 2:]
        parts = [
            xy.sigmoid(),
            code[..., 2:4],
            z.sigmoid(),
            code[..., 5:],
        ]
        return torch.cat(parts, -1)


class BEVFormerDecoderLayer(BaseModule):
    """One layer, normalised after each of its three parts."""

    def __init__(self, embed_dims: int, ffn_channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            [
                MultiheadAttention(
                    embed_dims,
                    num_heads,
                    attn_drop=dropout,
                    dropout_layer=dict(type='Dropout', drop_prob=dropout),
                    batch_first=True,
                ),
                BEVCrossAttention(embed_dims, num_heads, dropout),
            ]
        )
        self.ffns = nn.ModuleList([FFN(embed_dims, ffn_channels, ffn_drop=dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(embed_dims) for _ in range(3)])

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        bev: Tensor,
        references: Tensor,
        bev_shape: tuple[int, int],
    ) -> Tensor:
        """Decodes by one layer; the arguments are those of ``BEVCrossAttention``."""
        itself, cross = self.attentions
        after_itself, after_cross, after_ffn = self.norms
        query = itself(query, query_pos=query_pos, key_pos=query_pos)
        query = after_itself(query)
        query = cross(query, query_pos, bev, references, bev_shape)
        query = after_cross(query)
        query = self.ffns[0](query)
        return after_ffn(query)


class BEVFormerDecoder(BaseModule):
    """The stack of layers.

    Args:
        num_layers: layers.
        embed_dims: C.
        ffn_channels: hidden channels of the feed-forward nets.
        num_heads: attention heads.
        dropout: everywhere.
    """

    def __init__(
        self,
        num_layers: int,
        embed_dims: int,
        ffn_channels: int = 512,
        num_heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(num_layers):
            layer = BEVFormerDecoderLayer(embed_dims, ffn_channels, num_heads, dropout)
            self.layers.append(layer)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        bev: Tensor,
        references: Tensor,
        bev_shape: tuple[int, int],
        branches: nn.ModuleList,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Decodes one frame.

        Args:
            query: (B, Q, C).
            query_pos: (B, Q, C).
            bev: (B, H * W, C).
            references: (B, Q, 3), as (x, y, z) in [0, 1].
            bev_shape: (H, W).
            branches: one regression branch per layer.

        Returns:
            Per layer the states (B, Q, C), and the box codes of :func:`refine` (B, Q, code size).
            Each layer starts from the detached centres of the layer before.
        """
        states = []
        codes = []
        for layer, branch in zip(self.layers, branches, strict=True):
            points = references[..., :2]
            query = layer(query, query_pos, bev, points, bev_shape)
            code = refine(branch, query, references)
            references = code[..., CENTRE].detach()
            states.append(query)
            codes.append(code)

        return states, codes
