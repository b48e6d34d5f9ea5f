"""O-Voxel → mesh."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from voxgen.core import Material, TriMesh
from voxgen.core.checks import require_choice
from voxgen.core.errors import EmptyResultWarning, RangeError
from voxgen.ops.dual_faces import dual_faces

if TYPE_CHECKING:
    from ._fields import OVoxel


def to_mesh(
    ovoxel: OVoxel,
    *,
    split: Literal["auto", "weight", "angle", "first"] = "auto",
    training: bool = False,
    materials: Literal["attributes", "texture"] | None = "attributes",
    texture_size: int = 2048,
    unwrap: Literal["grid", "xatlas"] = "grid",
    compat: Literal["trellis2"] | None = None,
    backend: str = "auto",
) -> TriMesh:
    """Join the dual vertices around each flagged edge by a quad, and split the quads to triangles.

    Args:
        split: which diagonal. "weight": the pair of opposite corners with the larger product of split weights; "angle":
            the flatter pair of triangles; "first": corners 0 and 2; "auto": by weight where there are weights, else by angle.
        training: put a fifth vertex into each quad instead of choosing a diagonal, so that positions and split weights
            both have a gradient.
        materials: "attributes" gives each vertex its cell's materials; "texture" bakes them into an image (one object,
            not for training); None leaves them out.
        texture_size: side of the baked images in pixels.
        unwrap: atlas of the baked images: "grid" (own, any size of mesh, seams between all quads) or "xatlas" (few charts,
            slow above some 100,000 triangles; needs `voxgen[uv]`).
        compat: "trellis2" gives the original's vertex and face lists: unused vertices stay, all quads face the negative
            axis, the diagonal without weights is the first.
        backend: see docs/backends.md.
    Returns:
        TriMesh in world units. A batch becomes one mesh with one part for each object, in order ("0", "1", ...).
        Differentiable in dual vertices, split weights and, as attributes, in materials; flags take no gradient.
    Warns:
        EmptyResultWarning: no quad has all four cells (an empty O-Voxel gives an empty mesh without a warning).
    Raises:
        RangeError: `split="weight"` without weights, a split together with `training`, textures of a batch or a training mesh.
    Source: TRELLIS.2. Differences: true angle rule, winding by crossing signs, unused vertices dropped.
    """
    require_choice("OVoxel.to_mesh", "split", split, ("auto", "weight", "angle", "first"))
    if materials is not None:
        require_choice("OVoxel.to_mesh", "materials", materials, ("attributes", "texture"))
    bake = materials == "texture" and bool(set(ovoxel.materials) - {"normal"})
    if bake and (ovoxel.batch_size > 1 or training):
        raise RangeError("OVoxel.to_mesh: materials='texture' takes one object at a time and no training mesh; use .sample(i).")
    surface = ovoxel.with_srgb()
    result = dual_faces(
        ovoxel.grid,
        _single(ovoxel.dual_vertices),
        ovoxel.intersected,
        split_weight=None if ovoxel.split_weight is None or split in ("angle", "first") else _single(ovoxel.split_weight),
        crossing_sign=ovoxel.crossing_sign,
        split=split,
        training=training,
        compat=compat,
        backend=backend,
    )
    if len(result.faces) == 0 and len(ovoxel) > 0:
        warnings.warn(
            f"OVoxel.to_mesh: none of the {int(ovoxel.intersected.sum())} flagged edges has all four cells around it, "
            f"so the mesh is empty ({ovoxel!r}).",
            EmptyResultWarning,
            stacklevel=2,
        )
    attributes = {}
    if materials == "attributes":
        attributes = {name: result.at_vertices(_single(value)) for name, value in surface.materials.items()}
    mesh = TriMesh(
        result.vertices,
        result.faces,
        attributes=attributes,
        materials=(_neutral(surface),) if surface.materials else (),
        part_names=tuple(str(i) for i in range(ovoxel.batch_size)) or ("",),
        face_part=_parts(result.face_offsets) if ovoxel.batch_size > 1 else None,
        up=ovoxel.frame.up,
    )
    if bake and mesh.num_faces:
        from ._bake import bake_materials

        return bake_materials(mesh, surface, texture_size, unwrap)
    return mesh


def _single(values: Tensor) -> Tensor:
    """Half-precision numbers in float32; others as they are."""
    return values if values.dtype == torch.float64 else values.float()


def _neutral(ovoxel: OVoxel) -> Material:
    """White with all factors 1, so that attributes and textures count as they are."""
    transparent = "alpha" in ovoxel.materials and bool((ovoxel.materials["alpha"] < 0.999).any())
    return Material("ovoxel", alpha_mode="BLEND" if transparent else "OPAQUE", double_sided=True)


def _parts(face_offsets: Tensor) -> Tensor:
    counts = face_offsets[1:] - face_offsets[:-1]
    return torch.arange(len(counts), dtype=torch.int32, device=counts.device).repeat_interleave(counts)
