"""Make the pictures of the pages on layers: python docs/figures/make_layer_figures.py

Each is drawn from what the layers do, not by hand: cells come from neighbour tables, statistics from gradients, colours from
features that went down a level and up again.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import torch
from make_figures import cell_boxes
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from voxgen import demo
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.camera import Camera
from voxgen.layers import (
    LayerNorm32,
    NearestUpsample,
    PooledDownsample,
    ResidualDownsample,
    ResidualUpsample,
    SparseGroupNorm,
    SparseInstanceNorm,
    read_dual_grid,
)
from voxgen.ops.neighbors import neighbor_table
from voxgen.ops.resample import Structure
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png
from voxgen.representations import OVoxel
from voxgen.testing.grids import random_grid

HERE = Path(__file__).parent
TEAL, GREY, ORANGE = "#1a9988", "#c8c8c8", "#eb5600"


def draw_cells(axes: Axes, cells: Tensor, size: float, color: str, **style: object) -> None:
    for x, y in (cells.float() * size).tolist():
        axes.add_patch(Rectangle((x, y), size, size, facecolor=color, edgecolor="white", **style))


def sparse_conv_figure() -> None:
    """One layer of cells on a ring; what one output cell of each kind reads."""
    angle = torch.linspace(0, 2 * torch.pi, 200)
    ring = torch.stack((8 + 5.3 * angle.cos(), 8 + 5.3 * angle.sin()), 1).int().unique(dim=0)
    flat = torch.nn.functional.pad(torch.nn.functional.pad(ring, (1, 0)), (0, 1))
    grid, _ = VoxelGrid.build(flat, resolution=(16, 16, 1))
    kinds = {
        "submanifold, 3 × 3": dict(kernel_size=(3, 3, 1)),
        "strided, 2 × 2": dict(kernel_size=(2, 2, 1), stride=(2, 2, 1)),
        "generative, 2 × 2": dict(kernel_size=(2, 2, 1), stride=(2, 2, 1), transposed=True),
    }
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2))
    for axes, (title, options) in zip(panels, kinds.items(), strict=True):
        table = neighbor_table(grid, **options)
        size = 16 / table.out_grid.resolution[0]
        chosen = int((table.table >= 0).sum(1).argmax())
        read = table.table[chosen]
        draw_cells(axes, grid.cells[:, :2], 1.0, GREY)
        draw_cells(axes, grid.cells[read[read >= 0].long(), :2], 1.0, TEAL)
        for x, y in (table.out_grid.cells[:, :2] * size).tolist():
            axes.add_patch(Rectangle((x, y), size, size, fill=False, edgecolor="#888888", linewidth=0.6))
        x, y = (table.out_grid.cells[chosen, :2] * size).tolist()
        axes.add_patch(Rectangle((x, y), size, size, fill=False, edgecolor=ORANGE, linewidth=2.5))
        axes.set(xlim=(1, 15), ylim=(1, 15), aspect="equal", xticks=[], yticks=[])
        axes.set_title(f"{title}: {len(grid)} → {len(table.out_grid)} cells")
    figure.text(0.5, 0.02, "grey: input cells   outlined: output cells   orange: one output cell   teal: what it reads", ha="center")
    save(figure, "sparse_conv")


def norms_figure() -> None:
    """Which entries one output depends on, by its gradient."""
    grid = random_grid((7, 5), resolution=8)
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2))
    norms = {
        "LayerNorm32(8)": LayerNorm32(8),
        "SparseInstanceNorm(8)": SparseInstanceNorm(8),
        "SparseGroupNorm(2, 8)": SparseGroupNorm(2, 8),
    }
    for axes, (title, norm) in zip(panels, norms.items(), strict=True):
        feats = torch.randn(len(grid), 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        norm(SparseTensor(grid, feats)).feats[3, 2].backward()
        assert feats.grad is not None
        shares = feats.grad != 0
        picture = torch.where(shares[..., None], torch.tensor([26, 153, 136]), torch.tensor([232, 232, 232])).to(torch.uint8)
        picture[3, 2] = torch.tensor([235, 86, 0], dtype=torch.uint8)
        axes.imshow(picture.numpy(), interpolation="nearest")
        axes.axhline(6.5, color="black", linewidth=1.5)
        axes.set(xlabel="channels", xticks=[], yticks=[3, 9], yticklabels=["sample 0", "sample 1"], title=title)
    save(figure, "norms")


def blocks_figure() -> None:
    """Multiply-adds a cell, in units of C², at the mean number of neighbours of a real surface."""
    grid = OVoxel.from_mesh(demo.procedural_asset(), 128, materials=False).grid
    table = neighbor_table(grid, kernel_size=3)
    near = table.num_pairs() / len(grid)
    figure, axes = plt.subplots(figsize=(9, 2.6))
    blocks = {
        "ConvNeXt block": {"convolution": near, "linear 1": 4, "linear 2": 4},
        "plain residual block": {"convolution 1": near, "convolution 2": near},
    }
    for row, parts in enumerate(blocks.values()):
        start = 0.0
        for label, part in parts.items():
            axes.barh(row, part, left=start, color=TEAL if "conv" in label else ORANGE, edgecolor="white")
            axes.text(start + part / 2, row, f"{label}\n{part:.1f}", ha="center", va="center", color="white", fontsize=9)
            start += part
    axes.set(
        yticks=[0, 1],
        yticklabels=list(blocks),
        xlabel=f"multiply-adds a cell / C²  ({near:.1f} of 27 neighbours exist)",
    )
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "blocks")


def paint(ovoxel: OVoxel, colors: Tensor, camera: Camera) -> Tensor:
    """Cells as boxes in the given colours."""
    boxes = cell_boxes(ovoxel.grid, shrink=1.0)
    painted = TriMesh(boxes.vertices, boxes.faces, attributes={"base_color": colors.clamp(0, 1).repeat_interleave(8, 0)}, up=boxes.up)
    return render_mesh(painted, camera, supersample=2, normals="flat").color[0]


def residual_figure() -> None:
    """Colours of cells down a level and up again, through the shortcuts alone (new blocks are their shortcuts)."""
    ovoxel = OVoxel.from_mesh(demo.procedural_asset(), 40)
    colors = ovoxel.materials["base_color"].float()
    noise = torch.rand(len(colors), 1, generator=torch.Generator().manual_seed(0))
    colors = (0.35 + 0.65 * colors) * (0.6 + 0.4 * noise)  # cells that differ from their neighbours
    x = SparseTensor(ovoxel.grid, torch.nn.functional.pad(colors, (0, 1)).repeat_interleave(4, 1))  # 16 channels
    with torch.no_grad():
        coarse, structure = ResidualDownsample(16, 32)(x)
        kept = ResidualUpsample(32, 16)(coarse, structure).feats[:, 0:12:4]
        pooled, structure = PooledDownsample(16, 16)(x)
        mixed = NearestUpsample(16, 16)(pooled, structure).feats[:, 0:12:4]
    low, high = ovoxel.to_mesh().bounds()
    camera = camera_for_bounds(low, high, elevation=24, azimuth=30, margin=0.92, width=448, height=448)
    panels = [
        Panel(paint(ovoxel, colors, camera), f"{len(ovoxel):,} cells"),
        Panel(paint(ovoxel, mixed, camera), f"pooled pair: error {float((mixed - colors).abs().mean()):.3f}"),
        Panel(paint(ovoxel, kept, camera), f"residual pair: error {float((kept - colors).abs().mean()):.3f}"),
    ]
    save_png(HERE / "residual_autoencoding.png", compose_figure([panels]))


def early_pruning_figure() -> None:
    """The levels of a surface: children kept (grey) and dropped (red), and how many there are."""
    ovoxel = OVoxel.from_mesh(demo.procedural_asset(), 64, materials=False)
    levels = [Structure.of_children(ovoxel.grid)]
    levels.insert(0, Structure.of_children(levels[0].parents))
    low, high = ovoxel.to_mesh().bounds()
    camera = camera_for_bounds(low, high, elevation=24, azimuth=30, margin=0.92, width=448, height=448)
    panels = []
    for structure in levels:
        everything = Structure.of_mask(structure.parents)
        kept = structure.children.rows_of(everything.children.coords) >= 0
        colors = torch.where(kept[:, None], torch.tensor([0.75, 0.78, 0.8]), torch.tensor([0.92, 0.34, 0.1]))
        all_cells = OVoxel(everything.children, torch.full((len(kept), 3), 0.5), torch.zeros(len(kept), 3, dtype=torch.bool))
        title = f"{len(structure.parents):,} cells: {int(kept.sum()):,} of {len(kept):,} children kept"
        panels.append(Panel(paint(all_cells, colors, camera), title))
    panels.append(Panel(paint(ovoxel, torch.full((len(ovoxel), 3), 0.77), camera), f"what is left: {len(ovoxel):,} cells"))
    save_png(HERE / "early_pruning.png", compose_figure([panels]))


def heads_figure() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    mean, logvar = torch.meshgrid(torch.linspace(-3, 3, 121), torch.linspace(-5, 3, 121), indexing="xy")
    kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1)
    lines = left.contour(mean, logvar, kl, levels=[0.05, 0.25, 0.5, 1, 2, 4, 8], colors=TEAL)
    left.clabel(lines, fontsize=8)
    left.set(xlabel="mean", ylabel="log variance", title="KL of one channel from N(0, 1)")
    logit = torch.linspace(-6, 6, 200)
    for margin, color in ((0.0, GREY), (0.5, ORANGE)):
        logits = torch.zeros(200, 7)
        logits[:, 0] = logit
        right.plot(logit, read_dual_grid(logits, margin).dual_vertices[:, 0], color=color, label=f"margin {margin}")
    right.axhspan(0, 1, color="#eef5f4")
    right.set(xlabel="logit", ylabel="dual vertex in its cell", title="range of a predicted dual vertex")
    right.legend()
    save(figure, "heads")


def save(figure: plt.Figure, name: str) -> None:  # pyright: ignore[reportPrivateImportUsage]
    figure.savefig(HERE / f"{name}.png", dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    torch.manual_seed(0)
    for draw in (sparse_conv_figure, blocks_figure, residual_figure, early_pruning_figure, heads_figure, norms_figure):
        draw()


if __name__ == "__main__":
    main()
