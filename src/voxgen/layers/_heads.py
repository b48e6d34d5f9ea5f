"""Heads of the SC-VAE: dual grid and materials."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_int, require_tensor

from ._checks import require_input


@dataclass(frozen=True)
class DualGridPrediction:
    dual_vertices: Float[Tensor, "n 3"]
    crossing_logits: Float[Tensor, "n 3"]
    split_weight: Float[Tensor, "n 1"]

    @property
    def intersected(self) -> Bool[Tensor, "n 3"]:
        return self.crossing_logits > 0


def read_dual_grid(logits: Float[Tensor, "n 7"], margin: float = 0.5) -> DualGridPrediction:
    require_tensor("read_dual_grid", "logits", logits, ("n", 7), FLOATS)
    vertices = (1 + 2 * margin) * logits[:, :3].sigmoid() - margin
    return DualGridPrediction(vertices, logits[:, 3:6], F.softplus(logits[:, 6:]))


def read_materials(values: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    require_tensor("read_materials", "values", values, ("n", "c"), FLOATS)
    return values * 0.5 + 0.5


class DualGridHead(nn.Module):
    def __init__(self, channels: int, margin: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 7)
        self.margin = margin

    def forward(self, x: SparseTensor) -> DualGridPrediction:
        require_input("DualGridHead", x, self.linear.in_features, self.linear.weight)
        return read_dual_grid(self.linear(x.feats), self.margin)


class MaterialHead(nn.Module):
    def __init__(self, channels: int, material_channels: int = 6) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, require_int("MaterialHead", "material_channels", material_channels, 1))

    def forward(self, x: SparseTensor) -> SparseTensor:
        require_input("MaterialHead", x, self.linear.in_features, self.linear.weight)
        return x.with_feats(self.linear(x.feats))
