"""Make the picture of docs/blocks/carving.md: python docs/figures/make_carving_figures.py

Everything is computed: cells from the mesh, kept cells from its depth, pictures from meshes of the kept cells' children.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from make_figures import cell_boxes
from torch import Tensor

from voxgen.core import Camera, Selection, TriMesh, VoxelGrid
from voxgen.render import Panel, adaptive_zoom, carve_by_depth, compose_figure, render_mesh, save_png
from voxgen.testing.carving import carving_errors, decoded, depth_maps, prepared

HERE = Path(__file__).parent
COLORS = {"front": (0.10, 0.60, 0.53), "ring": (0.92, 0.56, 0.15), "carved": (0.80, 0.80, 0.80)}
SIZE = 320


def voxels(parts: dict[str, Tensor], grid: VoxelGrid, camera: Camera) -> Tensor:
    """Boxes of some cells in the colours of their groups."""
    meshes, colors = [], []
    for name, mask in parts.items():
        boxes = cell_boxes(grid.select(mask))
        meshes.append(boxes)
        colors.append(torch.tensor(COLORS[name]).expand(boxes.num_vertices, 3))
    mesh = TriMesh.concatenate(meshes)
    return paint(mesh.replace(attributes={"color": torch.cat(colors)}), camera)


def paint(mesh: TriMesh, camera: Camera) -> Tensor:
    drawn = render_mesh(mesh, camera, supersample=2, normals="flat", attributes=tuple(mesh.attributes))
    if "color" not in mesh.attributes:
        return drawn.color[0]
    base = drawn.attributes["color"][0]
    shade = drawn.color[0].mean(-1, keepdim=True) / 0.93
    return torch.where(drawn.mask[0, ..., None] > 0.5, base * shade, drawn.color[0])


def picture(mesh: TriMesh, camera: Camera, coverage: Tensor | None = None) -> Tensor:
    image = paint(mesh, camera)
    if coverage is None:
        return image
    return torch.where(coverage[0, ..., None], image, 0.4 * image + 0.6 * torch.tensor([0.85, 0.15, 0.15]))


def main() -> None:
    shape, grid, parent, mesh = prepared("bumpy sphere", 32)
    eye = torch.tensor([[1.3, 0.7, 1.4]], dtype=torch.float64)
    camera = Camera.look_at(eye, fov=36, width=SIZE, height=SIZE, near=0.5, far=4.0)
    beside = Camera.look_at(torch.tensor([[1.75, 0.5, -1.05]]), fov=34, width=SIZE, height=SIZE)
    depth = depth_maps(mesh, camera)
    front = carve_by_depth(grid, depth, camera, dilate=0, cover=False)
    kept = carve_by_depth(grid, depth, camera)
    groups = {"front": front.mask, "ring": kept.mask & ~front.mask, "carved": ~kept.mask}
    full = depth_maps(decoded(shape), camera)
    errors = {
        name: int(carving_errors(full, depth_maps(decoded(shape, parent, s), camera))) for name, s in (("kept", kept), ("bare", front))
    }
    centre = _cell_in_picture(grid, kept, camera, (0.25, -0.2))
    options: dict[str, Any] = {"among": kept, "centre": centre, "reach": 0.25}  # of a cell that is divided in four
    zoom = adaptive_zoom(grid, camera, 260, **options)
    paper = adaptive_zoom(grid, camera, 260, metric="l2", square=False, **options)
    printed = adaptive_zoom(grid, camera, 260, square=False, formula="printed", **options)
    rows = [
        [
            Panel(voxels(groups, grid, beside), "voxels from the side; the camera is on the left", ("kept: seen (teal), ring (orange)",)),
            Panel(picture(decoded(shape), camera), "the view, all voxels", (f"{len(grid):,} voxels",)),
            Panel(
                picture(decoded(shape, parent, kept), camera),
                "kept voxels only",
                (f"{kept.count:,} voxels, {errors['kept']} pixels differ",),
            ),
            Panel(
                picture(decoded(shape, parent, front), camera, front.coverage),
                "without the ring",
                (f"{front.count:,} voxels, {errors['bare']} pixels differ", "red: not covered"),
            ),
        ],
        [
            Panel(
                voxels({"front": zoom.mask, "carved": kept.mask & ~zoom.mask}, grid, camera),
                "a zoom's voxels",
                (f"{zoom.count} of {kept.count:,}",),
            ),
            Panel(picture(decoded(shape, parent, zoom), zoom.camera, zoom.coverage), "what it sees", ("every pixel covered",)),
            Panel(
                picture(decoded(shape, parent, paper), paper.camera, paper.coverage),
                "nearest in L2, bounding box",
                (f"{100 - 100 * float(paper.coverage.double().mean()):.0f} % not covered",),
            ),
            Panel(
                picture(decoded(shape, parent, printed), printed.camera, printed.coverage),
                "Eq. (4) as printed",
                (f"{100 - 100 * float(printed.coverage.double().mean()):.0f} % not covered",),
            ),
        ],
    ]
    caption = "A bumpy sphere with voxels at 32³, meshed at 128³. Depth comes from a mesh at 256³."
    save_png(HERE / "carving.png", compose_figure(rows, title="Carving by depth, adaptive zooming", caption=caption))


def _cell_in_picture(grid: VoxelGrid, kept: Selection, camera: Camera, place: tuple[float, float]) -> Tensor:
    """The kept cell nearest to the eye among those near a place in the picture, −1 to 1."""
    clip = torch.nn.functional.pad(grid.frame.centers(grid.cells, torch.float64), (0, 1), value=1) @ camera.clip_matrices()[0].T
    away = (clip[:, :2] / clip[:, 3:] - torch.tensor(place, dtype=torch.float64)).norm(dim=1)
    return torch.where(kept.mask, away + 0.1 * clip[:, 3], math.inf).argmin()[None]


if __name__ == "__main__":
    main()
