"""The sparse SDF record. What can be done with it lives in the files beside this one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.distance_band import require_band
from voxgen.representations._on_grid import OnGrid

from ._far import dense as _dense
from ._far import sdf_at as _sdf_at
from ._from_mesh import from_mesh as _from_mesh
from ._resample import resample as _resample
from ._sharp import sharp_edge_cells as _sharp_edge_cells
from ._storage import load as _load
from ._storage import save as _save
from ._to_mesh import to_mesh as _to_mesh
from ._transform import crop as _crop
from ._transform import merge as _merge

SAME_SIZE = 1e-6
"""How much the sides of a cell may differ, relatively: what rounding does."""


@dataclass(frozen=True, eq=False)
class SparseSDF(OnGrid):
    """Signed distances at the centres of the cells near a surface, negative inside, in cells.

    A cell (i, j, k) exists where its centre, `frame.to_world((i, j, k) + 0.5)`, is nearer to the surface than the band. All
    other cells are far: their distance counts as the band, and their sign follows from the cells along the grid's lines
    (`sdf_at`), so that the inside of a solid is negative although it is not stored.

    Guarantee of `to_mesh`: manifold, oriented, wound outwards, and closed where the surface of a closed solid lies a cell or
    more inside the grid; see `marching_cubes`.

    Args:
        grid: (n cells) the structure; a batch of objects is one grid. Its cells must be cubes.
        sdf_cells: (n, 1) float of any width, distances in cells (times `voxel_size` they are world units).
        band: half-width of the band in cells; 4 is 1/128 of a cube of side 2 at 1024³.
        signed: False for distances without a side.
    Raises:
        ShapeError, DtypeError, DeviceError: fields that do not fit the grid.   RangeError: a band that is not positive, cells
        that are no cubes.
    `from_mesh`, `to_mesh`, `sdf_at`, `dense`, `resample`, `sharp_edge_cells`, `crop`, `merge`, `save` and `load` are each
    defined in the file of their concept.

    Source: Direct3D-S2 (arXiv 2505.17412), sparse SDF volumes. Differences: values belong to cell centres, one convention for
        encoding and decoding (the original voxelises on nodes i / (n − 1) and extracts at i / n); the far field is signed, so
        that extraction needs no refinement of signs; values in cells, and `normalized()` gives the original's, in [−1, 1].
    Example:
        >>> from voxgen.testing.shapes import torus
        >>> sdf = SparseSDF.from_mesh(torus(), resolution=32)
        >>> sdf.to_mesh().num_faces > 2000
        True
    """

    grid: VoxelGrid
    sdf_cells: Float[Tensor, "n 1"]
    band: float = 4.0
    signed: bool = True

    def __post_init__(self) -> None:
        where = "SparseSDF"
        require_tensor(where, "sdf_cells", self.sdf_cells, (len(self.grid), 1), FLOATS)
        require_same_device(where, coords=self.grid.coords, sdf_cells=self.sdf_cells)
        object.__setattr__(self, "band", require_band(where, "band", self.band))
        require_cubes(where, self.grid.frame)

    @staticmethod
    def from_normalized(values: SparseTensor, band: float = 4.0, signed: bool = True) -> SparseSDF:
        """What networks put out, (n, 1) in [−1, 1], as distances; inverse of `normalized`. Differentiable."""
        return SparseSDF(values.grid, values.feats * band, band, signed)

    def normalized(self) -> SparseTensor:
        """Distances over the band, clamped to [−1, 1], as features: what the networks of Direct3D-S2 read. Differentiable."""
        return SparseTensor(self.grid, (self.sdf_cells / self.band).clamp(-1, 1))

    @property
    def sdf(self) -> Float[Tensor, "n 1"]:
        """(n, 1) distances in world units."""
        return self.sdf_cells * self.voxel_size

    @property
    def voxel_size(self) -> float:
        """World length of a cell."""
        return self.frame.voxel_size[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.sdf_cells.dtype

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"SparseSDF({self.grid!r}, {dtype}, band={self.band:g}{'' if self.signed else ', unsigned'})"

    def replace(self, **fields: object) -> SparseSDF:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]

    def to(self, target: torch.device | str | torch.dtype) -> SparseSDF:
        """Move to a device, or store the distances in another dtype."""
        if isinstance(target, torch.dtype):
            return self.replace(sdf_cells=self.sdf_cells.to(target))
        return self.replace(grid=self.grid.to(target), sdf_cells=self.sdf_cells.to(target))

    def sample(self, index: int) -> SparseSDF:
        """Object `index` of a batch, as a batch of one."""
        grid = self.grid.sample(index)
        start, end = self.grid.offsets[index : index + 2].tolist()
        return self.replace(grid=grid, sdf_cells=self.sdf_cells[start:end])

    @staticmethod
    def batched(items: Sequence[SparseSDF]) -> SparseSDF:
        """Put SDFs of one resolution, frame and band in one batch.

        Raises:
            ShapeError: nothing to batch.   RangeError: resolutions, bands or signs differ.   FrameError: frames differ.
        """
        if not items:
            raise ShapeError("SparseSDF.batched: at least one SDF is needed; got none.")
        require_alike("SparseSDF.batched", items)
        grid = VoxelGrid.batched([item.grid for item in items])
        return items[0].replace(grid=grid, sdf_cells=torch.cat([item.sdf_cells for item in items]))

    from_mesh = staticmethod(_from_mesh)
    to_mesh = _to_mesh
    sdf_at = _sdf_at
    dense = _dense
    resample = _resample
    sharp_edge_cells = _sharp_edge_cells
    crop = _crop
    merge = _merge
    save = _save
    load = staticmethod(_load)


def require_cubes(where: str, frame: Frame) -> None:
    """Raise RangeError unless the cells are cubes: a distance in cells has no meaning otherwise."""
    low, high = min(frame.voxel_size), max(frame.voxel_size)
    if high > low * (1 + SAME_SIZE):
        raise RangeError(f"{where}: cells must be cubes; got voxel_size {frame.voxel_size}. Choose a box whose sides fit the resolution.")


def require_alike(where: str, items: Sequence[SparseSDF]) -> None:
    """Raise RangeError unless all have one band and are all signed or all unsigned."""
    first = items[0]
    for item in items:
        if abs(item.band - first.band) > SAME_SIZE * first.band or item.signed != first.signed:
            raise RangeError(f"{where}: all must have one band, and signs or none; got {first!r} and {item!r}.")
