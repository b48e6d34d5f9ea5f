"""Materials of an O-Voxel as textures of another mesh."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

import torch

from voxgen.core import Material, TriMesh
from voxgen.core.checks import describe, require_choice, require_int
from voxgen.core.errors import DtypeError, RangeError

from ._bake import MIN_SQUARE, Atlas, atlas_images, atlas_material, make_atlas, uv_atlas

if TYPE_CHECKING:
    from ._fields import OVoxel

LEFT_OVER = 1e-4
"""By how much texture coordinates may leave [0, 1]."""
OVERLAP = 1.05
"""Area of the charts over the texels that they cover, above which charts overlap. Texels are counted by their centres, which is exact in
the mean."""


def bake(ovoxel: OVoxel, mesh: TriMesh, *, texture_size: int = 2048, unwrap: Literal["auto", "keep", "xatlas", "grid"] = "auto") -> TriMesh:
    """Give a mesh the materials of this O-Voxel, as textures.

    Args:
        mesh: in the O-Voxel's world, with its axis up; usually the one that it was made from.
        texture_size: side of the square images in pixels.
        unwrap: "keep" takes the mesh's texture coordinates, "xatlas" and "grid" make new ones (`to_mesh`), "auto" keeps them where
            they lie in [0, 1] and no two charts overlap, and else makes new ones, by xatlas where it is installed.
    Returns:
        The mesh with one material (opaque, double-sided) in place of its own, without vertex attributes. New texture coordinates split
        vertices at the borders of charts; normals go along.
    Raises:
        RangeError: a batch, no materials, another axis up, "keep" of coordinates that cannot be, images too small for the grid atlas.
        MeshError: a mesh without faces, or broken.   DtypeError: not a mesh.   MissingDependency: "xatlas" is not installed.
    Source: TRELLIS.2's texturing of given meshes (texels are sampled where they lie, holes are filled, 2048 pixels). Differences: texture
        coordinates are kept where they can be, which the original means to do but does not; holes take the nearest texel's value.
    Example:
        >>> textured = ovoxel.bake(mesh, texture_size=1024)
    """
    where = "OVoxel.bake"
    size = require_int(where, "texture_size", texture_size, 2 * MIN_SQUARE, 16384)
    require_choice(where, "unwrap", unwrap, ("auto", "keep", "xatlas", "grid"))
    if not isinstance(mesh, TriMesh):
        raise DtypeError(f"{where}: mesh must be a TriMesh; got {describe(mesh)}.")
    mesh.validate(where)
    if ovoxel.batch_size != 1:
        raise RangeError(f"{where}: one object at a time; this O-Voxel has {ovoxel.batch_size}. Use .sample(i).")
    surface = ovoxel.with_srgb()
    if not surface.materials:
        raise RangeError(f"{where}: the O-Voxel has no materials to bake; it has {list(ovoxel.materials)}.")
    if mesh.up != ovoxel.frame.up:
        raise RangeError(f"{where}: mesh must have {ovoxel.frame.up!r} up as the O-Voxel; got {mesh.up!r}. Turn it: mesh.with_up(...).")
    bare = mesh.replace(normals=None, uv1=None, attributes={}, materials=(), face_material=None)
    kept = _kept(bare, size) if unwrap in ("auto", "keep") else "not asked for"
    if isinstance(kept, Atlas):
        atlas = kept
    elif unwrap == "keep":
        raise RangeError(f"{where}: the texture coordinates of the mesh cannot be kept: {kept}. Pass unwrap='xatlas' or 'grid'.")
    else:
        new = unwrap if unwrap != "auto" else "xatlas" if importlib.util.find_spec("xatlas") is not None else "grid"
        atlas = make_atlas(where, bare.replace(uv=None), size, new)
    images = atlas_images(atlas, surface, fill=True)
    normals = None if mesh.normals is None else mesh.normals[atlas.source]
    return atlas.mesh.replace(normals=normals, materials=(atlas_material(images, Material("baked", alpha_mode="OPAQUE")),))


def _kept(mesh: TriMesh, size: int) -> Atlas | str:
    """The mesh's own atlas, or why it cannot be one."""
    if mesh.uv is None:
        return "there are none"
    used = mesh.uv[mesh.faces.flatten().long()]
    if not bool(torch.isfinite(used).all()):
        return "some are not finite"
    low, high = float(used.min()), float(used.max())
    if low < -LEFT_OVER or high > 1 + LEFT_OVER:
        return f"they leave [0, 1] (values from {low:.3g} to {high:.3g}), so texels repeat on the surface"
    atlas = uv_atlas(mesh, size, torch.arange(mesh.num_vertices, device=mesh.device))
    a, b, c = used.reshape(-1, 3, 2).double().unbind(1)
    one, two = b - a, c - a
    area = float((one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).abs().sum()) / 2 * size * size
    covered = int((atlas.face >= 0).sum())
    if not covered:
        return "they cover no texel"
    if area > OVERLAP * covered:
        return f"charts overlap (their area is {area / covered:.2f} times what they cover)"
    return atlas
