"""Sparse SDFs of balls, and what is asked of their meshes."""

from __future__ import annotations

import torch

from voxgen.metrics import MeshReport, mesh_report
from voxgen.representations import SparseSDF
from voxgen.testing.grids import full_grid


def report_of(sdf: SparseSDF) -> MeshReport:
    return mesh_report(sdf.to_mesh(), weld=False)


def assert_solid(report: MeshReport, euler: int, components: int = 1) -> None:
    assert report.is_closed
    assert report.is_oriented
    assert report.nonmanifold_edges == report.nonmanifold_vertices == 0
    assert (report.euler_number, report.components) == (euler, components)
    assert report.volume is not None
    assert report.volume > 0


def ball_sdf(resolution: int, radius: float = 0.35, band: float = 4.0, dtype: torch.dtype = torch.float64) -> SparseSDF:
    """Exact distances of a ball in the unit cube."""
    grid = full_grid(resolution)
    values = (grid.frame.centers(grid.cells, torch.float64).norm(dim=1) - radius) * resolution
    keep = values.abs() < band
    return SparseSDF(grid.select(keep), values[keep][:, None].to(dtype), band)
