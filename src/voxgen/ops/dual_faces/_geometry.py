"""Where the vertices lie: differentiable, in plain torch, the same for all engines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from voxgen.core.aliases import Faces, Offsets, Vertices
from voxgen.core.batching import unpack
from voxgen.core.checks import require_tensor
from voxgen.core.frame import UpAxis
from voxgen.core.grid import VoxelGrid
from voxgen.core.mesh import TriMesh

from ._connectivity import Connectivity, Quads
from ._triangulate import kept_offsets


@dataclass(frozen=True, eq=False)
class DualMesh:
    """The mesh of a dual grid, all samples packed behind each other.

    Attributes:
        vertices: (v, 3) world space, differentiable; per sample first those of its cells, then those of its quads (training).
        faces: (f, 3) int32 indices of `vertices`, which count through all samples.
        vertex_offsets, face_offsets: (b + 1,) int64 bounds of the samples.
        quads: the quads before they were cut: rows of the grid, axes, bounds of the samples, and `quads.dropped`, the
            number of crossed edges of each sample that lack a cell (holes).
        kept: (u,) int32 ascending rows of the cells that have a vertex; None if all have.
        middle_weights: (q, 2) weights of the diagonals 0–2 and 1–3 in the middle vertex of each quad (training), else None.
        cell_offsets: (b + 1,) int64 bounds of the samples among the kept cells.
        num_cells: cells of the grid.
        up: of the frame.
    """

    vertices: Vertices
    faces: Faces
    vertex_offsets: Offsets
    face_offsets: Offsets
    quads: Quads
    kept: Tensor | None
    middle_weights: Tensor | None
    cell_offsets: Offsets
    num_cells: int
    up: UpAxis

    def __repr__(self) -> str:
        return f"DualMesh({len(self.vertices)} vertices, {len(self.faces)} faces, batch_size={len(self.face_offsets) - 1})"

    @property
    def vertex_row(self) -> Int32[Tensor, " v"]:
        """The row of the grid that each vertex belongs to; -1 for the middle of a quad."""
        rows = torch.arange(self.num_cells, dtype=torch.int32, device=self.faces.device) if self.kept is None else self.kept
        if self.middle_weights is None:
            return rows
        return interleave(rows, self.cell_offsets, rows.new_full((len(self.quads.rows),), -1), self.quads.offsets)

    def at_vertices(self, values: Float[Tensor, "n c"]) -> Float[Tensor, "v c"]:
        """Values of the cells of the grid (n, c) brought to the vertices, mixed at the middle of quads like positions. Differentiable.

        Raises:
            ShapeError: not one row for each cell of the grid.
        """
        require_tensor("DualMesh.at_vertices", "values", values, (self.num_cells, "c"))
        return spread(values, self.kept, self.cell_offsets, self.quads, self.middle_weights)

    def to_meshes(self) -> tuple[TriMesh, ...]:
        """One mesh a sample, empty ones included."""
        vertices = unpack(self.vertices, self.vertex_offsets)
        faces = unpack(self.faces, self.face_offsets)
        first = self.vertex_offsets[:-1].tolist()
        return tuple(TriMesh(v, f - s, up=self.up) for v, f, s in zip(vertices, faces, first, strict=True))


def build_mesh(grid: VoxelGrid, dual: Tensor, weight: Tensor | None, found: Connectivity) -> DualMesh:
    """Put the vertices in their places."""
    quads, cells = found.quads, kept_offsets(grid, found.kept)
    diagonals = _diagonal_weights(quads.rows, dual, weight) if found.middle else None
    positions = _world(grid, dual)
    return DualMesh(
        vertices=spread(positions, found.kept, cells, quads, diagonals),
        faces=found.faces,
        vertex_offsets=cells + quads.offsets if found.middle else cells,
        face_offsets=quads.offsets * (4 if found.middle else 2),
        quads=quads,
        kept=found.kept,
        middle_weights=diagonals,
        cell_offsets=cells,
        num_cells=len(grid),
        up=grid.frame.up,
    )


def _world(grid: VoxelGrid, dual: Tensor) -> Tensor:
    """(n, 3) world positions of the dual vertices: `Frame.to_world` in place, since fresh memory costs more than the arithmetic."""
    frame = grid.frame
    position = dual + grid.cells
    return position.mul_(position.new_tensor(frame.voxel_size)).add_(position.new_tensor(frame.origin))


def spread(values: Tensor, kept: Tensor | None, cell_offsets: Tensor, quads: Quads, diagonals: Tensor | None) -> Tensor:
    """(n, c) values of cells → (v, c) values of vertices."""
    own = values if kept is None else values[kept]
    if diagonals is None:
        return own
    a, b, c, d = _gather(values, quads.rows).unbind(1)
    first, second = diagonals[:, :1], diagonals[:, 1:]
    middle = (first * (a + c) / 2 + second * (b + d) / 2) / (first + second)
    return interleave(own, cell_offsets, middle, quads.offsets)


def interleave(cells: Tensor, cell_offsets: Tensor, middles: Tensor, quad_offsets: Tensor) -> Tensor:
    """Rows of cells and rows of quads → for each sample those of its cells, then those of its quads."""
    pairs = zip(unpack(cells, cell_offsets), unpack(middles, quad_offsets), strict=True)
    return torch.cat([cells[:0], *(part for pair in pairs for part in pair)])


def _diagonal_weights(quads: Tensor, dual: Tensor, weight: Tensor | None) -> Tensor:
    """(q, 2) products w0 w2 and w1 w3; equal without weights, and where both products vanish."""
    if weight is None:
        return dual.new_ones(len(quads), 2)
    a, b, c, d = _gather(weight[:, None], quads)[:, :, 0].unbind(1)
    products = torch.stack((a * c, b * d), 1)
    return torch.where(products.sum(1, keepdim=True) == 0, 1, products)


def _gather(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows]. Its backward pass always adds in the same order; that of plain indexing does not, with threads or on a GPU."""
    return torch.nn.functional.embedding(rows, values)
