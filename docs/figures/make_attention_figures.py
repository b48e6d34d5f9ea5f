"""Make the pictures of attention and of the sparse SDF: python docs/figures/make_attention_figures.py

Each is drawn from what the code does: the tokens that one query sees come from a plan and from the choice of blocks, the band from
the stored cells, the outline from the extracted mesh. ssa_vs_full_attention.png and ssa_ablation.png are what the example and the
benchmark of these names draw.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from voxgen.attention import SSAPlan
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.ops.block_attention import compression_attention
from voxgen.ops.block_topk import block_topk
from voxgen.ops.resample import Structure, pool
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png
from voxgen.representations import SparseSDF
from voxgen.testing import shapes

HERE = Path(__file__).parent
GREY, TEAL, ORANGE, PURPLE, RED = (0.80, 0.82, 0.84), (0.10, 0.60, 0.53), (0.95, 0.55, 0.15), (0.47, 0.33, 0.68), (0.85, 0.08, 0.10)
SHAPE = shapes.rotated(shapes.merged(shapes.torus(0.34, 0.1), shapes.sphere(0.16)))


def boxes(cells: Tensor, side: float, colors: Tensor, shrink: float = 0.92) -> TriMesh:
    """A painted box for each cell, in units of the finest grid."""
    unit = shapes.box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    corners = (cells.float()[:, None] + 0.5 + shrink * (unit.vertices - 0.5)) * side
    faces = unit.faces + 8 * torch.arange(len(cells), dtype=torch.int32)[:, None, None]
    return TriMesh(corners.reshape(-1, 3), faces.reshape(-1, 3), attributes={"base_color": colors.repeat_interleave(8, 0)})


def keys_of(grid: VoxelGrid, channels: int = 16) -> Tensor:
    """Keys that are smooth in the place, as those of a network are."""
    chance = torch.Generator().manual_seed(3)
    place = (grid.cells + 0.5) / grid.resolution[0] - 0.5
    waves = torch.cat([f(place * scale) for f in (torch.sin, torch.cos) for scale in (4, 9)], 1)
    return 1.5 * (waves @ torch.randn(waves.shape[1], channels, generator=chance))[:, None]


def attention_figure() -> None:
    """What one token sees: all summaries, the blocks with the largest share of its attention to them, and its window."""
    grid = Structure.of_children(SparseSDF.from_mesh(SHAPE, 256, sign="unsigned").grid, 8).parents
    plan = SSAPlan.build(grid, compression_block=4, selection_block=8, window=8)
    keys = keys_of(grid)
    summaries = pool(keys[:, 0], plan.compression, "mean")[:, None]
    lse = compression_attention(keys, summaries, summaries, plan).lse
    chosen = block_topk(keys, summaries, lse, plan, 4)[0]

    low, high = grid.cells.min(0).values.float(), grid.cells.max(0).values.float() + 1
    camera = camera_for_bounds(low, high, elevation=30, azimuth=35, margin=0.86, width=448, height=448)
    depth = (grid.cells.float() + 0.5) @ camera.world_to_camera[0, 2, :3]
    query = int(depth.argmin())  # a token that faces the camera
    near = plan.windows(4).block == plan.windows(4).block[query]
    seen = torch.isin(plan.selection.block, chosen[query])
    share = ((keys[query] @ summaries[:, 0].T) * keys.shape[2] ** -0.5 - lse[query]).exp()[0]

    def paint(mask: Tensor, color: tuple[float, float, float]) -> Tensor:
        colors = torch.tensor(GREY).repeat(len(grid), 1)
        colors[mask] = torch.tensor(color)
        colors[query] = torch.tensor(RED)
        return render_mesh(boxes(grid.cells, 1.0, colors), camera, supersample=2, normals="flat").color[0]

    strength = (share / share.max()).sqrt()[:, None]  # a root, to show small shares too
    blend = torch.tensor(GREY) * (1 - strength) + torch.tensor(PURPLE) * strength
    blocks = render_mesh(boxes(plan.compressed.cells, 4.0, blend), camera, supersample=2, normals="flat").color[0]
    panels = [
        Panel(blocks, f"compression: all {len(plan.compressed)} summaries", ("darker: more of its attention",)),
        Panel(paint(seen, ORANGE), f"selection: {int(seen.sum())} of {len(grid):,} tokens", ("the 4 blocks with most of that attention",)),
        Panel(paint(near, TEAL), f"window: {int(near.sum())} tokens", ("the query is red",)),
    ]
    save_png(HERE / "attention.png", compose_figure([panels]))


def sparse_sdf_figure() -> None:
    """A slice of the band, the volume with its signed far field, and the surface."""
    sdf = SparseSDF.from_mesh(SHAPE, 64)
    mesh = sdf.to_mesh()
    height = 32
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4.1), layout="constrained")
    volume = sdf.dense()[0, :, :, height]
    stored = SparseTensor(sdf.grid, torch.ones(len(sdf), 1)).dense()[0, 0, :, :, height] > 0
    extent = (0, 64, 0, 64)
    for axes, picture, title in (
        (left, torch.where(stored, volume, torch.nan), f"stored: {len(sdf):,} of {64**3:,} cells"),
        (middle, volume, "dense(): far cells are ± the band"),
    ):
        image = axes.imshow(picture.T, origin="lower", extent=extent, cmap="RdBu", vmin=-sdf.band, vmax=sdf.band, interpolation="nearest")
        outline(axes, mesh, sdf, height + 0.5)
        axes.set(title=title, xticks=[], yticks=[])
    figure.colorbar(image, ax=middle, label="distance in cells, negative inside", shrink=0.85)
    camera = camera_for_bounds(*mesh.bounds(), elevation=30, azimuth=35, margin=1.0, width=448, height=448)
    right.imshow(render_mesh(mesh, camera, supersample=2).color[0])
    right.set(title=f"to_mesh: {mesh.num_faces:,} triangles", xticks=[], yticks=[])
    right.axis("off")
    figure.savefig(HERE / "sparse_sdf.png", dpi=110)
    plt.close(figure)


def outline(axes: Axes, mesh: TriMesh, sdf: SparseSDF, height: float) -> None:
    """Where the mesh passes a height, in cells."""
    corners = sdf.frame.to_index(mesh.vertices.double())[mesh.faces.long()]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        for c, d in ((1, 2), (2, 0)):
            if (a, b) == (c, d):
                continue
            first, second = (crossing(corners[:, i], corners[:, j], height) for i, j in ((a, b), (c, d)))
            both = ~(first.isnan().any(1) | second.isnan().any(1))
            lines = torch.stack((first[both], second[both]), 1)
            axes.plot(lines[:, :, 0].T, lines[:, :, 1].T, color="black", linewidth=1.1)


def crossing(start: Tensor, end: Tensor, height: float) -> Tensor:
    """(m, 2) where lines pass a height, NaN where they do not."""
    part = (height - start[:, 2]) / (end[:, 2] - start[:, 2])
    points = start[:, :2] + part[:, None] * (end[:, :2] - start[:, :2])
    return torch.where(((part >= 0) & (part <= 1))[:, None], points, torch.nan)


def main() -> None:
    attention_figure()
    sparse_sdf_figure()


if __name__ == "__main__":
    main()
