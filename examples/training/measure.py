"""How good reconstructions are, from predicted structure: numbers, a table, and a picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from voxgen.core import TriMesh, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.metrics import compare_surfaces
from voxgen.ops.grid_sets import intersection
from voxgen.render import Panel, ScaleBar, camera_for_bounds, compose_figure, render_mesh, render_scalar

from .data import Kind, Source
from .scores import numbers, table


@dataclass(frozen=True)
class Score:
    """One shape. Distances go both ways between the reconstruction and the source mesh, all surfaces counted.

    Attributes:
        tokens: of the latent.   cells: of the source's volume.
        iou: shared cells of the predicted and the true structure over those of either.
        chamfer: mean distance in voxels.   best: that of the volume itself, which no autoencoder can beat.
        f1, f2: F-score at one and at two voxels.
    """

    tokens: float
    cells: float
    iou: float
    chamfer: float
    best: float
    f1: float
    f2: float

    HEADER = f"{'held-out shape':<24} {'cells':>7} {'tokens':>6} {'IoU':>6} {'Chamfer':>8} {'(best)':>8} {'F at 1':>7} {'F at 2':>7}"

    def row(self, name: str) -> str:
        return (
            f"{name[:24]:<24} {self.cells:>7,.0f} {self.tokens:>6,.0f} {self.iou:>6.3f} {self.chamfer:>8.3f} {self.best:>8.3f} "
            f"{self.f1:>7.4f} {self.f2:>7.4f}"
        )


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A held-out shape and what the autoencoder makes of it."""

    source: Source
    truth: TriMesh
    mesh: TriMesh
    score: Score


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """What `reconstruct` of an example gives: the mesh of the true volume, mesh and cells of the decoded one, tokens of the latent."""

    best: TriMesh
    mesh: TriMesh
    grid: VoxelGrid
    tokens: int


Reconstruct = Callable[..., Any]
"""Network and true volume → encode, mean of the posterior, decode: a `RoundTrip`. What else it takes and gives is between an example and
its `Measures`."""


@dataclass(frozen=True)
class Measures:
    """How an example measures what its network makes of held-out shapes, and shows it.

    Attributes:
        compare: (network, reconstruct, source, its volume, kind, device, samples) → the result of one shape, with a `source`; `samples` are
            those of a surface.
        table: the results as text.   picture: results, resolution, title → (h, w, 3).
        numbers: means over the results, by name.   note: what the table's numbers are, in a few words.
    """

    compare: Callable[..., Any]
    table: Callable[[list[Any]], str]
    picture: Callable[[list[Any], int, str], Tensor]
    numbers: Callable[[list[Any]], dict[str, float]]
    note: str

    @torch.no_grad()
    def measure(
        self,
        vae: nn.Module,
        reconstruct: Reconstruct,
        shapes: Sequence[tuple[Source, Path]],
        kind: Kind[Any],
        device: torch.device,
        *,
        samples: int = 20_000,
        show: bool = False,
    ) -> list[Any]:
        """Compare what the network makes of each shape with the shape."""
        training = vae.training
        vae.eval()
        shown = tqdm(shapes, desc="measuring", unit="shape", leave=False, disable=not show)
        results = [self.compare(vae, reconstruct, source, kind.load(path), kind, device, samples) for source, path in shown]
        vae.train(training)
        return results


def compare(
    vae: nn.Module, reconstruct: Reconstruct, source: Source, truth: Any, kind: Kind[Any], device: torch.device, samples: int
) -> Reconstruction:
    """Reconstruct a shape and compare it with its source mesh."""
    target = source.mesh(kind.fill)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)  # an untrained network may keep nothing, which the score says
        made = reconstruct(vae, truth.to(device))
    side = truth.grid.resolution[0]
    shared = len(intersection(truth.grid, made.grid))
    iou = shared / (len(truth) + len(made.grid) - shared)
    best = compare_surfaces(made.best, target, samples=samples).chamfer_distance().l1 * side
    if made.mesh.num_faces:
        found = compare_surfaces(made.mesh, target, samples=samples)
        distances = (found.chamfer_distance().l1 * side, best, found.f_score(1 / side).f, found.f_score(2 / side).f)
    else:
        distances = (float(side), best, 0.0, 0.0)  # nothing at all counts as a whole side away
    return Reconstruction(source, target, made.mesh, Score(float(made.tokens), float(len(truth)), iou, *distances))


def picture(results: list[Reconstruction], resolution: int, title: str, size: int = 256) -> Tensor:
    """Two shapes a row: the source, the reconstruction, and the distance of the one from the other. (h, w, 3) uint8."""
    panels = [panel for r in results for panel in _panels(r, resolution, size)]
    rows = [[*panels[i : i + 6], ScaleBar(0.0, 2.0, label="voxels")] for i in range(0, len(panels), 6)]
    caption = (
        "Held-out shapes, reconstructed by the averaged weights. Error: distance of each vertex of the reconstruction to the "
        "source, in voxels."
    )
    return compose_figure(rows, title=title, caption=caption)


def means(results: list[Reconstruction]) -> dict[str, float]:
    """Of the scores that do not only tell the size."""
    found = numbers(results)
    return {name: found[name] for name in ("chamfer", "best", "iou", "f1", "f2")}


SURFACES = Measures(compare, table, picture, means, "distances in voxels")


def _panels(result: Reconstruction, resolution: int, size: int) -> list[Panel]:
    camera = camera_for_bounds((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), elevation=25, azimuth=35, margin=0.8, width=size, height=size)
    mesh, score = result.mesh, result.score
    source = render_mesh(result.truth, camera, supersample=2, normals="flat").color[0]
    found = render_mesh(mesh, camera, supersample=2, normals="flat").color[0]
    error = found
    if mesh.num_faces:
        away = compare_surfaces(mesh.vertices, result.truth, samples=1).a_to_b.distances * resolution
        error = render_scalar(mesh, camera, away.float(), low=0.0, high=2.0, supersample=2).color[0]
    notes = (f"Chamfer {score.chamfer:.2f} voxels", f"F at 1 voxel {score.f1:.3f}")
    return [Panel(source, result.source.name), Panel(found, "reconstruction", notes), Panel(error, "error")]
