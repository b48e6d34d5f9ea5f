"""Grids and shapes that the tests of the dual grid share."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.dual_grid import OP

ENGINES = list(OP.backends)
UNIT = (-0.5, -0.5, -0.5)
BOX4 = {"origin": (0.0, 0.0, 0.0), "voxel_size": 1.0, "resolution": 4}
TILTED = torch.tensor([[0.5, 0.5, 1.25], [3.5, 0.5, 1.25], [0.5, 3.5, 1.75]])
ONE = torch.tensor([[0, 1, 2]])


def unit(n: int) -> dict[str, object]:
    return {"origin": UNIT, "voxel_size": 1 / n, "resolution": n}


def square(low: float, high: float, z: float) -> tuple[Tensor, Tensor]:
    corners = [[low, low, z], [high, low, z], [high, high, z], [low, high, z]]
    return torch.tensor(corners), torch.tensor([[0, 1, 2], [0, 2, 3]])
