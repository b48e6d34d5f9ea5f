"""How good pictures of Gaussians are from sides that the encoder did not see: numbers, a table, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from voxgen.core import Camera, SparseTensor
from voxgen.losses import composite
from voxgen.metrics import psnr
from voxgen.models import TextureVAE
from voxgen.ops.grid_sets import intersection
from voxgen.render import Panel, ScaleBar, ViewTiling, apply_colormap, compose_figure, cull_voxels, render_gaussians
from voxgen.representations import GaussianSplats

from .data import Kind, Source
from .views import Views, cameras_around, photograph

HELD_OUT_VIEWS, HELD_OUT_SEED = 8, 1 << 20
FRONT = (0.5, 0.4, -0.8)
"""About where pictures are taken from, of the held-out views."""
WHITE = (1.0, 1.0, 1.0)
PRESET = "trellis"
"""How Gaussians are drawn: with a third of gsplat's blur, of which outlines of a pixel get half a pixel too wide."""
Mask = Literal["gt", "predicted", "all"]
"""What decides which cells are made: the mesh, the network, or nothing."""
Decode = Callable[[TextureVAE, Views, Mask], tuple[SparseTensor, GaussianSplats]]
"""Network, shape, mask → features of the finest cells, and the Gaussians on them."""


@torch.no_grad()
def largest_scale(vae: TextureVAE, h: SparseTensor) -> float:
    """Of all Gaussians: what culling has to reckon with."""
    return float(vae.decoder.gaussians(h).scales.max()) if len(h) else 0.0


@dataclass(frozen=True)
class Score:
    """One shape, in views that its features do not come from; means of pictures on black and on white.

    Attributes:
        cells: of the finest level that the mesh touches.   gaussians: on them.
        psnr: in decibels, with the cells of the mesh.   masked: with those of the network's mask, or with all.
        recall: share of the mesh's cells among these.   kept: how many they are, times the mesh's.
        seams: largest difference between a picture and the same in tiles.
    """

    cells: float
    gaussians: float
    psnr: float
    masked: float
    recall: float
    kept: float
    seams: float

    HEADER = f"{'held-out shape':<24} {'cells':>7} {'Gaussians':>9} {'PSNR':>6} {'masked':>6} {'recall':>7} {'kept':>6} {'seams':>8}"

    def row(self, name: str) -> str:
        return (
            f"{name[:24]:<24} {self.cells:>7,.0f} {self.gaussians:>9,.0f} {self.psnr:>6.2f} {self.masked:>6.2f} {self.recall:>7.4f} "
            f"{self.kept:>6.3f} {self.seams:>8.1e}"
        )


@dataclass(frozen=True, eq=False)
class Result:
    """A held-out shape, and one view of it on white: true, drawn, drawn in tiles. Pictures are (h, w, 3)."""

    source: Source
    truth: Tensor
    drawn: Tensor
    tiled: Tensor
    score: Score


def compare(
    vae: TextureVAE,
    decode: Decode,
    source: Source,
    truth: Views,
    kind: Kind[Views],
    device: torch.device,
    samples: int,
    *,
    mask: Mask = "gt",
    tiles: int = 2,
) -> Result:
    """Draw a shape from sides that nothing was gathered from, and compare. All pixels count: nothing is sampled."""
    del samples
    truth = truth.to(device)
    camera = cameras_around(HELD_OUT_VIEWS, truth.images.shape[3], HELD_OUT_SEED).to(device)
    images = photograph(kind.mesh_of(source), camera.to("cpu"))[0].to(device)
    true, other = decode(vae, truth, "gt"), decode(vae, truth, "predicted" if mask == "gt" else mask)
    features, splats = true if mask == "gt" else other
    best = int((camera.positions @ camera.positions.new_tensor(FRONT)).argmax())
    whole = render_gaussians(splats, camera[best], background=WHITE, preset=PRESET).color[0]
    tiled = draw_in_tiles(vae, features, camera[best], tiles)
    found = other[0].grid
    score = Score(
        float(len(truth)),
        float(len(true[1])),
        _psnr(true[1], camera, images),
        _psnr(other[1], camera, images),
        len(intersection(truth.grid, found)) / len(truth),
        len(found) / len(truth),
        float((tiled - whole).abs().max()),
    )
    on_white = composite(images[best : best + 1], torch.ones(1, 3, device=device))[0].permute(1, 2, 0)
    return Result(source, on_white.cpu(), whole.cpu(), tiled.cpu(), score)


def _psnr(splats: GaussianSplats, camera: Camera, images: Tensor) -> float:
    """Mean over views, on black and on white."""
    drawn = render_gaussians(splats, camera, preset=PRESET)
    values = []
    for ground in (0.0, 1.0):
        found = (drawn.color + (1 - drawn.alpha)[..., None] * ground).clamp(0, 1).permute(0, 3, 1, 2)
        values.append(psnr(found, composite(images, torch.full((len(images), 3), ground, device=images.device))))
    return float(torch.cat(values).mean())


def draw_in_tiles(vae: TextureVAE, h: SparseTensor, camera: Camera, tiles: int) -> Tensor:
    """One view on white, (h, w, 3): of each tile only the cells that it can show, none blended."""
    tiling, largest = ViewTiling.of(camera, tiles, overlap=0), largest_scale(vae, h)
    parts = []
    for tile in tiling.tiles:
        seen = cull_voxels(h.grid, camera, tile, largest_scale=largest, preset=PRESET)
        parts.append(render_gaussians(vae.decoder.gaussians(seen.apply(h)), camera, crop=tile, background=WHITE, preset=PRESET).color)
    return tiling.stitch(parts)[0]


def picture(results: Sequence[Result], resolution: int, title: str) -> Tensor:
    """A row a shape: the mesh, the Gaussians, the Gaussians in tiles, the error. (h, w, 3) uint8."""
    del resolution
    rows = []
    for r in results:
        error = apply_colormap((r.drawn - r.truth).abs().mean(2), 0.0, 0.3)
        panels = [
            Panel(r.truth, r.source.name),
            Panel(r.drawn.clamp(0, 1), "Gaussians", (f"{r.score.psnr:.1f} dB in {HELD_OUT_VIEWS} views",)),
        ]
        panels += [Panel(r.tiled.clamp(0, 1), "in tiles", (f"differs by {r.score.seams:.0e}",)), Panel(error, "error")]
        rows.append([*panels, ScaleBar(0.0, 0.3, label="mean of |difference|")])
    caption = "Held-out shapes from a side that the encoder did not see, base colour without light; averaged weights."
    return compose_figure(rows, title=title, caption=caption)
