"""Dual grid → triangle mesh: the quads around crossed lattice edges, and where their corners lie."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.aliases import EdgeFlags
from voxgen.core.checks import require_choice, require_same_device, require_tensor
from voxgen.core.errors import CapacityError, RangeError, ShapeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Backend, Call, Op, cpu_only

from ._connectivity import MAX_INDEX, Connectivity, Rule
from ._geometry import DualMesh, build_mesh

Split = Literal["auto", "weight", "angle", "first"]

OP = Op(
    "dual_faces",
    [
        Backend("numba", "voxgen.ops.dual_faces._numba:connect", (cpu_only,)),
        Backend("torch", "voxgen.ops.dual_faces._torch:connect"),
        Backend("reference", "voxgen.ops.dual_faces._reference:connect"),
    ],
)


def dual_faces(
    grid: VoxelGrid,
    dual: Float[Tensor, "n 3"],
    intersected: EdgeFlags,
    *,
    split_weight: Float[Tensor, " n"] | Float[Tensor, "n 1"] | None = None,
    crossing_sign: Bool[Tensor, "n 3"] | None = None,
    split: Split = "auto",
    training: bool = False,
    keep_unused: bool | None = None,
    compat: Literal["trellis2"] | None = None,
    backend: str = "auto",
) -> DualMesh:
    """Join the dual vertices of the four cells around every crossed edge by a quad, and cut the quads in triangles.

    Cell (i, j, k) owns the three lattice edges that meet at its corner (i+1, j+1, k+1); `intersected[:, a]` says whether
    the surface crosses the one along axis a. Quads come in the order of (cell, axis). A quad of which a cell is missing
    is dropped and counted in `quads.dropped` of the result, so that callers can warn of holes.

    Args:
        grid: (n cells), a batch; quads never join two samples.
        dual: (n, 3) float32 or float64, position of each cell's vertex inside it, in cells: [0, 1] is the cell. Values
            outside are used as they are (decoders may leave the cell by half); NaN goes through to the vertex.
        intersected: (n, 3) bool, by axis x, y, z.
        split_weight: (n,) or (n, 1), dtype of `dual`, positive. A quad is cut along the diagonal whose ends have the
            greater product of weights.
        crossing_sign: (n, 3) bool, True where the surface's normal at the crossed edge points towards + (going along +
            leaves the solid). Such a quad is wound so that its normal points towards + too, so a closed surface comes out
            wound outwards. Without it every quad's normal points towards -. Read only where `intersected`, and not with
            `compat`.
        split: how quads are cut. "weight": corners 0–2 if w0·w2 > w1·w3, else 1–3 (also for equal products). "angle": the
            diagonal across which the two triangles make the smaller angle, measured on positions relative to the first
            corner's cell, 0–2 if equal; an angle at a triangle without area counts as a fold of 180°. "first": always
            0–2. "auto": "weight" if weights are given, else "angle".
        training: add a vertex in the middle of every quad instead, and four triangles around it; differentiable in
            `dual` and `split_weight`.
        keep_unused: whether vertices that no face uses stay; None: only with `compat`, so that vertex index = row.
        compat: "trellis2": without weights cut along 0–2, unless triangle (0, 1, 2) has no area; keep unused vertices; wind
            every quad towards -. This is what the original does (its code for angles never takes effect).
        backend: see docs/backends.md. Integers and cuts are equal for all of them.
    Returns:
        DualMesh: world-space vertices, differentiable in `dual`, and faces; packed by sample.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit the grid.   RangeError: an unknown word; split="weight"
        without weights; `split` with `training`.   CapacityError: 2³¹ cells or more, with `training` 2²⁹ or more.
    Empty grid, no flags: no vertices (unless kept) and no faces.   Batch: a sample gives the same alone and in a batch.
    Source: Native and Compact Structured Latents for 3D Generation, flexible dual grid. The middle vertex is
    m = (w0 w2 (p0 + p2) / 2 + w1 w3 (p1 + p3) / 2) / (w0 w2 + w1 w3). Differences: angles are measured; winding follows
    the surface; training works without weights (plain mean), and where both products vanish (again the mean).
    Guarantee: closed if every crossed edge has its four cells and each cell's flags come from a closed surface; not
    always manifold, because a cell has one vertex even where several sheets cross it.
    Numerics: cuts are decided in the dtype of `dual`, without gradient. By "angle" they do not change when all cells move
    by whole cells.
    Memory: 12 bytes a cell for the vertices and 41 a quad for quads and faces, in float32.
    Example:
        >>> from voxgen.testing.shells import shell
        >>> s = shell(resolution=16)
        >>> dual_faces(s.grid, s.dual, s.intersected, crossing_sign=s.crossing_sign)
        DualMesh(869 vertices, 1748 faces, batch_size=1)
    """
    where = "dual_faces"
    n = len(grid)
    require_tensor(where, "dual", dual, (n, 3), (torch.float32, torch.float64), hint="One local position for each cell of the grid.")
    require_tensor(
        where, "intersected", intersected, (n, 3), (torch.bool,), hint="One flag for each cell and axis; logits? Use logits > 0."
    )
    weight = _require_weight(n, dual, split_weight)
    if crossing_sign is not None:
        require_tensor(where, "crossing_sign", crossing_sign, (n, 3), (torch.bool,))
    require_same_device(where, grid=grid.coords, dual=dual, intersected=intersected, split_weight=split_weight, crossing_sign=crossing_sign)
    require_choice(where, "split", split, ("auto", "weight", "angle", "first"))
    if compat is not None:
        require_choice(where, "compat", compat, ("trellis2",))
        crossing_sign = None
    rule = _rule(split, weight is not None, training, compat is not None)
    keep = compat is not None if keep_unused is None else keep_unused
    if n * (4 if training else 1) > MAX_INDEX:
        raise CapacityError(f"{where}: vertices are numbered in int32, and {n} cells may have more than 2³¹ - 1. Split the batch.")
    call = Call.of(dual, split_weight)
    with torch.no_grad():
        found: Connectivity = OP.run(backend, call, grid, dual.detach(), intersected, crossing_sign, weight, rule, keep)
    return build_mesh(grid, dual, weight, found)


def _require_weight(n: int, dual: Tensor, split_weight: Tensor | None) -> Tensor | None:
    if split_weight is None:
        return None
    require_tensor("dual_faces", "split_weight", split_weight, None, (dual.dtype,), hint="It must have the dtype of dual.")
    if split_weight.shape not in ((n,), (n, 1)):
        raise ShapeError(f"dual_faces: split_weight must be ({n},) or ({n}, 1), one for each cell; got {tuple(split_weight.shape)}.")
    return split_weight.reshape(n)


def _rule(split: Split, weighted: bool, training: bool, compat: bool) -> Rule:
    if training:
        if split != "auto":
            raise RangeError(f"dual_faces: split={split!r} has no effect with training=True, which cuts every quad in four; leave it out.")
        return "middle"
    if split == "weight" and not weighted:
        raise RangeError("dual_faces: split='weight' needs split_weight; pass it, or choose split='angle'.")
    if split != "auto":
        return split
    if weighted:
        return "weight"
    return "trellis2" if compat else "angle"


__all__ = ["DualMesh", "dual_faces"]
