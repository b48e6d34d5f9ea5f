"""Make sparse_flex.png: python docs/figures/make_sparse_flex_figures.py

A bowl as cells, as SparseFlex and as a signed distance field; a box with and without fitted weights, and its cells' corners.
"""

from __future__ import annotations

from pathlib import Path

from make_figures import cell_boxes

from voxgen.core import TriMesh
from voxgen.metrics import compare_surfaces
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png
from voxgen.representations import SparseFlex, SparseSDF
from voxgen.testing import shapes

HERE = Path(__file__).parent
PIXELS = 320


def panel(mesh: TriMesh, like: TriMesh, title: str, *notes: str) -> Panel:
    camera = camera_for_bounds(*like.bounds(), elevation=38, azimuth=25, margin=0.9, width=PIXELS, height=PIXELS)
    return Panel(render_mesh(mesh, camera, supersample=2, normals="flat").color[0], title, notes)


def mean_error(mesh: TriMesh, flex: SparseFlex) -> str:
    found = compare_surfaces(mesh, flex.to_mesh(), samples=50_000)
    cell = flex.frame.voxel_size[0]
    return f"mean {float(found.a_to_b.distances.mean()) / cell:.3f}, largest {float(found.a_to_b.distances.max()) / cell:.2f} cells off"


def main() -> None:
    bowl = shapes.bowl(opening=1.2, rings=32, around=96).replace(up="z").with_up("y")
    flex = SparseFlex.from_mesh(bowl, 28)
    closed = SparseSDF.from_mesh(bowl, 28)
    first = [
        panel(cell_boxes(flex.grid), bowl, f"{len(flex):,} cells that a bowl touches"),
        panel(flex.to_mesh(), bowl, "SparseFlex: open where the cells end"),
        panel(closed.to_mesh(), bowl, "signed distances close the hole"),
    ]
    box = shapes.rotated(shapes.box())
    plain, fitted = SparseFlex.from_mesh(box, 20, fit=False), SparseFlex.from_mesh(box, 20)
    second = [
        panel(box, box, "a box"),
        panel(plain.to_mesh(), box, "fit=False: means of crossings", mean_error(box, plain)),
        panel(fitted.to_mesh(), box, "fitted weights and corners", mean_error(box, fitted)),
    ]
    save_png(HERE / "sparse_flex.png", compose_figure([first, second]))


if __name__ == "__main__":
    main()
