"""What a network says of each cell → the field at the corners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import FLOATS, require_choice, require_same_device, require_tensor
from voxgen.core.coords import is_sorted, pack_keys, unpack_keys
from voxgen.core.errors import ShapeError
from voxgen.ops.cube_corners import average_at_corners, corner_deviation, cube_corners
from voxgen.ops.segment import segment_reduce
from voxgen.representations.sparse_sdf._fields import require_cubes

if TYPE_CHECKING:
    from ._fields import SparseFlex

CHANNELS = 53
"""8 values, 8 × 3 displacements, 12 beta, 8 alpha, 1 gamma."""
FIELD = 32
"""Of these, the channels that say something of corners."""
REACH = 0.5 * (1 - 1e-8)
"""How far a corner can be moved along an axis, in cells."""
SPAN = 0.99
"""Weights alpha and beta are 1 ± SPAN, gamma between LEAST and LEAST + SPAN."""
LEAST = 0.005

Compat = Literal["triposf", "trellis"]


class SparseFlexPrediction(NamedTuple):
    """A field, and what it was averaged from.

    flex: the field.
    at_cells: (n, 8, 4) what each cell says of its corners: value (world units), displacement (raw).
    at_corners: (m, 4) the mean of these over the cells that share a corner.
    """

    flex: SparseFlex
    at_cells: Float[Tensor, "n 8 4"]
    at_corners: Float[Tensor, "m 4"]

    def deviation(self) -> Float[Tensor, "n 8 4"]:
        """What each cell says, less the mean. Differentiable."""
        return corner_deviation(self.at_cells, self.at_corners, self.flex.corners)

    def consistency(self) -> Tensor:
        """The consistency term: the mean square of `deviation`, () ; 0 without cells. Differentiable."""
        return self.deviation().square().mean() if len(self.at_cells) else self.at_cells.sum()


def from_features(grid: VoxelGrid, feats: Float[Tensor, "n 53"], *, compat: Compat | None = None) -> SparseFlex:
    """The field that a network's channels mean.

    Args:
        grid: (n cells), of the output's resolution; cells must be cubes.
        feats: (n, 53) raw channels: values at the 8 corners, displacements (8, 3), 12 beta, 8 alpha, 1 gamma. Corners as in
            `cube_corners` (x runs fastest), edges as in `flexicubes`.
        compat: scale of the values. None and "triposf": sdf = (4 · raw − 1) · voxel_size. "trellis": sdf = raw − voxel_size.
    Returns:
        SparseFlex, float32 (float64 for float64 feats). Differentiable. Cells that share a corner are averaged there, values and
        raw displacements alike; then offset = ½ (1 − 1e-8) · voxel_size · tanh(raw), alpha and beta = 1 + 0.99 tanh(raw),
        gamma = 0.99 sigmoid(raw) + 0.005.
    Raises:
        ShapeError, DtypeError, DeviceError: feats that do not fit the grid.   RangeError: cells that are no cubes.
    A network whose last layer starts at zero gives −voxel_size everywhere: no sign change, no mesh and no gradient from it. Start with
    a loss on the values.
    Source: TripoSF (SparseFeatures2Mesh); differences: none in exact arithmetic.
    """
    return predict(grid, feats, compat=compat).flex


def predict(grid: VoxelGrid, feats: Float[Tensor, "n 53"], *, compat: Compat | None = None) -> SparseFlexPrediction:
    """`from_features`, with what each cell says by itself, for the consistency term. Arguments and errors as there."""
    return _predict("SparseFlex.from_features", grid, feats, None, compat)


def from_rows(
    coords: Tensor,
    feats: Float[Tensor, "r 53"],
    *,
    resolution: int | Int3,
    batch_size: int | None = None,
    frame: Frame | None = None,
    compat: Compat | None = None,
) -> SparseFlex:
    """`from_features` for cells in any order; with `compat` also for cells that come several times.

    Args:
        coords: (r, 4) int32 [batch, x, y, z].
        feats: (r, 53) a row for each.
        resolution, batch_size, frame: as in `VoxelGrid.build`.
        compat: as in `from_features`; with "triposf" a cell may come several times (the released code decodes in chunks that overlap):
            corners average every copy, and the weights of the last one count. None and "trellis" raise.
    Returns:
        SparseFlex on the sorted cells, each once.
    Raises:
        DuplicateError: a cell that comes twice.   Others as in `from_features` and `VoxelGrid.build`.
    """
    where = "SparseFlex.from_rows"
    require_tensor(where, "coords", coords, ("r", 4), (torch.int32,))
    _check(where, len(coords), feats, compat)
    require_same_device(where, coords=coords, feats=feats)
    keys, order = pack_keys(coords).sort(stable=True)
    if compat != "triposf" or is_sorted(keys):
        grid, order = VoxelGrid.build(coords, resolution=resolution, batch_size=batch_size, frame=frame)
        return _predict(where, grid, feats.index_select(0, order), None, compat).flex
    cells, counts = keys.unique_consecutive(return_counts=True)
    grid, _ = VoxelGrid.build(unpack_keys(cells), resolution=resolution, batch_size=batch_size, frame=frame)
    bounds = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    copies = feats.index_select(0, order)
    mean = segment_reduce(copies[:, :FIELD].contiguous(), bounds, "mean")
    last = copies.index_select(0, bounds[1:] - 1)[:, FIELD:]
    return _predict(where, grid, torch.cat((mean, last), 1), counts, compat).flex


def check_features(where: str, grid: VoxelGrid, feats: Tensor, compat: Compat | None) -> None:
    """Raise unless feats are 53 channels for each cell of a grid of cubes, on its device."""
    _check(where, len(grid), feats, compat)
    require_same_device(where, grid=grid.coords, feats=feats)
    require_cubes(where, grid.frame)


def _check(where: str, rows: int, feats: Tensor, compat: Compat | None) -> None:
    require_tensor(where, "feats", feats, ("n", CHANNELS), FLOATS, hint="8 values, 24 displacements, 12 beta, 8 alpha, 1 gamma.")
    if len(feats) != rows:
        raise ShapeError(f"{where}: feats must have one row for each of the {rows} cells; got {tuple(feats.shape)}.")
    if compat is not None:
        require_choice(where, "compat", compat, ("triposf", "trellis"))


def _predict(where: str, grid: VoxelGrid, feats: Tensor, copies: Tensor | None, compat: Compat | None) -> SparseFlexPrediction:
    from ._fields import SparseFlex

    check_features(where, grid, feats, compat)
    size = grid.frame.voxel_size[0]
    raw = feats.to(torch.promote_types(feats.dtype, torch.float32))
    values, moves, beta, alpha, gamma = raw.split((8, 24, 12, 8, 1), dim=1)
    scaled = values - size if compat == "trellis" else values * (4 * size) - size
    at_cells = torch.cat((scaled[:, :, None], moves.reshape(-1, 8, 3)), 2)
    at_corners = average_at_corners(at_cells, cube_corners(grid), weight=None if copies is None else copies.to(raw.dtype))
    flex = SparseFlex(
        grid,
        at_corners[:, 0],
        REACH * size * at_corners[:, 1:].tanh(),
        1 + SPAN * alpha.tanh(),
        1 + SPAN * beta.tanh(),
        SPAN * gamma[:, 0].sigmoid() + LEAST,
    )
    return SparseFlexPrediction(flex, at_cells, at_corners)
