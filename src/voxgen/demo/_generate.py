"""Pictures to textured assets, by the small system whose weights come with voxgen."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.errors import EmptyResultWarning
from voxgen.data import condition_images, procedural_dataset
from voxgen.io import save_mesh
from voxgen.models.pipelines import Trellis2Pipeline
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh, save_png

SAMPLES = 16
"""Pictures and seeds 0 to 15 of the contact sheet; all are shown."""
VIEW = 256
"""Side in pixels of the condition pictures."""


@dataclass(frozen=True, eq=False)
class Condition:
    """A picture of an asset that was not trained on.

    Attributes:
        name: of the asset.   image: (h, w, 4) uint8.
    """

    name: str
    image: Tensor


@dataclass(frozen=True)
class Made:
    """What the demo generated.

    Attributes:
        meshes: one a picture, empty where the structure was.
        tokens: latent cells of all.   cells: voxels of all.   seconds: pictures → O-Voxels.   export: O-Voxels → meshes and pictures.
    """

    meshes: Sequence[TriMesh]
    tokens: int
    cells: int
    seconds: float
    export: float

    def __str__(self) -> str:
        empty = sum(mesh.num_faces == 0 for mesh in self.meshes)
        lost = f", {empty} of them empty" if empty else ""
        return (
            f"{len(self.meshes)} pictures → {self.tokens:,} latents → {self.cells:,} voxels in {self.seconds:.0f} s; "
            f"meshes and pictures in {self.export:.0f} s{lost}"
        )


def held_out_conditions(count: int, size: int = VIEW) -> list[Condition]:
    """A picture of each of the first `count` assets of the test split."""
    found = []
    for index, asset in enumerate(procedural_dataset(count, split="test")):
        picture = condition_images(asset.mesh, 1, size=size, supersample=2, generator=torch.Generator().manual_seed(index))
        found.append(Condition(asset.name, picture.images[0]))
    return found


def generate_sheet(pipeline: Trellis2Pipeline, conditions: Sequence[Condition], out: Path, size: int) -> Made:
    """Generate an asset from each picture, with seeds 0, 1, …; write the first as GLB and all as generated.png.

    Args:
        pipeline: with image encoders.
        conditions: the pictures.
        out: folder to write to.
        size: pixels of a picture of the sheet.
    """
    show = sys.stderr.isatty()
    start = time.perf_counter()
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(conditions))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)  # told in the table: a sample may be empty
        made = pipeline.generate([condition.image for condition in conditions], generator=seeds, progress=show)
    seconds = time.perf_counter() - start
    meshes = made.meshes("attributes")
    start = time.perf_counter()
    first = next((i for i, mesh in enumerate(meshes) if mesh.num_faces), None)
    if first is not None:
        save_mesh(made.mesh(first, "texture", texture_size=1024), out / "generated.glb")
    save_png(out / "generated.png", contact_sheet(conditions, meshes, size))
    return Made(meshes, len(made.shape_latent), len(made.ovoxel), seconds, time.perf_counter() - start)


def contact_sheet(conditions: Sequence[Condition], meshes: Sequence[TriMesh], size: int, columns: int = 4) -> Tensor:
    """Each picture with what was made of it, seen from two sides, four to a row; (h, w, 3) uint8."""
    cells = []
    for seed, (condition, mesh) in enumerate(zip(conditions, meshes, strict=True)):
        cells.append(
            [Panel(_on_white(condition.image, size), f"{condition.name.partition('-')[0]}, {seed}")]
            + [Panel(v) for v in _views(mesh, size)]
        )
    rows = [[panel for cell in cells[i : i + columns] for panel in cell] for i in range(0, len(cells), columns)]
    caption = (
        "Each group: the picture of a procedural asset that was not trained on, and what is made of it, from the front and from behind. "
        "With category and seed; the first seeds, none left out."
    )
    return compose_figure(rows, title="Picture to textured asset: structure, shape, material", caption=caption)


def _views(mesh: TriMesh, size: int) -> list[Tensor]:
    low, high = torch.full((3,), -0.5), torch.full((3,), 0.5)
    if mesh.num_faces == 0:
        return [torch.ones(size, size, 3)] * 2
    sides = (30.0, 210.0)
    cameras = [camera_for_bounds(low, high, up=mesh.up, elevation=20, azimuth=a, margin=0.8, width=size, height=size) for a in sides]
    return [render_mesh(mesh, camera, supersample=2, background=(1.0, 1.0, 1.0)).color[0].clamp(0, 1) for camera in cameras]


def _on_white(image: Tensor, size: int) -> Tensor:
    """(h, w, 4) uint8 → (size, size, 3)."""
    pixels = image.float() / 255
    shown = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    return torch.nn.functional.interpolate(shown.permute(2, 0, 1)[None], (size, size), mode="area")[0].permute(1, 2, 0)
