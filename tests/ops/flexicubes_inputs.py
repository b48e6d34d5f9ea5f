"""Fields for the tests of FlexiCubes."""

from __future__ import annotations

import torch
from torch import Tensor

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import TriMesh, VoxelGrid
from voxgen.metrics import MeshReport, mesh_report
from voxgen.ops.cube_corners import average_at_corners, cube_corners
from voxgen.ops.flexicubes import FlexInputs, FlexSurface, flexicubes


def lattice(grid: VoxelGrid, dtype: torch.dtype = torch.float64) -> Tensor:
    """World positions of the corners of a grid."""
    return grid.frame.to_world(cube_corners(grid).coords[:, 1:].to(dtype))


def activated(grid: VoxelGrid, feats: Tensor, weight: Tensor | None = None, last: Tensor | None = None) -> tuple[FlexInputs, Tensor]:
    """53 raw channels as TripoSF reads them: the field, and the means at corners (m, 4). `last`: the weights, if from other rows."""
    r = grid.resolution[0]
    values = torch.cat((feats[:, :8, None] * 4 / r - 1 / r, feats[:, 8:32].reshape(-1, 8, 3)), 2)
    mean = average_at_corners(values, cube_corners(grid), weight=weight)
    positions = lattice(grid, feats.dtype) + (1 - 1e-8) / (2 * r) * mean[:, 1:].tanh()
    raw = feats[:, 32:] if last is None else last[:, 32:]
    beta, alpha = 1 + 0.99 * raw[:, :12].tanh(), 1 + 0.99 * raw[:, 12:20].tanh()
    return FlexInputs(mean[:, 0], positions, alpha, beta, 0.99 * raw[:, 20].sigmoid() + 0.005), mean


def golden_feats(golden: Golden, name: str) -> Tensor:
    return torch.cat((golden.arrays[f"in/{name}/sdf"].float(), golden.normal(f"{name}/rest", 0.75)), 1)


def report_of(surface: FlexSurface) -> MeshReport:
    """Topology of the buffers as they are."""
    return mesh_report(TriMesh(surface.vertices.detach(), surface.faces), weld=False)


def shell_of_7_2(resolution: int = 32) -> tuple[VoxelGrid, Tensor]:
    """Cells near a sphere of radius 0.3 and channels that are sines of their place."""
    axis = torch.arange(resolution)
    cells = torch.cartesian_prod(axis, axis, axis)
    centre = (cells + 0.5) / resolution - 0.5
    cells = cells[(centre.double().norm(dim=1) - 0.3).abs() < 1.5 / resolution]
    grid = VoxelGrid.from_sorted(torch.nn.functional.pad(cells, (1, 0)).int(), resolution=resolution, batch_size=1)
    corners = cube_corners(grid)
    distance = lattice(grid)[corners.index.long()].norm(dim=2) - 0.3
    phase = (cells.double() @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))[:, None]
    j = torch.arange(45, dtype=torch.float64)
    sines = 0.5 * torch.sin(0.1 * (j + 1) * phase + j)
    return grid, torch.cat(((distance + 1 / resolution) * resolution / 4, sines), 1)


def extract(grid: VoxelGrid, inputs: FlexInputs, **options: object) -> FlexSurface:
    """`flexicubes` of a record."""
    named = {name: value for name, value in inputs._asdict().items() if value is not None}
    return flexicubes(grid, **named, **options)  # pyright: ignore[reportArgumentType]


def ball(grid: VoxelGrid, radius: float = 0.3) -> Tensor:
    """Signed distance to a ball at the corners."""
    return lattice(grid).norm(dim=1) - radius
