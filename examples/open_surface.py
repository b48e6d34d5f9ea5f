"""An open bowl and a pleated skirt stay open as SparseFlex; beside them what a signed distance field makes of the same meshes.

Run: python examples/open_surface.py [--mesh garment.obj] [--resolution 96] [--out out]
Expect: SparseFlex keeps every border (as many border loops as the mesh, area and distances within a fraction of a cell). An SDF has no
borders: by winding number it closes each hole with a cap, by flood fill it turns the sheet into a plate with two sides.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import torch

from voxgen.core import TriMesh
from voxgen.io import load_mesh, save_mesh
from voxgen.metrics import chamfer_distance, f_score, mesh_report
from voxgen.ops.mesh_edges import edge_table
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png
from voxgen.representations import SparseFlex, SparseSDF
from voxgen.testing import shapes

CLAY, BORDER = (0.62, 0.68, 0.78), (0.85, 0.16, 0.12)
SAMPLES = 50_000


class Score(NamedTuple):
    """Border edges and loops; mean distance from the mesh to the surface and back, in cells; F-score at half a cell; area ratio."""

    border_edges: int
    border_loops: int
    there: float
    back: float
    f: float
    area: float


def skirt(folds: int = 9, rows: int = 60, around: int = 360) -> TriMesh:
    """A pleated sheet around the y axis, open at the waist and at the hem."""
    t = torch.linspace(0, 1, rows, dtype=torch.float64)[:, None]
    angle = torch.arange(around, dtype=torch.float64)[None] * (2 * math.pi / around)
    radius = 0.14 + 0.22 * t + 0.05 * t * torch.sin(folds * angle + 1.5 * t)
    height = 0.4 - 0.75 * t + 0.02 * t * torch.cos(folds * angle)
    points = torch.stack((radius * angle.cos(), height.expand_as(radius), radius * angle.sin()), -1).reshape(-1, 3)
    return TriMesh(points.float(), shapes.quad_faces(rows, around, wrap_columns=True).flip(1))


def score(mesh: TriMesh, surface: TriMesh, cell: float) -> Score:
    report = mesh_report(surface)
    distance = chamfer_distance(mesh, surface, samples=SAMPLES)
    there, back = (value / cell for value in distance.l1_directed)
    f = f_score(mesh, surface, cell / 2, samples=SAMPLES).f
    area = float(surface.face_areas().sum() / mesh.face_areas().sum())
    return Score(report.boundary_edges, report.boundary_loops, there, back, f, area)


def with_border(mesh: TriMesh, width: float) -> TriMesh:
    """The mesh in clay, and a thin red bar along each edge that has one face."""
    table = edge_table(mesh, weld=True)
    ends = [mesh.vertices[torch.from_numpy(v)] for v in table.ends(table.half_edges[table.starts[table.counts == 1]])]
    along = torch.nn.functional.normalize(ends[1] - ends[0], dim=1)
    side = torch.nn.functional.normalize(torch.linalg.cross(along, along.roll(1, 1) + 0.1), dim=1)
    other = torch.linalg.cross(along, side)
    turns = [2 * math.pi * k / 3 for k in range(3)]
    ring = torch.stack([width * (math.cos(a) * side + math.sin(a) * other) for a in turns], 1)
    points = torch.stack((ends[0][:, None] + ring, ends[1][:, None] + ring), 1).reshape(-1, 3)
    bar = torch.tensor([[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4], [2, 0, 3], [2, 3, 5]])
    faces = bar + 6 * torch.arange(len(ends[0]))[:, None, None] + mesh.num_vertices
    color = torch.tensor([CLAY]).repeat(mesh.num_vertices, 1), torch.tensor([BORDER]).repeat(len(points), 1)
    return TriMesh(
        torch.cat((mesh.vertices, points)),
        torch.cat((mesh.faces, faces.reshape(-1, 3))),
        attributes={"base_color": torch.cat(color)},
        up=mesh.up,
    )


def main(argv: list[str] | None = None) -> dict[str, dict[str, Score]]:
    """Returns the scores by shape and representation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mesh", type=Path, help="any open mesh (default: a bowl and a skirt)")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--smallest", action="store_true", help="the size that tests run")
    arguments = parser.parse_args(argv)
    resolution = 32 if arguments.smallest else arguments.resolution
    pixels = 96 if arguments.smallest else 360
    meshes = {"bowl": shapes.bowl(opening=1.2, rings=48, around=128).replace(up="z").with_up("y"), "skirt": skirt()}
    if arguments.mesh:
        given = load_mesh(arguments.mesh)
        meshes = {arguments.mesh.stem: TriMesh(given.vertices, given.faces, up=given.up)}

    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Score]] = {}
    figure = []
    for name, mesh in meshes.items():
        flex = SparseFlex.from_mesh(mesh, resolution)
        capped, plate = SparseSDF.from_mesh(mesh, resolution), SparseSDF.from_mesh(mesh, resolution, sign="flood")
        surfaces = {"SparseFlex": flex.to_mesh(), "SDF, winding": capped.to_mesh(), "SDF, flood": plate.to_mesh()}
        cell = flex.frame.voxel_size[0]
        camera = camera_for_bounds(*mesh.bounds(), elevation=38, azimuth=25, up=mesh.up, margin=0.9, width=pixels, height=pixels)
        own = mesh_report(mesh)
        notes = (f"{own.boundary_edges:,} border edges, loops: {own.boundary_loops}",)
        row = [Panel(render_mesh(with_border(mesh, 0.25 * cell), camera, supersample=2).color[0], f"{name}: mesh", notes)]
        found[name] = {}
        print(f"{name} at {resolution}³: {mesh.num_faces:,} triangles, {notes[0]}; {len(flex):,} cells, SDFs {len(capped):,}")
        for title, surface in surfaces.items():
            s = found[name][title] = score(mesh, surface, cell)
            print(
                f"  {title:<13}{s.border_edges:>7,} border edges, loops: {s.border_loops}   Chamfer {s.there:.3f} / {s.back:.3f} cells   "
                f"F-score {s.f:.4f}   area × {s.area:.3f}"
            )
            notes = (f"{s.border_edges:,} border edges, loops: {s.border_loops}", f"mesh to it {s.there:.3f}, back {s.back:.3f} cells")
            row.append(Panel(render_mesh(with_border(surface, 0.25 * cell), camera, supersample=2).color[0], title, notes))
            save_mesh(surface, arguments.out / f"{name}_{title.lower().replace(', ', '_')}.glb")
        figure.append(row)
    save_png(arguments.out / "open_surface.png", compose_figure(figure))
    print(f"expected: SparseFlex has the mesh's loops and F-score above 0.99, SDFs have none; wrote {arguments.out / 'open_surface.png'}")
    return found


if __name__ == "__main__":
    main()
