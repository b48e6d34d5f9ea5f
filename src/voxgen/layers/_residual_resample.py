"""Sparse residual autoencoding: blocks that change the level and keep a shortcut without parameters."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.aliases import Feats
from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.ops.resample import Structure, channel_to_space, space_to_channel

from . import _checkpoint
from ._checks import require_channels, require_input, require_parents, structure_below
from ._conv import SparseConv3d
from ._norm import LayerNorm32
from ._residual import zeroed
from ._sums import activate, add

CHILDREN = 8
"""Children that a cell can have; their channels lie in the order x + 2y + 4z."""


def group_average(feats: Feats, out_channels: int) -> Float[Tensor, "n o"]:
    """Means of consecutive channels: output g is the mean of channels [g·c/o, (g + 1)·c/o).

    The shortcut of `ResidualDownsample`, taken of `space_to_channel(x)`: with O = 2C, four channels of one child.

    Args:
        feats: (n, c) floats.
        out_channels: o; must divide c.
    Returns:
        (n, o). Differentiable.
    Raises:
        ShapeError: o does not divide c.   RangeError: o below 1.   DtypeError: not floats.
    Source: TRELLIS.2, sparse residual autoencoding; differences: none.
    Numerics: sums in float32 (float64 for float64), rounded once.
    Example:
        >>> group_average(torch.tensor([[1.0, 3.0, 10.0, 20.0]]), 2).tolist()
        [[2.0, 15.0]]
    """
    where = "group_average"
    require_tensor(where, "feats", feats, ("n", "c"), FLOATS)
    width = require_int(where, "out_channels", out_channels, 1)
    if feats.shape[1] % width:
        raise ShapeError(f"{where}: out_channels must divide the {feats.shape[1]} channels of feats; got {width}.")
    return feats.unflatten(1, (width, feats.shape[1] // width)).mean(-1)


def repeat_channels(feats: Feats, out_channels: int) -> Float[Tensor, "n o"]:
    """Each channel o/c times in a row: a, a, b, b. The shortcut of `ResidualUpsample`, taken of `channel_to_space(x)`.

    Args:
        feats: (n, c) floats.
        out_channels: o; must be a multiple of c.
    Returns:
        (n, o). Differentiable.
    Raises:
        ShapeError: o is no multiple of c.   RangeError: o below 1.   DtypeError: not floats.
    Source: TRELLIS.2, sparse residual autoencoding; differences: none.
    Example:
        >>> repeat_channels(torch.tensor([[1.0, 2.0]]), 4).tolist()
        [[1.0, 1.0, 2.0, 2.0]]
    """
    where = "repeat_channels"
    require_tensor(where, "feats", feats, ("n", "c"), FLOATS)
    width = require_int(where, "out_channels", out_channels, 1)
    if feats.shape[1] == 0 or width % feats.shape[1]:
        raise ShapeError(f"{where}: out_channels must be a multiple of the {feats.shape[1]} channels of feats; got {width}.")
    return feats.repeat_interleave(width // feats.shape[1], 1)


class ResidualDownsample(nn.Module):
    """One level down: children become channels, with the mean of channel groups as shortcut.

    h = space_to_channel(conv1(SiLU(norm1(x)))); y = conv2(SiLU(norm2(h))) + group_average(space_to_channel(x), O).

    Args:
        channels: C.
        out_channels: O; a multiple of 8 that divides 8C.
        shortcut: False leaves the shortcut out (for ablations).
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters:
        norm1.weight, norm1.bias: (C,).   conv1.weight: (27, C, O/8).   conv1.bias: (O/8,).
        conv2.weight: (27, O, O).   conv2.bias: (O,); both zero at first, so that a new block is its shortcut.
    Raises:
        ShapeError: widths that break the rule above.   RangeError: a width below 1.
        By `forward`: RangeError for a structure of other cells; others as `SparseConv3d`.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: for n cells and p parents 2C · O/8 · pairs · n + 2O² · pairs · p operations; no tensor of 8C channels is made.
    Source: `SparseResBlockS2C3d` of TRELLIS.2; differences: the structure is returned, not hidden in a cache on the tensor.
    Numerics: in the dtype of the weights; norms in float32.
    Example:
        >>> y, structure = ResidualDownsample(16, 32)(x)                  # x: SparseTensor of 16 channels
        >>> fine = ResidualUpsample(32, 16)(y, structure)                 # back on x.grid
    """

    def __init__(self, channels: int, out_channels: int, *, shortcut: bool = True, checkpoint: bool = False) -> None:
        super().__init__()
        where = "ResidualDownsample"
        require_channels(where, channels=channels, out_channels=out_channels)
        if out_channels % CHILDREN or CHILDREN * channels % out_channels:
            raise ShapeError(
                f"{where}: out_channels must be a multiple of {CHILDREN} (a part for each child) that divides "
                f"{CHILDREN} · channels = {CHILDREN * channels} (equal groups to average); got out_channels {out_channels} "
                f"with channels {channels}."
            )
        self.channels = channels
        self.out_channels = out_channels
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, out_channels // CHILDREN)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.shortcut = shortcut
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure | None = None) -> tuple[SparseTensor, Structure]:
        """Go down a level.

        Args:
            x: (n cells, C).
            structure: whose children are the cells of x; None makes it.
        Returns:
            (p cells, O) on `structure.parents`, and the structure, which a decoder needs to come back to these cells.
        """
        where = "ResidualDownsample"
        require_input(where, x, self.channels, self.conv1.weight)
        structure = structure_below(where, x, structure)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure), structure

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = self.conv1(x.with_feats(activate(self.norm1, x.feats)))
        h = SparseTensor(structure.parents, space_to_channel(h.feats, structure))
        h = h.with_feats(activate(self.norm2, h.feats))  # apart, so that what it is made of is not held any longer
        h = self.conv2(h)
        if not self.shortcut:
            return h
        # groups never cross children, so each child is averaged before the children come side by side
        own = group_average(x.feats, self.out_channels // CHILDREN)
        return h.with_feats(add(h.feats, space_to_channel(own, structure)))


class ResidualUpsample(nn.Module):
    """One level up: channels become children, with repeated channels as shortcut. The mirror of `ResidualDownsample`.

    h = channel_to_space(conv1(SiLU(norm1(x)))); y = conv2(SiLU(norm2(h))) + repeat_channels(channel_to_space(x), O).

    Which children there are is said by the structure: an encoder's (`ResidualDownsample` returns it), or one made of a mask
    (`Structure.of_mask`); `EarlyPruningUpsampler` predicts it.

    Args:
        channels: C; a multiple of 8.
        out_channels: O; a multiple of C/8.
        shortcut: False leaves the shortcut out (for ablations).
        checkpoint: keep no intermediate results for the backward pass, but make them again.
    Parameters:
        norm1.weight, norm1.bias: (C,).   conv1.weight: (27, C, 8·O).   conv1.bias: (8·O,); channels of child s lie at s·O.
        conv2.weight: (27, O, O).   conv2.bias: (O,); both zero at first, so that a new block is its shortcut.
    Raises:
        ShapeError: widths that break the rule above.   RangeError: a width below 1.
        By `forward`: RangeError for a structure of other cells; others as `SparseConv3d`.
    Differentiable. Empty tensors and samples are legal.   Batch: samples do not meet.
    Cost: for p parents with n children (2C · O + 2O²) · pairs · n operations without gradients: a child that does not exist
        costs nothing. With gradients the first convolution makes the channels of all children, (p, 8·O).
    Source: `SparseResBlockC2S3d` of TRELLIS.2 without its prediction; differences: the structure is an argument.
    Numerics: in the dtype of the weights; norms in float32.
    Example:
        >>> y, structure = ResidualDownsample(16, 32)(x)                  # x: SparseTensor of 16 channels
        >>> ResidualUpsample(32, 16)(y, structure).grid is x.grid
        True
    """

    def __init__(self, channels: int, out_channels: int, *, shortcut: bool = True, checkpoint: bool = False) -> None:
        super().__init__()
        where = "ResidualUpsample"
        require_channels(where, channels=channels, out_channels=out_channels)
        if channels % CHILDREN or out_channels % (channels // CHILDREN):
            raise ShapeError(
                f"{where}: channels must be a multiple of {CHILDREN} (a part for each child), and out_channels of channels / {CHILDREN} "
                f"(equal repetition); got channels {channels} with out_channels {out_channels}."
            )
        self.channels = channels
        self.out_channels = out_channels
        self.norm1 = LayerNorm32(channels)
        self.conv1 = SparseConv3d(channels, CHILDREN * out_channels)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv2 = zeroed(SparseConv3d(out_channels, out_channels))
        self.shortcut = shortcut
        self.checkpoint = checkpoint

    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        """Go up a level.

        Args:
            x: (p cells, C).
            structure: whose parents are the cells of x.
        Returns:
            (n cells, O) on `structure.children`.
        """
        where = "ResidualUpsample"
        require_input(where, x, self.channels, self.conv1.weight)
        require_parents(where, x, structure)
        return _checkpoint.run(self.checkpoint, self._forward, x, structure)

    def _forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        h = self.conv1(x.with_feats(activate(self.norm1, x.feats)), structure=structure)
        h = h.with_feats(activate(self.norm2, h.feats))  # apart, so that what it is made of is not held any longer
        h = self.conv2(h)
        if not self.shortcut:
            return h
        own = channel_to_space(x.feats, structure)  # (n, C / 8); added by broadcasting, so its repetition is never stored
        parts = (own.shape[1], self.out_channels // own.shape[1])
        return h.with_feats(add(h.feats.unflatten(1, parts), own[:, :, None]).flatten(1))
