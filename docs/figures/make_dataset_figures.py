"""Make the picture of the page on procedural assets: python docs/figures/make_dataset_figures.py

dataset.png: an asset of each category, and for one more the pictures that condition a model on it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from voxgen.data import CATEGORIES, condition_images, procedural_asset
from voxgen.render import orbit_cameras, render_mesh, save_png

HERE = Path(__file__).parent
SIZE, COLUMNS = 108, 12
SEED = 3
CONDITIONS = 4


def portrait(category: str) -> Tensor:
    """(SIZE, SIZE, 3)."""
    mesh = procedural_asset(0, seed=SEED, category=category).mesh
    camera = orbit_cameras(1, points=mesh.vertices, azimuth=32, elevation=20, margin=1.06, width=SIZE, height=SIZE)
    return render_mesh(mesh, camera, background=(1.0, 1.0, 1.0), supersample=3).color[0]


def conditions() -> list[Tensor]:
    mesh = procedural_asset(1, seed=SEED, category="robot").mesh
    pictures = condition_images(mesh, CONDITIONS, size=SIZE, supersample=3, generator=torch.Generator().manual_seed(5))
    return list(pictures.over((0.9, 0.92, 0.95)).permute(0, 2, 3, 1))


def main() -> None:
    tiles = [portrait(category) for category in CATEGORIES] + conditions()
    rows = [torch.cat(tiles[start : start + COLUMNS], 1) for start in range(0, len(tiles), COLUMNS)]
    save_png(HERE / "dataset.png", torch.cat(rows))


if __name__ == "__main__":
    main()
