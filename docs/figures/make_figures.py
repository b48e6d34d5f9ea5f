"""Make the pictures of the docs: python docs/figures/make_figures.py

demo.png is what the demo writes; ovoxel.png shows cells and mesh of an O-Voxel; render.png the shading.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from voxgen import demo
from voxgen.core import TriMesh, VoxelGrid
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png
from voxgen.representations import OVoxel
from voxgen.testing import shapes

HERE = Path(__file__).parent


def cell_boxes(grid: VoxelGrid, shrink: float = 0.86) -> TriMesh:
    """A small box for each cell."""
    unit = shapes.box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    size = torch.tensor(grid.frame.voxel_size)
    low = grid.frame.to_world(grid.cells.float())
    corners = low[:, None] + size * (0.5 + shrink * (unit.vertices - 0.5))
    faces = unit.faces + 8 * torch.arange(len(grid), dtype=torch.int32)[:, None, None]
    return TriMesh(corners.reshape(-1, 3), faces.reshape(-1, 3), up=grid.frame.up)


def ovoxel_figure() -> None:
    mesh = demo.procedural_asset()
    assert mesh.face_part is not None
    ring = mesh.select_faces((mesh.face_part == 0) | (mesh.face_part == 3))
    ovoxel = OVoxel.from_mesh(ring, 40)
    camera = camera_for_bounds(*ring.bounds(), elevation=32, azimuth=30, margin=0.85, width=448, height=448)
    panels = [
        Panel(render_mesh(ring, camera, supersample=2).color[0], "mesh"),
        Panel(render_mesh(cell_boxes(ovoxel.grid), camera, supersample=2, normals="flat").color[0], f"{len(ovoxel):,} cells"),
        Panel(render_mesh(ovoxel.to_mesh(), camera, supersample=2).color[0], "O-Voxel surface, 40 cells a side"),
    ]
    save_png(HERE / "ovoxel.png", compose_figure([panels]))


def render_figure() -> None:
    mesh = demo.procedural_asset()
    camera = camera_for_bounds(*mesh.bounds(), elevation=24, azimuth=30, margin=0.92, width=448, height=448)
    panels = []
    for shading in ("pbr", "albedo", "normal"):
        panels.append(Panel(render_mesh(mesh, camera, shading=shading, supersample=2).color[0], shading))
    save_png(HERE / "render.png", compose_figure([panels]))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        demo.main(["--out", folder, "--resolutions", "64", "128", "256", "--size", "384"])
        shutil.copyfile(Path(folder) / "demo.png", HERE / "demo.png")
    ovoxel_figure()
    render_figure()


if __name__ == "__main__":
    main()
