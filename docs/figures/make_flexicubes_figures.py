"""Make flexicubes.png: python docs/figures/make_flexicubes_figures.py

Cells of an open shell, the surface that FlexiCubes finds in them, and the triangles of training.
"""

from __future__ import annotations

from pathlib import Path

import torch

from voxgen.core import TriMesh, VoxelGrid
from voxgen.ops.flexicubes import cube_corners, flexicubes
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png
from voxgen.testing import shapes
from voxgen.testing.grids import full_grid
from voxgen.testing.shells import ring

HERE = Path(__file__).parent


def boxes(grid: VoxelGrid, shrink: float = 0.84) -> TriMesh:
    """A small box for each cell."""
    unit = shapes.box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    corners = grid.frame.to_world(grid.cells[:, None] + 0.5 + shrink * (unit.vertices - 0.5))
    faces = unit.faces + 8 * torch.arange(len(grid), dtype=torch.int32)[:, None, None]
    return TriMesh(corners.reshape(-1, 3), faces.reshape(-1, 3))


def apart(mesh: TriMesh, shrink: float = 0.84) -> TriMesh:
    """Every triangle on its own, a little smaller, on either side of a dark sheet: so one sees them."""
    corners = mesh.corners()
    middle, normal = corners.mean(1, keepdim=True), mesh.face_normals()[:, None]
    faces = torch.arange(3 * mesh.num_faces, dtype=torch.int32).reshape(-1, 3)
    layers = []
    for lift, grey in ((-0.002, 0.8), (0.0, 0.03), (0.002, 0.8)):
        points = (middle + (shrink if lift else 1.0) * (corners - middle) + lift * normal).reshape(-1, 3)
        layers.append(TriMesh(points, faces, attributes={"color": torch.full((len(points), 3), grey)}))
    return TriMesh.concatenate(layers)


def main() -> None:
    grid = full_grid(20)

    def distance(points: torch.Tensor) -> torch.Tensor:
        return ring(points[..., [0, 2, 1]], 0.28, 0.15)

    centre = grid.frame.centers(grid.cells)
    shell = grid.select((distance(centre).abs() < 1.2 / 20) & ~((centre[:, 0] > 0.06) & (centre[:, 2] > 0.06)))
    corners = cube_corners(shell)
    points = shell.frame.to_world(corners.coords[:, 1:].float())
    meshes = [flexicubes(shell, distance(points), training=training).to_meshes()[0] for training in (False, True)]
    camera = camera_for_bounds(*boxes(shell).bounds(), elevation=34, azimuth=40, margin=0.78, width=448, height=448)
    titles = (
        f"{len(shell):,} cells, none in one quarter",
        f"surface: {meshes[0].num_faces:,} triangles",
        f"training: {meshes[1].num_faces:,}",
    )
    panels = [
        Panel(render_mesh(mesh, camera, supersample=3, normals="flat").color[0], title)
        for mesh, title in zip((boxes(shell), *(apart(mesh) for mesh in meshes)), titles, strict=True)
    ]
    save_png(HERE / "flexicubes.png", compose_figure([panels]))


if __name__ == "__main__":
    main()
