"""Make the pictures of Gaussians and of tiles: python docs/figures/make_gaussian_figures.py

gaussians.png: a mesh, the Gaussians of its O-Voxel, their normals and depths. view_tiling.png: tiles over the object, the cells that one
tile needs, and what goes wrong when a tile is drawn by moving the camera's principal point, as it is usually done.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from voxgen import demo
from voxgen.core import Camera, TriMesh
from voxgen.render import (
    Panel,
    Tile,
    ViewTiling,
    apply_colormap,
    camera_for_bounds,
    compose_figure,
    cull_voxels,
    render_gaussians,
    render_mesh,
    save_png,
)
from voxgen.representations import GaussianActivation, GaussianSplats, OVoxel
from voxgen.testing import shapes

HERE = Path(__file__).parent
PAPER = (0.925, 0.93, 0.94)


def framed(image: Tensor, tile: Tile, color: tuple[float, float, float], width: int = 2) -> Tensor:
    """The image with a rectangle drawn along the border of a tile."""
    marked = image.clone()
    inside = tile.cut(marked, 0)
    for edge in (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]):
        edge[:] = torch.tensor(color)
    return marked


def gaussians_figure() -> None:
    mesh = demo.procedural_asset()
    camera = camera_for_bounds(*mesh.bounds(), elevation=24, azimuth=30, margin=0.92, width=288, height=288)
    source = render_mesh(mesh, camera, shading="albedo", supersample=2).color[0]
    rows = [[Panel(source, "mesh, base colour", (f"{mesh.num_faces:,} triangles",))]]
    for resolution in (64, 160):
        splats = GaussianSplats.from_ovoxel(OVoxel.from_mesh(mesh, resolution))
        color = render_gaussians(splats, camera, background=PAPER).color[0].clamp(0, 1)
        rows[0].append(Panel(color, f"Gaussians, {resolution} cells a side", (f"{len(splats):,} Gaussians",)))
    maps = render_gaussians(splats, camera, normals=True)
    assert maps.normal is not None
    covered = maps.alpha[0] > 0.5
    facing = torch.where(covered[..., None], (maps.normal[0] + 1) / 2, torch.tensor(PAPER))
    depth = maps.depth[0].clone()
    depth[~covered] = depth[covered].max()
    near = (depth.max() - depth) / (depth.max() - depth.min())
    rows.append(
        [
            Panel(facing, "normal", ("mean of the shortest axes",)),
            Panel(apply_colormap(near, 0, 1), "depth", ("mean over what is seen",)),
            Panel(maps.alpha[0][..., None].expand(-1, -1, 3), "alpha"),
        ]
    )
    save_png(HERE / "gaussians.png", compose_figure(rows))


def tiling_figure() -> None:
    mesh = shapes.rotated(shapes.merged(shapes.torus(0.34, 0.1), shapes.sphere(0.16)))
    ovoxel = OVoxel.from_mesh(mesh, 32, materials=False)
    cells = ovoxel.grid
    size, activation = 352, GaussianActivation(1, largest_scale=0.8, scale_bias=0.8 / 32)
    feats = torch.zeros(len(cells), 14)
    place = (cells.cells.float() + 0.5) / 32
    feats[:, 3:6] = 3.2 * (place - 0.5)
    feats[:, 13] = 3.0
    splats = GaussianSplats.from_features(cells, feats, activation)
    camera = camera_for_bounds(*mesh.bounds(), elevation=30, azimuth=35, margin=0.8, width=size, height=size)
    full = render_gaussians(splats, camera, background=PAPER)
    tiling = ViewTiling.of(camera, 3, overlap=16, region=full.alpha[0] > 0.5)
    image = full.color[0].clamp(0, 1)
    tiles = image
    for i, tile in enumerate(tiling.tiles):
        tiles = framed(tiles, tile, (0.47, 0.33, 0.68) if i != 1 else (0.85, 0.08, 0.10), 1 if i != 1 else 3)
    chosen = tiling.tiles[1]
    kept = cull_voxels(cells, camera, chosen, largest_scale=0.8 / 32)
    some = GaussianSplats.from_features(kept.apply(cells), kept.apply(feats), activation)
    alone = framed(render_gaussians(some, camera, background=PAPER).color[0].clamp(0, 1), chosen, (0.85, 0.08, 0.10), 3)
    wrong, worst = _moved_principal_point(mesh)
    panels = [
        Panel(tiles, f"{len(tiling)} tiles over the object", (f"{chosen.width} × {chosen.height} pixels, 16 shared",)),
        Panel(alone, "the cells that the red tile needs", (f"{kept.count:,} of {len(cells):,}: {100 * kept.share:.0f} %",)),
        Panel(wrong, "error of tiles by a moved principal point", (f"wide view, 4 × 4 tiles: up to {worst:.2g}", "tiles by crop=: 0")),
    ]
    save_png(HERE / "view_tiling.png", compose_figure([panels]))


def _moved_principal_point(mesh: TriMesh) -> tuple[Tensor, float]:
    """Error of the usual way to draw a tile, in a wide view from near by, and its largest value."""
    splats = GaussianSplats.from_ovoxel(OVoxel.from_mesh(mesh, 16, materials=False), spread=1.2, opacity=0.6)
    camera = Camera.look_at(torch.tensor([[0.35, 0.32, 0.5]]), width=352, height=352, fov=85.0)
    full = render_gaussians(splats, camera).color[0]
    error = torch.zeros(352, 352)
    for tile in ViewTiling.of(camera, 4, overlap=0).tiles:
        k = camera.intrinsics.clone()
        k[:, 0, 2] -= tile.left
        k[:, 1, 2] -= tile.top
        own = Camera(camera.world_to_camera, k, tile.width, tile.height, camera.near, camera.far)
        part = render_gaussians(splats, own).color[0]
        tile.cut(error, 0).copy_((part - tile.cut(full, 0)).abs().amax(-1))
    return apply_colormap(error.sqrt(), 0, float(error.max()) ** 0.5), float(error.max())


def main() -> None:
    gaussians_figure()
    tiling_figure()


if __name__ == "__main__":
    main()
