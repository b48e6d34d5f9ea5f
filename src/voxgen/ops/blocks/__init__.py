"""Cubic blocks and shifted windows of a grid, and the plan of spatial sparse attention that is made of them."""

from ._blocks import Blocks, partition
from ._ssa_plan import SSAPlan

__all__ = ["Blocks", "SSAPlan", "partition"]
