"""Antialiasing of outlines after rasterisation: smooth edges, and gradients that move them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Faces
from voxgen.core.checks import FLOATS, require_int, require_same_device, require_tensor
from voxgen.core.errors import MeshError, ShapeError
from voxgen.ops._registry import Backend, Op, cpu_only
from voxgen.ops.rasterize import RasterOutput

from ._blend import blend
from ._opposite import opposite_vertices
from ._query import Query
from ._walk import walk as find_beyond

__all__ = ["antialias", "opposite_vertices"]

OP = Op(
    "antialias",
    (
        Backend("numba", "voxgen.ops.antialias._numba:find", (cpu_only,)),
        Backend("reference", "voxgen.ops.antialias._reference:find"),
    ),
)


def antialias(
    color: Float[Tensor, "b h w c"],
    raster: RasterOutput,
    positions: Tensor,
    faces: Faces,
    *,
    edges: Tensor | None = None,
    walk: int = 0,
    backend: str = "auto",
) -> Float[Tensor, "b h w c"]:
    """Blend neighbouring pixels across the outlines of triangles that are seen between them.

    Which triangle a pixel sees jumps as the mesh moves, so a mask has no gradient. Here a pixel pair with an outline between its
    centres mixes its two colours by where the outline crosses; the result changes smoothly with the outline's vertices.

    Args:
        color: (b, h, w, c) any float dtype: what `interpolate` gave, shaded or not, or a mask; also where no face is seen.
        raster: result of `rasterize`, b views.
        positions, faces: as given to `rasterize`. Faces must share vertices along their common edges: each edge of a triangle soup
            is an outline. The faces of one packed mesh must not have the vertices of another.
        edges: (f, 3) int32 of `opposite_vertices(faces)`, which saves looking them up where the faces stay the same.
        walk: against the background, look for the outline also beyond the triangle that is seen: on up to this many further ones, from one
            to the next across their common edges. On finely meshed round objects the triangles at the outline are so thin that pixels
            see others, and without this most outlines are not found. 0: as published.
        backend: see docs/backends.md.
    Returns:
        (b, h, w, c) in the dtype of color. Differentiable in color and, through the two vertices of each outline's edge, in positions.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit each other.   MeshError: faces or positions with fewer rows than
        the raster or the faces name.
    No views or no outline: the colours as they are.
    Rules: for each pair of pixels, first side by side and then one above the other, that see different triangles, the nearer triangle
        owns the pair (the first pixel's at equal depth). Of its edges that cross the line between the centres, the one furthest towards
        the other pixel counts, if it is an outline, at least as steep as 45° to that line (strictly steeper for pairs one above the
        other, so that an edge at 45° counts once), and crosses within 1/16 of the way. An edge is an outline if no other triangle or more
        than one has it, or if the other one's third vertex lies on the same side of it on the screen, or exactly on it. Effects of
        several pairs add up.
    Limits: only edges of the nearer triangle count, and with `walk` those beyond it against the background. Where a pixel at a corner
        sees one triangle and the outline belongs to the next, there is no blending and no gradient without it. Where two surfaces cut
        each other there is no outline.
    Numerics: crossings in float64 from homogeneous coordinates, without division by w: edges through the near plane and behind the
        eye are right. All engines find the same pairs. The gradient of the crossing is exact (its size is at most one for each pixel
        that a vertex moves, because edges are steep); where the crossing is clamped to 0 … 1 it passes straight through.
    Memory: `numba`, 4 bytes a pixel, and about 120 bytes for each pair with a crossing; `reference`, 150 bytes a face and 250 MB.
    Source: Laine et al., "Modular primitives for high-performance differentiable rendering", 2020, section 3.4. Differences: `walk`; an
        edge at exactly 45° is counted once instead of twice; no constant is added in the gradient's denominator; a triangle seen edge-on
        behind an edge leaves it an outline.
    Example:
        >>> corners = torch.tensor([[-0.6, -2, 0, 1], [0.6, -2, 0, 1], [0.6, 2, 0, 1], [-0.6, 2, 0, 1]], requires_grad=True)
        >>> faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
        >>> raster = rasterize(corners, faces, 1, 4)
        >>> mask = (raster.face_id >= 0).float()[..., None]
        >>> antialias(mask, raster, corners, faces).flatten()
        tensor([0.2000, 1.0000, 1.0000, 0.2000], grad_fn=<ViewBackward0>)
    """
    where = "antialias"
    walk = require_int(where, "walk", walk, 0, 64)
    views, rows, columns = raster.face_id.shape
    require_tensor(where, "color", color, (views, rows, columns, "c"), FLOATS)
    batch = positions[None] if isinstance(positions, Tensor) and positions.ndim == 2 else positions
    require_tensor(where, "positions", batch, ("b", "v", 4), (torch.float32, torch.float64), hint="One view may be (v, 4).")
    if len(batch) not in (1, views):
        raise ShapeError(f"{where}: positions must be (v, 4) or of the raster's {views} views; got {tuple(positions.shape)}.")
    require_tensor(where, "faces", faces, ("f", 3), (torch.int32, torch.int64))
    require_same_device(where, color=color, face_id=raster.face_id, positions=positions, faces=faces, edges=edges)
    if edges is not None:
        require_tensor(where, "edges", edges, (len(faces), 3), (torch.int32,), hint="Use opposite_vertices(faces).")
    if raster.face_id.numel() == 0:
        return color
    if int(raster.face_id.max()) >= len(faces):
        raise MeshError(
            f"{where}: faces must be those given to rasterize; the raster names face {int(raster.face_id.max())} of {len(faces)}."
        )
    highest = max([int(t.max()) for t in (faces, edges) if t is not None and t.numel()], default=-1)
    if highest >= batch.shape[1]:
        raise MeshError(f"{where}: positions must have a row for each vertex; got {batch.shape[1]} for index {highest}.")
    query = Query(batch.detach(), faces.int(), edges, raster.face_id, raster.depth.detach(), raster.pixels)
    pairs = OP.engine(backend, query.positions)(query)
    if walk:
        pairs = torch.cat((pairs, find_beyond(query, pairs, walk)))
    return blend(color, batch, pairs, raster.pixels)
