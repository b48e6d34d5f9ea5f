"""Weights of other libraries to voxgen's one layout (K, ci, co), and back.

Every library computes cross-correlation, so converting only moves axes. An optimiser's state moves like its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.core.checks import FLOATS, describe, require_choice, require_int3, require_tensor
from voxgen.core.errors import ShapeError

Layout = Literal["torch", "torch-transposed", "trellis2", "spconv", "spconv-2.1", "spconv-1", "torchsparse"]
"""Whose weights.

"torch": (co, ci, kx, ky, kz) of `conv3d` on volumes (b, c, x, y, z).   "torch-transposed": (ci, co, kx, ky, kz) of
`conv_transpose3d`.   "trellis2": (co, kx, ky, kz, ci) of TRELLIS.2's files and FlexGEMM.   "spconv": the same from version
2.2 on, except that 1x1x1 weights are (ci, co) in memory under the declared shape (co, 1, 1, 1, ci).   "spconv-2.1":
(kx, ky, kz, co, ci) of 2.0 and 2.1.   "spconv-1": (kx, ky, kz, ci, co) of 1.x.   "torchsparse": (K, ci, co) with x fastest
where K is odd and x slowest where it is even; (ci, co) for 1x1x1.
"""


@dataclass(frozen=True)
class _Axes:
    """How a five-dimensional layout lies: the axes of (kx, ky, kz, ci, co) in it."""

    order: tuple[int, int, int, int, int]

    def read(self, weight: Tensor) -> Tensor:
        if self.order == (1, 2, 3, 4, 0):  # as a matrix, which torch transposes several times as fast
            return weight.flatten(1).t().contiguous().unflatten(0, weight.shape[1:])
        return weight.permute(self.order)

    def write(self, weight: Tensor) -> Tensor:
        if self.order == (1, 2, 3, 4, 0):
            return weight.flatten(0, 3).t().contiguous().unflatten(1, weight.shape[:4])
        return weight.permute(*(self.order.index(axis) for axis in range(5)))


_AXES = {
    "torch": _Axes((2, 3, 4, 1, 0)),
    "torch-transposed": _Axes((2, 3, 4, 0, 1)),
    "trellis2": _Axes((1, 2, 3, 4, 0)),
    "spconv": _Axes((1, 2, 3, 4, 0)),
    "spconv-2.1": _Axes((0, 1, 2, 4, 3)),
    "spconv-1": _Axes((0, 1, 2, 3, 4)),
}


def from_layout(weight: Tensor, layout: Layout, kernel_size: int | Int3 | None = None) -> Tensor:
    """Another library's weight as `sparse_conv` takes it.

    Args:
        weight: floats in the layout named.
        layout: see `Layout`.
        kernel_size: needed for torchsparse weights whose kernel is no cube; otherwise None, or what the shape must be.
    Returns:
        (K, ci, co) contiguous, offsets x slowest; (ci, co) for 1x1x1. Differentiable.
    Raises:
        ShapeError: a shape that is not of this layout and kernel size.   RangeError: an unknown layout.
        DtypeError: not a float tensor.
    Example:
        >>> from_layout(torch.rand(16, 3, 3, 3, 8), "trellis2").shape
        torch.Size([27, 8, 16])
    """
    where = "from_layout"
    require_choice(where, "layout", layout, get_args(Layout))
    size = None if kernel_size is None else require_int3(where, "kernel_size", kernel_size, 1)
    if layout == "torchsparse":
        volume = _torchsparse_volume(where, weight, size)
    else:
        require_tensor(where, f"weight in layout {layout!r}", weight, ("a", "b", "c", "d", "e"), FLOATS)
        volume = _AXES[layout].read(weight)
        if size is not None and tuple(volume.shape[:3]) != size:
            raise ShapeError(f"{where}: weight must have kernel size {size} in layout {layout!r}; got {describe(weight)}.")
        if layout == "spconv" and volume.shape[:3].numel() == 1:
            volume = weight.reshape(1, 1, 1, weight.shape[4], weight.shape[0])
    canonical = volume.reshape(-1, *volume.shape[3:]).contiguous()
    return canonical[0] if len(canonical) == 1 else canonical


def to_layout(weight: Tensor, layout: Layout, kernel_size: int | Int3 = 3) -> Tensor:
    """Inverse of `from_layout`: a weight of `sparse_conv`, (K, ci, co) or (ci, co), in another library's layout.

    Args:
        weight: (K, ci, co), or (ci, co) where K is 1.
        layout, kernel_size: as in `from_layout`; kx·ky·kz must be K.
    Raises:
        ShapeError: K is not that of the kernel size.   RangeError: an unknown layout.   DtypeError: not a float tensor.
    """
    where = "to_layout"
    require_choice(where, "layout", layout, get_args(Layout))
    x, y, z = require_int3(where, "kernel_size", kernel_size, 1)
    if weight.ndim == 2:
        weight = weight[None]
    require_tensor(where, "weight", weight, (x * y * z, "ci", "co"), FLOATS, hint=f"The kernel size is {(x, y, z)}.")
    volume = weight.reshape(x, y, z, *weight.shape[1:])
    if layout == "torchsparse":
        flat = _x_fastest(volume) if x * y * z % 2 else weight.contiguous()
        return flat[0] if len(flat) == 1 else flat
    if layout == "spconv" and x * y * z == 1:
        return weight.reshape(weight.shape[2], 1, 1, 1, weight.shape[1])
    return _AXES[layout].write(volume).contiguous()


def _torchsparse_volume(where: str, weight: Tensor, size: Int3 | None) -> Tensor:
    """(kx, ky, kz, ci, co) of a torchsparse kernel."""
    if weight.ndim == 2:
        weight = weight[None]
    if size is None:
        side = round(len(weight) ** (1 / 3))
        size = (side, side, side)
    x, y, z = size
    require_tensor(where, "weight", weight, (x * y * z, "ci", "co"), FLOATS, hint="Give kernel_size if the kernel is no cube.")
    if x * y * z % 2:
        return weight.reshape(z, y, x, *weight.shape[1:]).permute(2, 1, 0, 3, 4)
    return weight.reshape(x, y, z, *weight.shape[1:])


def _x_fastest(volume: Tensor) -> Tensor:
    return volume.permute(2, 1, 0, 3, 4).reshape(-1, *volume.shape[3:]).contiguous()


__all__ = ["Layout", "from_layout", "to_layout"]
