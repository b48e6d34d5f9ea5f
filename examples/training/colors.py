"""How good materials are that came back of held-out shapes: on their cells, and in pictures; numbers, a table, and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxgen.metrics import psnr
from voxgen.models import DecodedMaterials
from voxgen.render import MaterialImages, Panel, ScaleBar, apply_colormap, compose_figure, orbit_cameras, render_materials
from voxgen.representations import OVoxel

from .data import Kind, Source
from .measure import Measures
from .scores import numbers, table

VIEWS, SIDE = 4, 128
"""Pictures of each held-out shape, and their side."""
LARGEST = 0.25
"""Error at the end of the scale of pictures."""


@dataclass(frozen=True)
class Score:
    """One shape.

    Attributes:
        cells: of its O-Voxel.   tokens: of the latent.
        l1: mean absolute error of the base colour on cells, of 1.   surface: that of metallic, roughness and alpha.
        psnr: of pictures of the base colour without light, against the source, where both are seen, in decibels.
        best: that of the O-Voxel itself, whose cells are as large as they are.
    """

    cells: float
    tokens: float
    l1: float
    surface: float
    psnr: float
    best: float

    HEADER = f"{'held-out shape':<24} {'cells':>7} {'tokens':>6} {'colour L1':>9} {'other L1':>8} {'PSNR dB':>8} {'(best)':>8}"

    def row(self, name: str) -> str:
        return (
            f"{name[:24]:<24} {self.cells:>7,.0f} {self.tokens:>6,.0f} {self.l1:>9.4f} {self.surface:>8.4f} "
            f"{self.psnr:>8.2f} {self.best:>8.2f}"
        )


@dataclass(frozen=True, eq=False)
class Colored:
    """A held-out shape: pictures of the source, of its O-Voxel, and of its O-Voxel with the materials that came back, and the score."""

    source: Source
    truth: MaterialImages
    voxels: MaterialImages
    found: MaterialImages
    score: Score


@dataclass(frozen=True, eq=False)
class Returned:
    """What `reconstruct` of the example gives: the materials on the true cells, and the tokens of the latent."""

    materials: DecodedMaterials
    tokens: int


def compare(
    vae: nn.Module, reconstruct: Any, source: Source, ovoxel: OVoxel, kind: Kind[Any], device: torch.device, samples: int
) -> Colored:
    """Encode and decode the materials of a shape on its true cells, and compare. All cells count: nothing is sampled."""
    del samples
    made: Returned = reconstruct(vae, ovoxel.to(device))
    camera = orbit_cameras(VIEWS, elevation=20, width=SIDE, height=SIDE)
    found = {name: value.float().cpu().clamp(0, 1) for name, value in made.materials.materials.items()}
    away = {name: float((value - ovoxel.materials[name].float()).abs().mean()) for name, value in found.items()}
    meshes = (kind.mesh_of(source), ovoxel.to_mesh(), ovoxel.replace(materials=found).to_mesh())
    truth, voxels, colored = (render_materials(mesh, camera) for mesh in meshes)
    others = [away[name] for name in found if name != "base_color"]
    numbers = (len(ovoxel), made.tokens, away["base_color"], sum(others) / len(others), _psnr(colored, truth), _psnr(voxels, truth))
    return Colored(source, truth, voxels, colored, Score(*map(float, numbers)))


def _psnr(one: MaterialImages, other: MaterialImages) -> float:
    """Mean over the views; views that are equal, of one colour, count as 60 decibels."""
    both = one.mask & other.mask
    values = psnr(one.base_color.permute(0, 3, 1, 2), other.base_color.permute(0, 3, 1, 2), mask=both)
    return float(values[~values.isnan()].clamp(max=60).mean())


def picture(results: list[Colored], resolution: int, title: str) -> Tensor:
    """A shape a row: the source, its O-Voxel, the materials that came back, and the error. (h, w, 3) uint8."""
    del resolution
    rows = [[*_panels(result), ScaleBar(0.0, LARGEST, label="difference")] for result in results]
    caption = "Held-out shapes, base colour without light, by the averaged weights, on the true cells. Error: against the O-Voxel."
    return compose_figure(rows, title=title, caption=caption)


MEASURES = Measures(compare, table, picture, numbers, "errors of values from 0 to 1")


def _panels(result: Colored) -> list[Panel]:
    images = [_on_grey(i) for i in (result.truth, result.voxels, result.found)]
    both = result.voxels.mask[0] & result.found.mask[0]
    error = (result.voxels.base_color[0] - result.found.base_color[0]).abs().mean(-1)
    shown = apply_colormap(torch.where(both, error, torch.nan), 0.0, LARGEST)
    score = result.score
    return [
        Panel(images[0], result.source.name),
        Panel(images[1], "O-Voxel", (f"PSNR {score.best:.1f} dB",)),
        Panel(images[2], "reconstruction", (f"PSNR {score.psnr:.1f} dB",)),
        Panel(shown, "error", (f"L1 {score.l1:.3f} on cells",)),
    ]


def _on_grey(images: MaterialImages) -> Tensor:
    return torch.where(images.mask[0, ..., None], images.base_color[0], 0.93)
