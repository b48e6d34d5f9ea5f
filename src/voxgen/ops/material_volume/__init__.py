"""From a textured mesh to the materials of the cells it touches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from voxgen.core import TriMesh
from voxgen.core.aliases import Float3, Int3
from voxgen.core.checks import describe, require_choice
from voxgen.core.errors import DtypeError, RangeError
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Call, Op, cpu_only
from voxgen.ops.voxelize._prepare import prepare, warn_if_empty

from ._record import CHANNELS, MaterialVolume
from ._shading import prepare_shading

__all__ = ["CHANNELS", "MaterialVolume", "material_volume"]

BYTES_A_CELL = 400
"""Peak bytes for each expected cell: the pairs of `voxelize`, then the result and the numbers of its cells."""

OP = Op(
    "material_volume",
    [
        Backend("numba", "voxgen.ops.material_volume._numba:material_volume", (cpu_only,)),
        Backend("torch", "voxgen.ops.material_volume._torch:material_volume"),
        Backend("reference", "voxgen.ops.material_volume._reference:material_volume"),
    ],
)


def material_volume(
    mesh: TriMesh,
    *,
    origin: Float3 | Sequence[float],
    voxel_size: Float3 | Sequence[float] | float,
    resolution: int | Int3,
    channels: Sequence[str] = ("base_color", "metallic", "roughness", "alpha"),
    compat: Literal["trellis2"] | None = None,
    color_space: Literal["srgb", "linear"] = "srgb",
    mip_offset: float = 0.0,
    progress: bool = False,
    backend: str = "auto",
) -> MaterialVolume:
    """Average a mesh's materials over the surface inside each cell that the mesh touches.

    The value of a cell is ∫ f dA / ∫ dA over all surface in it, f being factor × texture × vertex colour: each triangle is
    cut by each touched cell that it overlaps, and each piece counts with its area and is looked up at its centroid, in the
    level of the texture whose texels are as large as the piece; where the texture is stretched on the surface, in finer
    levels at up to eight points in a row. So a value depends neither on the triangulation nor on the winding, nor on what
    lies outside the cell. Channels are averaged one by one: colours are not weighted by alpha.

    Args:
        mesh: already placed in the grid's box; uv with v up, glTF materials. Faces without a material get
            `Material.plain()`. Of its attributes, "color" (linear; 3 or 4 columns) multiplies base colour and, in materials
            that are not OPAQUE, alpha; "base_color" and "emissive" (sRGB-encoded), "metallic", "roughness" and "alpha"
            stand for factor and texture of the material, for alpha in every mode (MASK cuts it).
        origin, voxel_size, resolution: the grid, as for `voxgen.ops.voxelize.triangle_cells`.
        channels: what to compute, from `CHANNELS`, in any order.
        compat: "trellis2" gives the original's numbers (see below). Textures must be uint8, square, powers of two
            (`voxgen.ops.texture.resize_to_power_of_two` makes them so), and voxels smaller than half a world unit.
        color_space: how base_color and emissive come out: "srgb" (encoded, what networks read) or "linear". Factors and
            vertex colours multiply, and everything is averaged, in linear light in either case. Not for compat, which
            treats encoded numbers as if they were light.
        mip_offset: added to the level of every lookup: positive is blurrier, negative sharper.
        progress: show a bar.
        backend: see docs/backends.md.
    Returns:
        MaterialVolume. base_color (3), metallic, roughness, emissive (3) and alpha in [0, 1] (what exceeds it, such as
        emissive strengths, is cut); normal (3) in [-1, 1], mean of the shading normals with normal maps applied, in world
        axes, of unit length (0 where opposite sides cancel). alpha is 1 for OPAQUE, and for MASK the share of the surface
        that passes the cutoff. Not differentiable.
    Raises:
        MeshError: no faces or none with area, an index out of range, vertices, normals, attributes or (where a texture needs
            them) uv that are not finite.   FrameError: the mesh leaves the box.   CapacityError: too little memory.
        RangeError: an unknown channel or word, a resolution below 1, a texture that compat or the sampler cannot take.
        DtypeError, ShapeError, DeviceError: arguments or attributes of a wrong kind.
    Warns:
        EmptyResultWarning: no triangle crosses a grid edge.   MeshWarning: a texture without texture coordinates (it is read
        at (0, 0), as glTF viewers do); attributes under compat, which knows none.
    Source: TRELLIS.2 (arXiv 2512.14692), material attributes of O-Voxel. Differences, all undone by `compat`:
        weights are areas, not 1 − signed world distance; every triangle in a cell counts, not only those that cross its
        edges; lookups lie in the triangle, not at barycentrics extrapolated to the projected cell centre; the footprint of a
        lookup is the piece, not the voxel; a triangle inside one period of a repeating texture does not wrap around its
        border; reduced levels are exact means of any size, in linear light, not floors of bytes; MASK is a share, not
        a threshold of a blurred alpha; mixed normals are normalised, tangents follow mirrored uv; emissive has its own
        levels (the original reads those of roughness, out of bounds; that is not reproduced).
    Numerics: float64 inside, all engines alike; compat too (the original is float32: raw values agree to 5e-5).
    Memory: numba about 110 bytes a cell (base_color, metallic, roughness, alpha); torch 0.5 GB for its chunks beside that.
        Textures: their bytes once more, and 4 bytes a value for a third of their texels.
    Example:
        >>> from voxgen.testing.shapes import torus
        >>> volume = material_volume(torus(), origin=(-0.5, -0.5, -0.5), voxel_size=1 / 32, resolution=32)
        >>> volume.values["base_color"].shape
        torch.Size([2000, 3])
    """
    where = "material_volume"
    if not isinstance(mesh, TriMesh):
        raise DtypeError(f"{where}: mesh must be a TriMesh; got {describe(mesh)}. Load files with voxgen.io.load_mesh.")
    names = _checked_channels(where, channels)
    require_choice(where, "color_space", color_space, ("srgb", "linear"))
    if compat is not None and color_space != "srgb":
        raise RangeError(f"{where}: compat='trellis2' stores encoded colours; leave color_space='srgb', or leave compat out.")
    if not isinstance(mip_offset, (int, float)) or not math.isfinite(mip_offset):
        raise RangeError(f"{where}: mip_offset must be a finite number; got {describe(mip_offset)}.")
    mesh.validate(where)
    scene = prepare(where, mesh.vertices, mesh.faces, origin, voxel_size, resolution, compat)
    if compat is not None and max(scene.voxel_size) >= 0.5:
        raise RangeError(
            f"{where}: compat='trellis2' weighs by 1 − distance in world units, which needs voxels smaller than 0.5; "
            f"got voxel_size {scene.voxel_size}. Scale mesh and box to the unit cube, or leave compat out."
        )
    require_memory(where, int(BYTES_A_CELL * scene.crossings), scene.vertices.device, "Lower the resolution.")
    shading = prepare_shading(where, mesh, names, compat, color_space == "linear", float(mip_offset))
    volume = OP.run(backend, Call.of(scene.vertices), scene, shading, compat, progress)
    warn_if_empty(where, scene, len(volume.cells))
    return volume


def _checked_channels(where: str, channels: Any) -> tuple[str, ...]:
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise DtypeError(f"{where}: channels must be a list of names; got {describe(channels)}. One channel? Write [{channels!r}].")
    for name in channels:
        require_choice(where, "channels", name, tuple(CHANNELS))
    return tuple(name for name in CHANNELS if name in channels)
