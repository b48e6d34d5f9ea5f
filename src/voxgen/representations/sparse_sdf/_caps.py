"""Holes of an open mesh closed by the surface on which its winding number is one half."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.coords import pack_keys, unpack_keys
from voxgen.ops.distance_band import distance_band
from voxgen.ops.inside_mesh import inside_mesh, winding_numbers
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.marching_cubes import marching_cubes
from voxgen.ops.mesh_edges import edge_table

REACH = 2.0
"""Width of the band around the mesh from whose rim the caps are followed, in cells."""
FAR = 1e6
"""Stands for the distance of cells beyond the band."""
AXES = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
BOX = tuple(itertools.product((-1, 0, 1), repeat=3))


class Box(NamedTuple):
    """The grid as arguments of the ops on meshes."""

    origin: tuple[float, float, float]
    voxel_size: float
    resolution: Int3


class _Known(NamedTuple):
    """Cells with their distance to the mesh and their side."""

    grid: VoxelGrid
    distance: Tensor
    inside: Tensor


def is_open(mesh: TriMesh) -> bool:
    """Whether the mesh has an edge at which the windings of its faces do not cancel."""
    table = edge_table(mesh, weld=True)
    return bool((2 * table.forward_counts() != table.counts).any())


def close_holes(mesh: TriMesh, box: Box, backend: str) -> TriMesh:
    """The mesh with triangles across its holes; itself if it has none that the grid resolves.

    Two neighbouring cells on different sides whose line does not cross the mesh lie on either side of a cap. From those in the band
    around the mesh the cap is followed cell by cell, and extracted by marching cubes on the winding number.
    """
    near = distance_band(mesh.vertices, mesh.faces, **box._asdict(), band=REACH, backend=backend)
    inside = inside_mesh(mesh.vertices, mesh.faces, near.cells, **box._asdict(), backend=backend)
    band = _Known(_grid(torch.nn.functional.pad(near.cells, (1, 0)), box), near.distance, inside)
    grown = _Known(_grid(band.grid.coords[:0], box), near.distance[:0], inside[:0])
    front = _cap_cells((band, grown), band.grid.coords)
    beside = front
    while len(front):
        around = _around(front, box)
        new = around[(lookup_cells(band.grid, around) < 0) & (lookup_cells(grown.grid, around) < 0)]
        if len(new) == 0:
            break
        side = inside_mesh(mesh.vertices, mesh.faces, new[:, 1:].contiguous(), **box._asdict(), backend=backend)
        grown = _with(grown, new, side, box)
        front = _cap_cells((band, grown), new)
        beside = torch.cat((beside, front))
    if len(beside) == 0:
        return mesh
    return _extract(mesh, (band, grown), _around(beside, box), box, backend)


def _extract(mesh: TriMesh, known: tuple[_Known, _Known], coords: Tensor, box: Box, backend: str) -> TriMesh:
    grid = _grid(coords, box)
    winding = winding_numbers(mesh.vertices, mesh.faces, grid.cells.contiguous(), **box._asdict(), backend=backend)
    surface = marching_cubes(grid, 0.5 - winding, backend=backend)
    distance, _ = _look_up(known, grid.coords)
    on_cap = distance[surface.edges.long()].sum(1) > 1
    caps = surface.faces[on_cap[surface.faces.long()].all(1)]
    origin = torch.tensor(box.origin, dtype=torch.float64, device=mesh.device)
    placed = origin + surface.vertices * box.voxel_size
    faces = torch.cat((mesh.faces, caps + mesh.num_vertices))
    return TriMesh(torch.cat((mesh.vertices, placed.to(mesh.vertices))), faces, up=mesh.up)


def _cap_cells(known: tuple[_Known, _Known], coords: Tensor) -> Tensor:
    """Cells at both ends of lattice edges that a cap crosses, of the edges with an end among `coords`; sorted."""
    distance, side = _look_up(known, coords)
    found = [coords[:0]]
    for axis, sign in itertools.product(AXES, (-1, 1)):
        beyond = coords + sign * torch.tensor([0, *axis], dtype=torch.int32, device=coords.device)
        other_distance, other_side = _look_up(known, beyond)
        crossed = (other_side >= 0) & (other_side != side) & (distance + other_distance > 1)
        found += [coords[crossed], beyond[crossed]]
    return unpack_keys(pack_keys(torch.cat(found)).unique())


def _look_up(known: tuple[_Known, _Known], coords: Tensor) -> tuple[Tensor, Tensor]:
    """Distance and side (1 inside, 0 outside, −1 unknown) of cells."""
    distance = torch.full((len(coords),), FAR, device=coords.device)
    side = torch.full((len(coords),), -1, dtype=torch.int8, device=coords.device)
    for part in known:
        rows = lookup_cells(part.grid, coords).long()
        there = rows >= 0
        distance[there] = part.distance[rows[there]]
        side[there] = part.inside[rows[there]].to(torch.int8)
    return distance, side


def _around(coords: Tensor, box: Box) -> Tensor:
    """The cells of the grid within a box of 3³ around each cell; sorted."""
    limits = torch.tensor(box.resolution, device=coords.device)
    steps = torch.tensor([(0, *step) for step in BOX], dtype=torch.int32, device=coords.device)
    moved = (coords[:, None] + steps).reshape(-1, 4)
    return unpack_keys(pack_keys(moved[((moved[:, 1:] >= 0) & (moved[:, 1:] < limits)).all(1)]).unique())


def _with(grown: _Known, coords: Tensor, inside: Tensor, box: Box) -> _Known:
    keys, order = torch.cat((grown.grid.keys, pack_keys(coords))).sort()
    sides = torch.cat((grown.inside, inside))[order]
    return _Known(_grid(unpack_keys(keys), box), torch.full((len(keys),), FAR, device=coords.device), sides)


def _grid(coords: Tensor, box: Box) -> VoxelGrid:
    """In the index frame, so that extracted vertices are measured in cells."""
    return VoxelGrid.from_sorted(coords, resolution=box.resolution, batch_size=1, frame=Frame((0, 0, 0), (1, 1, 1)))
