"""Heads of the SC-VAE: dual grid and materials."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import RangeError

from ._checks import require_channels, require_input

MARGIN = 0.5
"""How far the published decoder lets a dual vertex leave its cell, in cells."""


@dataclass(frozen=True)
class DualGridPrediction:
    """A dual grid as a network predicts it, one row a cell.

    Attributes:
        dual_vertices: (n, 3) position in the cell, in cells: within [−margin, 1 + margin].
        crossing_logits: (n, 3) of the surface crossing the cell's three edges.
        split_weight: (n, 1), above 0: which diagonal splits a quad.
    """

    dual_vertices: Float[Tensor, "n 3"]
    crossing_logits: Float[Tensor, "n 3"]
    split_weight: Float[Tensor, "n 1"]

    @property
    def intersected(self) -> Bool[Tensor, "n 3"]:
        """Edges that the surface is predicted to cross: a logit above 0."""
        return self.crossing_logits > 0


def read_dual_grid(logits: Float[Tensor, "n 7"], margin: float = MARGIN) -> DualGridPrediction:
    """What the seven outputs of a shape decoder mean.

    Args:
        logits: (n, 7): three for the dual vertex, three crossing logits, one split weight.
        margin: how far a dual vertex may leave its cell, in cells; at least 0.
    Returns:
        `DualGridPrediction` of the dtype of logits: vertices (1 + 2·margin) · sigmoid − margin, logits as they are, softplus.
    Raises:
        ShapeError: not seven columns.   DtypeError: not floats.   RangeError: a margin below 0 or not finite.
    Differentiable. No rows are legal.
    Source: TRELLIS.2, shape decoder, margin 0.5; differences: none.
    Example:
        >>> read_dual_grid(torch.zeros(1, 7)).dual_vertices.tolist()
        [[0.5, 0.5, 0.5]]
    """
    require_tensor("read_dual_grid", "logits", logits, ("n", 7), FLOATS)
    _check_margin("read_dual_grid", margin)
    vertices = (1 + 2 * margin) * logits[:, :3].sigmoid() - margin
    return DualGridPrediction(vertices, logits[:, 3:6], F.softplus(logits[:, 6:]))


def read_materials(values: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Material values as a network gives them, trained in [−1, 1], to those of a surface, in [0, 1]: values / 2 + 1/2.

    Not clamped: predictions may lie a little outside.

    Args:
        values: (n, c) floats.
    Raises:
        ShapeError: not two axes.   DtypeError: not floats.
    Source: TRELLIS.2, texture decoder; differences: none.
    Example:
        >>> read_materials(torch.tensor([[-1.0, 0.0, 1.0]])).tolist()
        [[0.0, 0.5, 1.0]]
    """
    require_tensor("read_materials", "values", values, ("n", "c"), FLOATS)
    return values * 0.5 + 0.5


class DualGridHead(nn.Module):
    """A linear map to a dual grid.

    Args:
        channels: C.
        margin: how far a dual vertex may leave its cell, in cells; at least 0.
    Parameters:
        linear.weight: (7, C).   linear.bias: (7,).
    Raises:
        RangeError: channels below 1, a margin below 0. By `forward`: ShapeError, DtypeError, DeviceError, x does not fit.
    Takes (n cells, C), returns `DualGridPrediction` of n rows. Differentiable. Empty tensors are legal.
    Cost: 14C operations a cell.
    Source: TRELLIS.2, `output_layer` of the shape decoder; differences: none.
    Example:
        >>> prediction = DualGridHead(64)(x)                              # x: SparseTensor of 64 channels
    """

    def __init__(self, channels: int, margin: float = MARGIN) -> None:
        super().__init__()
        require_channels("DualGridHead", channels=channels)
        _check_margin("DualGridHead", margin)
        self.linear = nn.Linear(channels, 7)
        self.margin = margin

    def forward(self, x: SparseTensor) -> DualGridPrediction:
        """The dual grid on the cells of x."""
        require_input("DualGridHead", x, self.linear.in_features, self.linear.weight)
        return read_dual_grid(self.linear(x.feats), self.margin)


class MaterialHead(nn.Module):
    """A linear map to materials in [−1, 1]; `read_materials` maps them to [0, 1].

    Args:
        channels: C.
        material_channels: M; six are base colour (3), metallic, roughness, opacity.
    Parameters:
        linear.weight: (M, C).   linear.bias: (M,).
    Raises:
        RangeError: a width below 1. By `forward`: ShapeError, DtypeError, DeviceError, x does not fit.
    Takes (n cells, C), returns (n cells, M) on the same grid. Differentiable. Empty tensors are legal.
    Cost: 2C · M operations a cell.
    Source: TRELLIS.2, `output_layer` of the texture decoder; differences: none.
    Example:
        >>> materials = read_materials(MaterialHead(64)(x).feats)         # x: SparseTensor of 64 channels
    """

    def __init__(self, channels: int, material_channels: int = 6) -> None:
        super().__init__()
        require_channels("MaterialHead", channels=channels, material_channels=material_channels)
        self.linear = nn.Linear(channels, material_channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Materials at the cells of x."""
        require_input("MaterialHead", x, self.linear.in_features, self.linear.weight)
        return x.with_feats(self.linear(x.feats))


def _check_margin(where: str, margin: float) -> None:
    if not 0 <= margin < float("inf"):
        raise RangeError(f"{where}: margin must be at least 0 and finite; got {margin}.")
