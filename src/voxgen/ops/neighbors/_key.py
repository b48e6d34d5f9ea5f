"""NeighborKey: which cells are neighbours, as a value that tables are kept under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voxgen.core.aliases import Int3
from voxgen.core.checks import require_choice, require_int3
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import RangeError

Sites = Literal["floor", "window"]
"""Where a strided table has outputs.

"floor": at [x // s] of each cell. "window": wherever a window that lies inside the padded grid touches a cell, as in
spconv; that is also the extent of a dense convolution.
"""


@dataclass(frozen=True)
class NeighborKey:
    """Footprint of a neighbour table: output o and offset k = (i, j, l) belong to the input `stride·o − padding + dilation·k`.

    Args:
        kernel_size: cells along x, y, z.
        dilation: distance of two offsets.
        stride: distance of two outputs in input cells.
        padding: how far the first window begins before the grid.
        sites: rule for the outputs of a strided table.
        transposed: inputs and outputs change roles: the input `o` belongs to the output `stride·o − padding + dilation·k`.
    """

    kernel_size: Int3
    dilation: Int3
    stride: Int3
    padding: Int3
    sites: Sites
    transposed: bool

    @property
    def volume(self) -> int:
        """Number of offsets; k = (i·ky + j)·kz + l, x slowest."""
        x, y, z = self.kernel_size
        return x * y * z

    @property
    def stays_on_inputs(self) -> bool:
        """True if the outputs are the inputs, unless they are given."""
        return self.stride == (1, 1, 1) and self.sites == "floor" and not self.transposed

    @property
    def is_centered(self) -> bool:
        """True if offset K − 1 − k is the opposite of offset k, so that outputs on the inputs give a symmetric table."""
        middle = tuple(d * (k // 2) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return self.stride == (1, 1, 1) and self.padding == middle and all(k % 2 for k in self.kernel_size)

    def output_resolution(self, resolution: Int3) -> Int3:
        """Cells along each axis of the outputs, 0 where no window fits."""
        axes = zip(resolution, self.kernel_size, self.dilation, self.stride, self.padding, strict=True)
        if self.transposed:
            x, y, z = (r * s for r, _, _, s, _ in axes)
        elif self.sites == "floor":
            x, y, z = (-(-r // s) for r, _, _, s, _ in axes)
        else:
            x, y, z = (max(0, (r + 2 * p - d * (k - 1) - 1) // s + 1) for r, k, d, s, p in axes)
        return x, y, z


def make_key(
    where: str, kernel_size: int | Int3, dilation: int | Int3, stride: int | Int3, padding: int | Int3 | None, sites: str, transposed: bool
) -> NeighborKey:
    """Check the arguments of `neighbor_table` and fill in the default padding."""
    kernel = require_int3(where, "kernel_size", kernel_size, 1, MAX_RESOLUTION)
    spread = require_int3(where, "dilation", dilation, 1, MAX_RESOLUTION)
    step = require_int3(where, "stride", stride, 1, MAX_RESOLUTION)
    if any(k % 2 == 0 and k != s for k, s in zip(kernel, step, strict=True)):
        raise RangeError(
            f"{where}: an even kernel_size has no middle, so it must equal the stride along its axis (as in a downsampling by 2); "
            f"got kernel_size {kernel} with stride {step}. Use an odd kernel_size."
        )
    if any(d * (k - 1) > 2 * MAX_RESOLUTION for k, d in zip(kernel, spread, strict=True)):
        raise RangeError(
            f"{where}: a footprint may reach over {2 * MAX_RESOLUTION} cells, twice the largest grid; kernel_size {kernel} with dilation "
            f"{spread} reaches farther. Use a smaller dilation."
        )
    if padding is None:
        x, y, z = (d * (k // 2) if k % 2 else 0 for k, d in zip(kernel, spread, strict=True))
        margin = (x, y, z)
    else:
        margin = require_int3(where, "padding", padding, 0, MAX_RESOLUTION)
    rule: Sites = "window" if require_choice(where, "sites", sites, ("floor", "window")) == "window" else "floor"
    return NeighborKey(kernel, spread, step, margin, rule, transposed)
