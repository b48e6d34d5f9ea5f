"""Make the picture of the page on self-pruning upsampling: python docs/figures/make_self_pruning_figures.py

A ring of cells is upsampled whole and cut in two. Colours are how far the children of the left half are from those of the whole.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import torch
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.layers import SelfPruningUpsampler
from voxgen.testing.shells import shell

HERE = Path(__file__).parent
SIDE = 32
EXACT = 1e-6
"""Relative differences below this are rounding."""


def main() -> None:
    torch.manual_seed(0)
    grid = shell(resolution=SIDE).grid
    # features that vary over the shape, as a network's do: statistics of a part are not those of the whole
    feats = torch.randn(len(grid), 32) + 3 * torch.sin(grid.cells.float() / 6) @ torch.randn(3, 32)
    near = grid.cells[:, 0] < SIDE // 2
    crop = SparseTensor(grid.select(near), feats[near])
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    image = None
    for axes, norm in zip(panels, ("group", "per_voxel"), strict=True):
        torch.manual_seed(1)
        layer = SelfPruningUpsampler(32, 32, norm=norm)
        torch.nn.init.normal_(layer.upsample.conv2.weight, std=0.03)  # zero in a new layer
        with torch.no_grad():
            whole, part = layer(SparseTensor(grid, feats), prune=False).x, layer(crop, prune=False).x
        rows = whole.grid.rows_of(part.coords)
        gap = (whole.feats[rows] - part.feats).norm(dim=1) / whole.feats[rows].norm(dim=1)
        picture = torch.full((2 * SIDE, 2 * SIDE), float("nan"))
        middle = part.grid.cells[:, 2] == SIDE
        x, y, _ = part.grid.cells[middle].long().unbind(1)
        picture[y, x] = gap[middle].clamp_min(EXACT)
        draw_rest(picture, whole.grid)
        image = axes.imshow(picture.numpy(), origin="lower", norm=LogNorm(EXACT, 1), cmap="magma_r", interpolation="nearest")
        axes.axvline(SIDE - 0.5, color="#1a9988", linewidth=1.5)
        inner = part.grid.cells[:, 0] < SIDE - 2
        axes.set(title=f'norm="{norm}": up to {float(gap[inner].max()):.1g} away from the cut', xticks=[], yticks=[])
    assert image is not None
    figure.colorbar(image, ax=panels, label="relative difference to the whole")
    figure.savefig(HERE / "self_pruning.png", dpi=100)


def draw_rest(picture: torch.Tensor, grid: VoxelGrid) -> None:
    """Cells of the other half, which the crop does not have, in the lightest colour."""
    cells = grid.cells[(grid.cells[:, 2] == SIDE) & (grid.cells[:, 0] >= SIDE)].long()
    picture[cells[:, 1], cells[:, 0]] = EXACT


if __name__ == "__main__":
    main()
