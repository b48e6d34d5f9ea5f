"""The SparseFlex record. What can be done with it lives in the files beside this one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.ops.cube_corners import CubeCorners, cube_corners
from voxgen.representations._on_grid import OnGrid

from ._convert import from_sparse_sdf as _from_sparse_sdf
from ._convert import to_ovoxel as _to_ovoxel
from ._enclose import enclosed as _enclosed
from ._features import from_features as _from_features
from ._features import from_rows as _from_rows
from ._features import predict as _predict
from ._from_mesh import from_mesh as _from_mesh
from ._storage import load as _load
from ._storage import save as _save
from ._to_mesh import mesh_from_features as _mesh_from_features
from ._to_mesh import surface as _surface
from ._to_mesh import to_mesh as _to_mesh
from ._to_mesh import to_meshes as _to_meshes
from ._transform import crop as _crop
from ._transform import merge as _merge
from ._transform import select as _select

PER_CORNER = ("sdf", "offsets")
PER_CELL = {"alpha": (8,), "beta": (12,), "gamma": ()}


@dataclass(frozen=True, eq=False)
class SparseFlex(OnGrid):
    """A field at the corners of sparse cells, with weights in each cell: a surface of any topology, open where the cells end.

    Corner i lies at lattice point `corners.coords[i, 1:]` of the grid, moved by `offsets[i]`. The surface is where `sdf` passes 0; cells
    with corners of both signs carry dual vertices, and an edge that changes sign and has all of its four cells carries a quad. So
    a surface ends half a cell before the cells do, and open surfaces need no unsigned distance.

    Guarantee of `to_mesh`: oriented towards positive values; every edge has one or two quads; closed where no cell is missing around
    an edge that changes sign.

    Args:
        grid: (n cells) the structure; a batch of objects is one grid.
        sdf: (m,) values at the corners in the order of `corners`, world units by convention, negative inside; 0 counts as outside.
        offsets: (m, 3) how far each corner is moved, world units, at most half a cell along each axis; None: not at all.
        alpha: (n, 8) positive weights of each cell for its corners; beta: (n, 12) for its edges; None: ones. What is stored is active:
            `from_features` applies the activations of a network's channels.
        gamma: (n,) weights >= 0 that decide how quads are cut; None: ones.
    Raises:
        ShapeError, DtypeError, DeviceError: fields that do not fit the grid.
    `from_features`, `predict`, `from_rows`, `from_mesh`, `from_sparse_sdf`, `surface`, `to_mesh`, `to_meshes`, `mesh_from_features`,
    `to_ovoxel`, `crop`, `select`, `merge`, `enclosed`, `save` and `load` are each defined in the file of their concept.

    Source: SparseFlex (arXiv 2503.21732), on FlexiCubes (Shen et al. 2023). Differences: fields in world units of any frame;
        batches; see `to_mesh`.
    Example:
        >>> from voxgen.testing.shapes import bowl
        >>> flex = SparseFlex.from_mesh(bowl(), resolution=32)
        >>> flex.to_mesh().num_faces > 2000
        True
    """

    grid: VoxelGrid
    sdf: Float[Tensor, " m"]
    offsets: Float[Tensor, "m 3"] | None = None
    alpha: Float[Tensor, "n 8"] | None = None
    beta: Float[Tensor, "n 12"] | None = None
    gamma: Float[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        where, m, n = "SparseFlex", len(self.corners), len(self.grid)
        require_tensor(where, "sdf", self.sdf, (m,), FLOATS, hint="One value a corner, in the order of cube_corners(grid).")
        if self.offsets is not None:
            require_tensor(where, "offsets", self.offsets, (m, 3), FLOATS, hint="One displacement a corner.")
        for name, width in PER_CELL.items():
            if getattr(self, name) is not None:
                require_tensor(where, name, getattr(self, name), (n, *width), FLOATS)
        require_same_device(where, coords=self.grid.coords, **self.tensors())

    @property
    def corners(self) -> CubeCorners:
        """Which corners there are, and the rows of those of each cell; kept on the grid."""
        return cube_corners(self.grid)

    @property
    def positions(self) -> Float[Tensor, "m 3"]:
        """(m, 3) world positions of the corners, moved. Differentiable in `offsets`."""
        dtype = torch.promote_types(self.sdf.dtype, torch.float32)
        placed = self.frame.to_world(self.corners.coords[:, 1:].to(dtype))
        return placed if self.offsets is None else placed + self.offsets

    @property
    def dtype(self) -> torch.dtype:
        return self.sdf.dtype

    def __repr__(self) -> str:
        extra = "".join(f", {name}" for name in self.tensors() if name != "sdf")
        return f"SparseFlex({self.grid!r}, {len(self.sdf)} corners, {str(self.dtype).removeprefix('torch.')}{extra})"

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are there, without the grid, by name."""
        names = (*PER_CORNER, *PER_CELL)
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def replace(self, **fields: object) -> SparseFlex:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]

    def to(self, target: torch.device | str | torch.dtype) -> SparseFlex:
        """Move to a device, or store the fields in another dtype."""
        grid = self.grid if isinstance(target, torch.dtype) else self.grid.to(target)
        return SparseFlex(grid, **{name: value.to(target) for name, value in self.tensors().items()})

    def sample(self, index: int) -> SparseFlex:
        """Object `index` of a batch, as a batch of one."""
        grid = self.grid.sample(index)
        rows = {name: self.corners.offsets if name in PER_CORNER else self.grid.offsets for name in self.tensors()}
        return SparseFlex(grid, **{name: value[slice(*rows[name][index : index + 2].tolist())] for name, value in self.tensors().items()})

    @staticmethod
    def batched(items: Sequence[SparseFlex]) -> SparseFlex:
        """Put objects of one resolution and frame in one batch.

        Raises:
            ShapeError: nothing to batch, or fields that not all have.   RangeError: resolutions differ.   FrameError: frames differ.
        """
        if not items:
            raise ShapeError("SparseFlex.batched: at least one object is needed; got none.")
        require_same_fields("SparseFlex.batched", items)
        grid = VoxelGrid.batched([item.grid for item in items])
        return SparseFlex(grid, **{name: torch.cat([item.tensors()[name] for item in items]) for name in items[0].tensors()})

    from_features = staticmethod(_from_features)
    predict = staticmethod(_predict)
    from_rows = staticmethod(_from_rows)
    from_mesh = staticmethod(_from_mesh)
    from_sparse_sdf = staticmethod(_from_sparse_sdf)
    mesh_from_features = staticmethod(_mesh_from_features)
    surface = _surface
    to_mesh = _to_mesh
    to_meshes = _to_meshes
    to_ovoxel = _to_ovoxel
    crop = _crop
    enclosed = _enclosed
    select = _select
    merge = _merge
    save = _save
    load = staticmethod(_load)


def require_same_fields(where: str, items: Sequence[SparseFlex]) -> None:
    """Raise ShapeError unless all have the same optional fields."""
    for item in items:
        if set(item.tensors()) != set(items[0].tensors()):
            raise ShapeError(f"{where}: all must have the same fields; got {sorted(items[0].tensors())} and {sorted(item.tensors())}.")
