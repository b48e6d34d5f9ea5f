"""What all engines share: cells around the grid, and from crossed edges to vertices."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from voxgen.core.aliases import Faces, Offsets, Vertices
from voxgen.core.batching import batch_index, offsets_from_counts
from voxgen.core.coords import pack_keys, unpack_keys
from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import lookup_cells

AROUND = tuple(step for step in itertools.product((-1, 0, 1), repeat=3) if any(step))

Topology = Callable[[VoxelGrid, Tensor], tuple[Tensor, Tensor]]
"""An engine: (grid, values (n,) relative to the level) → crossed edges (v, 2) int32, two rows of the grid each, the lower cell
first, ordered by it and by axis; and faces (f, 3) int32, ordered by cube and as the table has them."""


@dataclass(frozen=True, eq=False)
class IsoSurface:
    """What `marching_cubes` found.

    Attributes:
        vertices: (v, 3) world positions.
        faces: (f, 3) int32.
        vertex_offsets, face_offsets: (b + 1,) int64 bounds of the samples.
        edges: (v, 2) int32, the rows of the two cells between which each vertex lies, -1 for one that does not exist.
        share: (v,) how far the vertex is from the first to the second, in [0, 1].
    """

    vertices: Vertices
    faces: Faces
    vertex_offsets: Offsets
    face_offsets: Offsets
    edges: Int32[Tensor, "v 2"]
    share: Float[Tensor, " v"]

    def at_vertices(self, feats: Float[Tensor, "n c"]) -> Float[Tensor, "v c"]:
        """Features of cells between the two cells of each vertex, linearly; from one where the other does not exist.

        Differentiable in `feats`, and in the values of the surface by way of `share`.
        """
        first, second = self.edges.long().unbind(1)
        a, b = feats[torch.where(first < 0, second, first)], feats[torch.where(second < 0, first, second)]
        return torch.lerp(a, b, self.share[:, None].to(feats.dtype))


def extract(topology: Topology, grid: VoxelGrid, values: Tensor, level: float, outside: float | None, beyond_grid: bool) -> IsoSurface:
    """Run an engine on the grid, or on the grid and the cells around it; place its vertices."""
    exact = values if values.dtype == torch.float64 else values.float()
    source = None
    if outside is not None:
        grid, source = _surrounded(grid, (exact.detach() < level) != (outside < level), beyond_grid)
        missing = exact.new_full((1,), outside)
        exact = torch.cat((exact, missing))[source]  # row -1 is the last
    relative = exact - level
    edges, faces = topology(grid, relative.detach().contiguous())
    first, second = edges.long().unbind(1)
    low, high = relative.index_select(0, first), relative.index_select(0, second)
    share = low / (low - high)
    step = grid.cells[second] - grid.cells[first]
    vertices = grid.frame.to_world((grid.cells[first] + 0.5).to(share) + share[:, None] * step)
    vertex_offsets = torch.searchsorted(first.contiguous(), grid.offsets)
    samples = batch_index(vertex_offsets)[faces[:, 0].long()]
    face_offsets = offsets_from_counts(torch.bincount(samples, minlength=grid.batch_size))
    return IsoSurface(vertices, faces, vertex_offsets, face_offsets, edges if source is None else source[edges.long()].int(), share)


def _surrounded(grid: VoxelGrid, opposite: Tensor, beyond_grid: bool) -> tuple[VoxelGrid, Tensor]:
    """The grid with all cells around those whose side is opposite to that of missing cells, so that cubes of both sides are whole.

    Args:
        opposite: (n,) bool.
    Returns:
        The grid, and the row that each of its cells has in the one given, -1 for those that are new.
    """
    if beyond_grid:
        x, y, z = (n + 2 for n in grid.resolution)
        inner = grid.coords + torch.tensor([0, 1, 1, 1], dtype=torch.int32, device=grid.device)
        grid = VoxelGrid(inner, (x, y, z), grid.batch_size, grid.frame.shifted((-1, -1, -1)))
    limits = torch.tensor(grid.resolution, device=grid.device)
    near, missing = grid.coords[opposite], []
    for step in AROUND:
        coords = near + torch.tensor([0, *step], dtype=torch.int32, device=grid.device)
        coords = coords[lookup_cells(grid, coords) < 0]
        missing.append(pack_keys(coords[((coords[:, 1:] >= 0) & (coords[:, 1:] < limits)).all(1)]).unique())
    keys, source = torch.cat((grid.keys, torch.cat(missing).unique())).sort()
    return VoxelGrid(unpack_keys(keys), grid.resolution, grid.batch_size, grid.frame), torch.where(source < len(grid), source, -1)
