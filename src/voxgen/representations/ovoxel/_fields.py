"""The O-Voxel record. What can be done with it lives in the files beside this one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.aliases import EdgeFlags
from voxgen.core.checks import require_choice, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.core.material import linear_to_srgb
from voxgen.representations._on_grid import OnGrid

from ._bake_onto import bake as _bake
from ._from_mesh import from_mesh as _from_mesh
from ._storage import load as _load
from ._storage import save as _save
from ._to_mesh import to_mesh as _to_mesh
from ._transform import crop as _crop
from ._transform import merge as _merge
from ._transform import resample as _resample

MATERIAL_CHANNELS = {"base_color": 3, "metallic": 1, "roughness": 1, "emissive": 3, "alpha": 1, "normal": 3}
"""Materials that an O-Voxel may carry, and their widths, in their order."""

DEFAULT_MATERIALS = ("base_color", "metallic", "roughness", "alpha")
"""The materials that TRELLIS.2 stores and its networks read."""


@dataclass(frozen=True, eq=False)
class OVoxel(OnGrid):
    """Sparse cells with one dual vertex each, flags for the crossed grid edges, and materials.

    Cell (i, j, k) owns the three edges that meet at its highest corner (i + 1, j + 1, k + 1), one along each axis. Where
    an edge is flagged, a quad joins the dual vertices of the four cells around it. Open surfaces, several sheets and
    inner surfaces are all representable, down to one vertex a cell.

    Guarantee of `to_mesh`: closed where the source was closed and its walls are thicker than a cell; wound as the source
    was where `crossing_sign` is given; not manifold where two sheets share a cell.

    Args:
        grid: (n cells) the structure; a batch of objects is one grid.
        dual_vertices: (n, 3) float, position inside the cell, nominally in [0, 1] (networks may leave it).
        intersected: (n, 3) bool, the flags of the owned edges along x, y, z.
        crossing_sign: (n, 3) bool or None; true where the surface's front looks along + the edge's axis. TRELLIS.2 has no
            such bits; without them all quads face the negative axis.
        split_weight: (n, 1) float or None; which diagonal splits a quad (a network's output; no ground truth exists).
        materials: (n, c) float by name, see `MATERIAL_CHANNELS`; values in [0, 1] (normal in [-1, 1]).
        color_space: how base_color and emissive are stored: "srgb" (encoded, as in TRELLIS.2) or "linear".
    Raises:
        ShapeError, DtypeError, DeviceError: fields that do not fit the grid.   RangeError: an unknown material.
    `from_mesh`, `to_mesh`, `bake`, `save`, `load`, `crop`, `merge` and `resample` are each defined in the file of their concept.

    Source: TRELLIS.2 (arXiv 2512.14692), section on O-Voxel. Differences: `crossing_sign`; see `from_mesh` and `to_mesh`.
    Example:
        >>> from voxgen.testing.shapes import torus
        >>> ovoxel = OVoxel.from_mesh(torus(), resolution=32, materials=False)
        >>> ovoxel.to_mesh().num_faces > 3000
        True
    """

    grid: VoxelGrid
    dual_vertices: Tensor
    intersected: EdgeFlags
    crossing_sign: EdgeFlags | None = None
    split_weight: Tensor | None = None
    materials: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    color_space: Literal["srgb", "linear"] = "srgb"

    def __post_init__(self) -> None:
        n = len(self.grid)
        floats = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        require_tensor("OVoxel", "dual_vertices", self.dual_vertices, (n, 3), floats)
        require_tensor("OVoxel", "intersected", self.intersected, (n, 3), (torch.bool,))
        if self.crossing_sign is not None:
            require_tensor("OVoxel", "crossing_sign", self.crossing_sign, (n, 3), (torch.bool,))
        if self.split_weight is not None:
            require_tensor("OVoxel", "split_weight", self.split_weight, (n, 1), floats)
        for name, value in self.materials.items():
            if name not in MATERIAL_CHANNELS:
                raise RangeError(f"OVoxel: materials must be among {', '.join(MATERIAL_CHANNELS)}; got {name!r}.")
            require_tensor("OVoxel", f"materials[{name!r}]", value, (n, MATERIAL_CHANNELS[name]), floats)
        ordered = {name: self.materials[name] for name in MATERIAL_CHANNELS if name in self.materials}
        object.__setattr__(self, "materials", ordered)
        require_choice("OVoxel", "color_space", self.color_space, ("srgb", "linear"))
        tensors = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if isinstance(getattr(self, f.name), Tensor)}
        require_same_device("OVoxel", coords=self.grid.coords, **tensors, **ordered)

    def __repr__(self) -> str:
        extra = [name for name in ("crossing_sign", "split_weight") if getattr(self, name) is not None]
        return f"OVoxel({', '.join([repr(self.grid), *extra, *self.materials])})"

    def replace(self, **fields: object) -> OVoxel:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]

    def to(self, device: torch.device | str) -> OVoxel:
        """The same O-Voxel on another device."""
        return OVoxel(
            self.grid.to(device),
            self.dual_vertices.to(device),
            self.intersected.to(device),
            None if self.crossing_sign is None else self.crossing_sign.to(device),
            None if self.split_weight is None else self.split_weight.to(device),
            {name: value.to(device) for name, value in self.materials.items()},
            self.color_space,
        )

    def rows(self, grid: VoxelGrid, keep: Tensor) -> OVoxel:
        """The rows `keep` (mask or indices) on `grid`, which must be their cells."""
        fields = {
            name: None if getattr(self, name) is None else getattr(self, name)[keep]
            for name in ("dual_vertices", "intersected", "crossing_sign", "split_weight")
        }
        return self.replace(grid=grid, materials={name: value[keep] for name, value in self.materials.items()}, **fields)

    def sample(self, index: int) -> OVoxel:
        """Object `index` of a batch, as a batch of one."""
        grid = self.grid.sample(index)
        start, end = self.grid.offsets[index : index + 2].tolist()
        return self.rows(grid, torch.arange(start, end, device=self.device))

    @staticmethod
    def batched(items: Sequence[OVoxel]) -> OVoxel:
        """Put O-Voxels of one resolution and frame in one batch. Fields and materials that not all have raise ShapeError."""
        grid = VoxelGrid.batched([item.grid for item in items])
        columns: dict[str, Tensor | None] = {}
        for name in ("dual_vertices", "intersected", "crossing_sign", "split_weight"):
            values = [getattr(item, name) for item in items]
            missing = [v is None for v in values]
            if any(missing) and not all(missing):
                raise ShapeError(f"OVoxel.batched: all items or none must have {name}; {sum(missing)} of {len(items)} lack it.")
            columns[name] = None if missing[0] else torch.cat(values)
        if any(item.color_space != items[0].color_space for item in items):
            raise RangeError("OVoxel.batched: all items must have one color_space.")
        if any(list(item.materials) != list(items[0].materials) for item in items):
            raise ShapeError(f"OVoxel.batched: all items must have the same materials; got {[list(i.materials) for i in items]}.")
        materials = {name: torch.cat([item.materials[name] for item in items]) for name in items[0].materials}
        return items[0].replace(grid=grid, materials=materials, **columns)

    def with_srgb(self) -> OVoxel:
        """With the materials that a mesh can carry, colours sRGB-encoded. Normals stay behind: a mesh has its own."""
        materials = {name: value for name, value in self.materials.items() if name != "normal"}
        if self.color_space == "linear":
            materials.update({n: linear_to_srgb(materials[n]) for n in ("base_color", "emissive") if n in materials})
        return self.replace(materials=materials, color_space="srgb")

    def material_tensor(self, names: Sequence[str] = DEFAULT_MATERIALS) -> SparseTensor:
        """The named materials side by side as features, in [-1, 1] (value * 2 - 1), as the material networks read them."""
        missing = [name for name in names if name not in self.materials]
        if missing:
            raise RangeError(f"OVoxel.material_tensor: materials {missing} are not there; there are {list(self.materials)}.")
        columns = [self.materials[n] if n == "normal" else self.materials[n] * 2 - 1 for n in names]
        return SparseTensor(self.grid, torch.cat(columns, 1))

    bake = _bake
    from_mesh = staticmethod(_from_mesh)
    to_mesh = _to_mesh
    save = _save
    load = staticmethod(_load)
    crop = _crop
    merge = _merge
    resample = _resample
