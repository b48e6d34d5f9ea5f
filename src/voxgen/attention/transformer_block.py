"""The plain transformer block of the autoencoders."""

from __future__ import annotations

from torch import nn

from voxgen.layers import LayerNorm32
from voxgen.layers._checkpoint import run

from ._tokens import Tokens, feats_of, require_tokens, with_feats
from .feed_forward import FeedForward

__all__ = ["TransformerBlock"]

NORM_EPS = 1e-6


class TransformerBlock(nn.Module):
    """x + attn(norm(x)), then x + mlp(norm(x)).

    Args:
        channels: width of a token.
        attn: any module that takes tokens of this width and returns such; its kind decides the kind of tokens.
        mlp_ratio: hidden width of the feed-forward half over channels.
        affine: whether the two norms learn a gain and a shift.
        checkpoint: recompute the block in the backward pass instead of keeping its intermediate results.
    Parameters: `attn.*`, `mlp.mlp.{0,2}.*`; with affine also `norm1.*`, `norm2.*`.
    Shape: (b, n, channels), or a SparseTensor → the same.
    Raises:
        ShapeError, DtypeError: x of another width or kind.
    Source: the blocks of TRELLIS' and Direct3D-S2's autoencoders (norms without affine, eps 1e-6); differences: none.
    Example:
        >>> TransformerBlock(32, SelfAttention(32, heads=4))(torch.zeros(2, 5, 32)).shape
        torch.Size([2, 5, 32])
    """

    def __init__(self, channels: int, attn: nn.Module, *, mlp_ratio: float = 4.0, affine: bool = False, checkpoint: bool = False) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, affine=affine, eps=NORM_EPS)
        self.attn = attn
        self.norm2 = LayerNorm32(channels, affine=affine, eps=NORM_EPS)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.checkpoint = checkpoint

    def forward(self, x: Tokens) -> Tokens:
        require_tokens("TransformerBlock", x, self.norm1.channels)
        return run(self.checkpoint, lambda: self._forward(x))

    def _forward(self, x: Tokens) -> Tokens:
        h = feats_of(x)
        h = h + feats_of(self.attn(with_feats(x, self.norm1(h))))
        return with_feats(x, h + self.mlp(self.norm2(h)))
