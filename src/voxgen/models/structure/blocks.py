"""Blocks of the dense networks: 3D convolutions on whole cubes of cells."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core.errors import ShapeError
from voxgen.layers import LayerNorm32
from voxgen.layers._checkpoint import run

__all__ = ["ChannelLayerNorm", "DenseDownsample", "DenseResidualBlock", "DenseUpsample", "pixel_shuffle_3d"]


class ChannelLayerNorm(LayerNorm32):
    """`LayerNorm32` over the channels of each cell of a cube.

    Args:
        channels: width of a cell.
    Parameters: `weight`, `bias` (channels,), float32 whatever the cells are.
    Shape: (b, channels, x, y, z) → the same, in its dtype; eps 1e-5.
    Raises:
        ShapeError: another width.
    Source: TRELLIS' structure VAE; differences: none.
    Example:
        >>> ChannelLayerNorm(8)(torch.zeros(1, 8, 4, 4, 4)).shape
        torch.Size([1, 8, 4, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, eps=1e-5)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:  # pyright: ignore[reportIncompatibleMethodOverride] (dense only)
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class DenseResidualBlock(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x)))))), at one width.

    Args:
        channels: width of a cell.
        checkpoint: recompute the block in the backward pass instead of keeping its intermediate results.
    Parameters: `norm1`, `norm2` as `ChannelLayerNorm`; `conv1`, `conv2` 3×3×3 with bias; conv2 starts at zero, so that the
        block starts as the identity.
    Shape: (b, channels, x, y, z) → the same.
    Source: TRELLIS' structure VAE, Direct3D-S2's dense VAE; differences: none.
    Example:
        >>> DenseResidualBlock(8)(torch.ones(1, 8, 4, 4, 4)).mean().item()
        1.0
    """

    def __init__(self, channels: int, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelLayerNorm(channels), ChannelLayerNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # pyright: ignore[reportArgumentType] (has a bias)
        self.checkpoint = checkpoint

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        return run(self.checkpoint, self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class DenseDownsample(nn.Module):
    """Half the resolution: a convolution of kernel 2 and stride 2.

    Args:
        in_channels, out_channels: widths before and after.
    Parameters: `conv.{weight (out, in, 2, 2, 2), bias}`.
    Shape: (b, in_channels, 2x, 2y, 2z) → (b, out_channels, x, y, z).
    Raises:
        ShapeError: an odd side.
    Source: TRELLIS' structure VAE; differences: odd sides raise, where the convolution would drop a layer of cells.
    Example:
        >>> DenseDownsample(8, 16)(torch.zeros(1, 8, 4, 4, 4)).shape
        torch.Size([1, 16, 2, 2, 2])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b d x2 y2 z2"]:
        if any(side % 2 for side in x.shape[2:]):
            raise ShapeError(f"DenseDownsample: sides must be even; got {tuple(x.shape[2:])}. Pad the volume to a multiple of 2 a level.")
        return self.conv(x)


class DenseUpsample(nn.Module):
    """Twice the resolution: a convolution to eight times the channels, which `pixel_shuffle_3d` lays out as children.

    Args:
        in_channels, out_channels: widths before and after.
    Parameters: `conv.{weight (8 out, in, 3, 3, 3), bias}`.
    Shape: (b, in_channels, x, y, z) → (b, out_channels, 2x, 2y, 2z).
    Source: TRELLIS' structure VAE; differences: none.
    Example:
        >>> DenseUpsample(16, 8)(torch.zeros(1, 16, 2, 2, 2)).shape
        torch.Size([1, 8, 4, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, 8 * out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b d x2 y2 z2"]:
        return pixel_shuffle_3d(self.conv(x))


def pixel_shuffle_3d(x: Float[Tensor, "b c8 x y z"]) -> Float[Tensor, "b c x2 y2 z2"]:
    """Groups of eight channels to the eight children of each cell.

    Args:
        x: (b, 8 c, x, y, z); channel 8 i + 4 dx + 2 dy + dz becomes channel i of the child at offset (dx, dy, dz).
    Returns:
        (b, c, 2x, 2y, 2z). Differentiable.
    Raises:
        ShapeError: channels that are no multiple of 8.
    Example:
        >>> pixel_shuffle_3d(torch.arange(8.0).view(1, 8, 1, 1, 1))[0, 0, 1, 0].tolist()
        [4.0, 5.0]
    """
    if x.ndim != 5 or x.shape[1] % 8:
        raise ShapeError(f"pixel_shuffle_3d: x must be (b, 8 c, x, y, z); got {tuple(x.shape)}.")
    return rearrange(x, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=2, j=2, k=2)
