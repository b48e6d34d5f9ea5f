"""Make enclosed.png: python docs/figures/make_recipe_figures.py

Half of a torus' cells: the surface that ends with them, and the one that closes as TRELLIS' dense extraction closes it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from make_figures import cell_boxes

from voxgen.core import TriMesh
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png
from voxgen.representations import SparseFlex
from voxgen.testing.shapes import torus

HERE = Path(__file__).parent
PIXELS = 320
SIDE = 32


def border_edges(mesh: TriMesh) -> int:
    """Edges of one face alone."""
    edges = torch.cat([mesh.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]).sort(1).values
    return int((edges.unique(dim=0, return_counts=True)[1] == 1).sum())


def main() -> None:
    flex = SparseFlex.from_mesh(torus(), SIDE).crop((0, 0, 0), (SIDE, SIDE // 2, SIDE))
    closed = flex.enclosed()
    camera = camera_for_bounds(*flex.to_mesh().bounds(), elevation=25, azimuth=40, margin=0.9, width=PIXELS, height=PIXELS)

    def panel(shown: TriMesh, title: str, *notes: str) -> Panel:
        return Panel(render_mesh(shown, camera, supersample=2, normals="flat").color[0], title, notes)

    row = [panel(cell_boxes(flex.grid), f"{len(flex):,} cells: half of a torus")]
    for title, field in (("SparseFlex: ends with its cells", flex), ("enclosed: closed where inside meets the border", closed)):
        surface = field.to_mesh()
        row.append(panel(surface, title, f"{border_edges(surface):,} open edges, {len(field.grid):,} cells"))
    save_png(HERE / "enclosed.png", compose_figure([row]))


if __name__ == "__main__":
    main()
