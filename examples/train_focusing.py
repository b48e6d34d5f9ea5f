"""Train a small SparseFlex VAE as Focusing does: signed distances first, then pictures, on the voxels that a view needs.

Run: python examples/train_focusing.py [--data FOLDER_OF_MESHES] [--minutes 10] [--no-carve] [--no-zoom] [--out out/focusing]
     torchrun --nproc_per_node 2 examples/train_focusing.py ...                 (several devices)
     tensorboard --logdir out/focusing                                          (curves and pictures)
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
Points with normals of a surface → latent on its voxels at 64³ → SparseFlex at 256³. A step draws a view of a shape, carves away the latents
that the view does not see, zooms in on a random part, decodes only what that part needs, and compares depth and normals of the extracted
surface with those of the mesh. The first part of the run trains on distances, which make a surface that pictures can move.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from training import run
from training.data import Kind
from training.measure import Reconstruction, RoundTrip
from training.memory import KeptForBackward

from voxgen.core import Camera, Frame, Selection, TriMesh, VoxelGrid
from voxgen.core.atomic import atomic_write
from voxgen.core.errors import EmptyResultWarning
from voxgen.layers import SelfPruningUpsampler
from voxgen.losses import LossTerms, RenderTarget, SparseFlexVAELoss, geometric_tsdf
from voxgen.models import MeshRenderTerms, SparseFlexVAE, build, save_pretrained
from voxgen.ops.grid_sets import child_offsets, parents
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.surface_cells import surface_cells
from voxgen.render import (
    GeometryMaps,
    Panel,
    ScaleBar,
    adaptive_zoom,
    apply_colormap,
    carve_by_depth,
    compose_figure,
    random_cameras,
    render_geometry,
)
from voxgen.representations import OrientedPoints, SparseFlex

NETWORK = {
    "point_channels": 64,
    "hidden_dim": 32,
    "n_blocks": 3,
    "model_channels": 128,
    "num_blocks": 2,
    "num_heads": 4,
    "num_groups": 8,
    "pruning": False,
}
TINY = NETWORK | {
    "point_channels": 16,
    "hidden_dim": 16,
    "n_blocks": 2,
    "model_channels": 32,
    "num_blocks": 1,
    "num_heads": 1,
    "num_groups": 4,
}
FACTOR = 4
"""Cells of the output along one cell of the latent."""
WARM_UP = SparseFlexVAELoss(occupancy=0.05)
PICTURES = SparseFlexVAELoss(occupancy=0.05, render=MeshRenderTerms.trellis())
"""After the warm-up. Which children are empty weighs little, so that it does not hold up distances in the first minutes. A feature network
for the term on normals (LPIPS) takes longer than the rest of a step on a CPU."""
LOGVAR = -4.0
"""Of the posterior at the start, so that latents say something from the first step on."""
POINTS = 40_000
"""On each shape, at 256³."""
TRUNCATION = 3.0
"""Of the distances of the warm-up, in cells of the output."""
FILL = 0.95
REACH = 1 / FACTOR
"""How far the mesh at a point depends on latents, in their cells: one cell of the output."""


class Training(nn.Module):
    """The network and its loss in one forward, as data-parallel wrappers want it."""

    carve, zoom, only_tsdf, size, count, share, later = True, True, False, 256, (600, 1000), 0.6, 0.3

    def __init__(self, network: dict[str, Any]) -> None:
        super().__init__()
        self.vae = cast(SparseFlexVAE, build("voxgen/sparse-flex-vae-small", **network))
        head = self.vae.encoder.out_layer.linear
        nn.init.xavier_uniform_(head.weight.chunk(2)[0])
        nn.init.constant_(head.bias.chunk(2)[1], LOGVAR)
        self.start_alive()
        self.progress = 0.0
        self.facts: dict[str, float] = {}

    def start_alive(self) -> None:
        """Draw what starts at zero as published: with it, hundreds of steps pass before distances are better than none."""
        decoder = self.vae.decoder
        for step in decoder.upsample:
            conv = cast(SelfPruningUpsampler, step).upsample.conv2
            nn.init.normal_(conv.weight, std=conv.weight.shape[:2].numel() ** -0.5)
        nn.init.normal_(decoder.out_layer.weight, std=0.05)

    def forward(self, truth: Shapes, generator: torch.Generator) -> LossTerms:
        """Decode what one view of each shape needs, and compare."""
        chance = torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
        camera = random_cameras(len(truth.meshes), width=self.size, height=self.size, generator=chance).to(truth.latent.device)
        with KeptForBackward() as kept:
            latent = self.vae.encode(truth.cloud, truth.latent, sample=True, generator=generator)
            needed, camera, coverage = self.select(truth, camera, chance)
            decoded = self.vae.decode(latent, select=needed, prune=False)
            field = decoded.prediction()
            inputs: dict[str, Any] = {
                "mean": latent.posterior.mean.feats,
                "logvar": latent.posterior.logvar,
                "corners": field.flex.corners,
                "voxel_size": field.flex.frame.voxel_size[0],
                "at_cells": field.at_cells,
                "at_corners": field.at_corners,
                "feats": decoded.features.feats,
                "occupancy_logits": [level.feats for level in decoded.logits],
                "occupancies": [children_that_exist(level.grid, truth.fine) for level in decoded.logits],
            }
            warm = self.only_tsdf or self.progress < self.share
            if warm or self.later > 0:
                inputs["tsdf"] = distances(field.flex, truth.meshes)
            if warm:
                terms = WARM_UP(step=0, **inputs)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", EmptyResultWarning)  # a part of a view may show no surface yet
                    surface = field.flex.surface(training=True)
                views = RenderTarget(camera, torch.arange(len(camera)), meshes=truth.meshes, coverage=coverage)
                loss = dataclasses.replace(PICTURES, tsdf=self.later)
                terms = loss(step=0, surface=surface, meshes=surface.to_meshes(), views=views, **inputs)
        self.facts = {"latents": float(len(truth.latent)), "decoded": float(needed.count), "kept_megabytes": kept.bytes / 2**20}
        return terms

    def select(self, truth: Shapes, camera: Camera, chance: torch.Generator) -> tuple[Selection, Camera, Tensor | None]:
        """The latents that views need, these views, and their pixels that count."""
        needed, coverage = Selection.all(truth.latent), None
        shown = torch.arange(len(camera))
        if self.carve:
            with torch.no_grad():
                seen = render_geometry(truth.meshes, camera, sample=shown, antialias=False, depth_background=math.inf)
            carving = carve_by_depth(truth.latent, seen.depth, camera, sample=shown, reach=REACH)
            needed, coverage = carving, carving.coverage
        if self.zoom:
            zoom = adaptive_zoom(truth.latent, camera, self.count, among=needed, sample=shown, reach=REACH, generator=chance)
            needed, camera, coverage = zoom, zoom.camera, zoom.coverage
        return needed, camera, coverage


def distances(flex: SparseFlex, meshes: tuple[TriMesh, ...]) -> Tensor:
    """What the values at the corners should be: distances with the side of the nearest face."""
    bounds, length = flex.corners.offsets.tolist(), TRUNCATION * flex.frame.voxel_size[0]
    parts = zip(meshes, bounds[:-1], bounds[1:], strict=True)
    return torch.cat([geometric_tsdf(flex.positions[a:b].cpu(), mesh.to("cpu"), length) for mesh, a, b in parts]).to(flex.sdf)


def children_that_exist(grid: VoxelGrid, finest: VoxelGrid) -> Tensor:
    """(n, 8) bool: which children of each cell hold cells of the finest grid, slot = x + 2y + 4z."""
    while finest.resolution[0] > 2 * grid.resolution[0]:
        finest = parents(finest)
    coords = grid.coords[:, None] * torch.tensor([1, 2, 2, 2], dtype=torch.int32, device=grid.device)
    coords = coords + torch.nn.functional.pad(child_offsets((2, 2, 2), "x_fastest", grid.device), (1, 0))
    return (lookup_cells(finest, coords.reshape(-1, 4)) >= 0).reshape(-1, 8)


@dataclass(frozen=True, eq=False)
class Shapes:
    """Meshes in the unit cube, points on them, the voxels of their latents, and the cells of the output that they touch."""

    meshes: tuple[TriMesh, ...]
    cloud: OrientedPoints
    latent: VoxelGrid
    fine: VoxelGrid

    @property
    def grid(self) -> VoxelGrid:
        return self.fine

    def __len__(self) -> int:
        return len(self.fine)

    def to(self, target: torch.device) -> Shapes:
        return Shapes(tuple(mesh.to(target) for mesh in self.meshes), self.cloud.to(target), self.latent.to(target), self.fine.to(target))


def convert(mesh: TriMesh, resolution: int) -> Shapes:
    plain = TriMesh(mesh.vertices, mesh.faces, up=mesh.up)
    count = max(2000, POINTS * resolution**2 // 256**2)
    cloud = OrientedPoints.from_mesh(plain, count, frame=Frame.unit(1, mesh.up), method="systematic")
    frame = Frame.unit(resolution, mesh.up)
    cells = surface_cells(plain.vertices, plain.faces, origin=frame.origin, voxel_size=frame.voxel_size, resolution=resolution)
    return Shapes((plain,), cloud, cloud.voxels(resolution // FACTOR, plain, skin=0.0), _single(cells, resolution))


def _single(cells: Tensor, resolution: int) -> VoxelGrid:
    return VoxelGrid.from_sorted(torch.nn.functional.pad(cells, (1, 0)), resolution=resolution, batch_size=1)


def store(shape: Shapes, path: Path) -> None:
    (mesh,) = shape.meshes
    arrays = {"vertices": mesh.vertices, "faces": mesh.faces, "points": shape.cloud.points, "normals": shape.cloud.normals}
    arrays |= {"latent": shape.latent.cells.short(), "fine": shape.fine.cells.short(), "resolution": torch.tensor(shape.fine.resolution[0])}
    with atomic_write(path) as file:
        np.savez(file, **{name: array.numpy() for name, array in arrays.items()})  # pyright: ignore[reportArgumentType]


def load(path: Path) -> Shapes:
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    resolution = int(arrays["resolution"])
    mesh = TriMesh(arrays["vertices"], arrays["faces"])
    cloud = OrientedPoints(arrays["points"], arrays["normals"], frame=Frame.unit(1))
    latent, fine = _single(arrays["latent"].int(), resolution // FACTOR), _single(arrays["fine"].int(), resolution)
    return Shapes((mesh,), cloud, latent, fine)


def exchange_axes(shape: Shapes, axes: tuple[int, int, int]) -> Shapes:
    """Normals stay outward in a mirror; faces are wound the other way there."""
    (mesh,), order = shape.meshes, list(axes)
    mirrored = axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0))
    turned = TriMesh(mesh.vertices[:, order], mesh.faces.flip(1) if mirrored else mesh.faces)
    cloud = shape.cloud.replace(points=shape.cloud.points[:, order], normals=shape.cloud.normals[:, order])
    latent, fine = (
        VoxelGrid.build(torch.cat((g.coords[:, :1], g.cells[:, order]), 1), resolution=g.resolution, batch_size=1)[0]
        for g in (shape.latent, shape.fine)
    )
    return Shapes((turned,), cloud, latent, fine)


def batched(items: list[Shapes]) -> Shapes:
    meshes = tuple(mesh for item in items for mesh in item.meshes)
    latent, fine = (VoxelGrid.batched([getattr(item, name) for item in items]) for name in ("latent", "fine"))
    return Shapes(meshes, OrientedPoints.batched([item.cloud for item in items]), latent, fine)


def reconstruct(vae: SparseFlexVAE, truth: Shapes) -> RoundTrip:
    """Encode → mean of the posterior → decode, by default all children: minutes are too few for the heads that say which are empty.

    Its cells are those that the decoded surface passes.
    """
    latent = vae.encode(truth.cloud, truth.latent)
    decoded = vae.decode(latent, prune=vae.decoder.config.prune).flex.to("cpu")
    best = SparseFlex.from_mesh(truth.meshes[0].to("cpu"), truth.fine.resolution, frame=decoded.frame, fit=False)
    inside = (decoded.sdf < 0)[decoded.corners.index.long()]
    crossed = decoded.grid.select(inside.any(1) & ~inside.all(1))
    return RoundTrip(best.to_mesh(), decoded.to_mesh(), crossed, len(latent.z))


def views_of(vae: nn.Module, results: list[Reconstruction], resolution: int) -> dict[str, Tensor]:
    """Depth and normals of held-out shapes: target, prediction, error."""
    del vae
    rows: list[list[Panel | ScaleBar]] = []
    camera = random_cameras(1, width=256, height=256, generator=torch.Generator().manual_seed(1))
    for result in results:
        maps = [render_geometry(mesh, camera, face_camera=True, antialias=False) for mesh in (result.truth, result.mesh)]
        rows.append([*_depth_panels(result.source.name, maps, resolution), *_normal_panels(maps)])
    caption = "Averaged weights. Errors: depth in voxels, 0 to 2; angle of the normals, 0 to 45 degrees."
    return {"views": compose_figure(rows, title=f"Depth and normals at {resolution}³: target, prediction, error", caption=caption)}


def _depth_panels(name: str, maps: list[GeometryMaps], resolution: int) -> list[Panel]:
    both = (maps[0].mask[0] > 0) & (maps[1].mask[0] > 0)
    seen = [torch.where(m.mask[0] > 0, m.depth[0], torch.nan) for m in maps]
    gap = torch.where(both, (seen[0] - seen[1]).abs() * resolution, torch.nan)
    low, high = float(seen[0].nan_to_num(9).min()), float(seen[0].nan_to_num(0).max())
    shown = [apply_colormap(-depth, -high, -low, "sea") for depth in seen]
    note = f"mean {float(gap.nanmean()):.2f} voxels"
    return [Panel(shown[0], f"{name}: depth"), Panel(shown[1], "prediction"), Panel(apply_colormap(gap, 0.0, 2.0), "error", (note,))]


def _normal_panels(maps: list[GeometryMaps]) -> list[Panel]:
    both = (maps[0].mask[0] > 0) & (maps[1].mask[0] > 0)
    unit = [torch.nn.functional.normalize(m.normal[0], dim=-1) for m in maps]
    angle = torch.where(both, (unit[0] * unit[1]).sum(-1).clamp(-1, 1).acos().rad2deg(), torch.nan)
    shown = [torch.where(m.mask[0, ..., None] > 0, (n + 1) / 2, 0.8) for m, n in zip(maps, unit, strict=True)]
    note = f"mean {float(angle.nanmean()):.1f} degrees"
    return [Panel(shown[0], "normals"), Panel(shown[1], "prediction"), Panel(apply_colormap(angle, 0.0, 45.0), "error", (note,))]


def save(vae: SparseFlexVAE, folder: Path) -> str:
    """Configuration and weights: `voxgen.models.load_pretrained` builds the network from the file."""
    save_pretrained(vae, folder / "focusing.safetensors")
    return "focusing.safetensors"


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--carve", action=argparse.BooleanOptionalAction, default=True, help="decode only latents that the view sees")
    add("--zoom", action=argparse.BooleanOptionalAction, default=True, help="look at a random part of the view")
    add("--count", type=int, nargs=2, default=(600, 1000), metavar=("LOW", "HIGH"), help="latents of a zoomed view")
    add("--view-size", type=int, default=256, help="pixels along each side of a training view")
    add("--warm-up", type=float, default=0.6, help="share of the run that trains on distances")
    add("--tsdf-later", type=float, default=0.3, help="weight of distances after the warm-up; 0 as published, for longer runs")
    add("--only-tsdf", action="store_true", help="train on distances to the end: what pictures are compared with")


def configure(model: nn.Module, arguments: argparse.Namespace) -> None:
    training = cast(Training, model)
    training.carve, training.zoom, training.only_tsdf = arguments.carve, arguments.zoom, arguments.only_tsdf
    training.share, training.later = arguments.warm_up, arguments.tsdf_later
    training.size = 48 if arguments.smallest else arguments.view_size
    training.count = (30, 60) if arguments.smallest else tuple(arguments.count)


TASK = run.Task(
    name="focusing",
    title="SparseFlex VAE",
    description=(__doc__ or "").splitlines()[0],
    kind=Kind("shapes", convert, store, load, exchange_axes, batched, fill=FILL),
    training=Training,
    network=NETWORK,
    tiny=TINY,
    reconstruct=reconstruct,
    save=save,
    budget=50_000,
    learning_rate=2e-3,
    smallest_resolution=32,
    smallest_budget=1000,
    options=options,
    fixed=("carve", "zoom", "count", "view_size", "warm_up", "tsdf_later", "only_tsdf"),
    defaults={"resolution": 256, "shapes": 150, "held_out": 8},
    configure=configure,
    pictures=views_of,
    shown=("latents", "decoded", "kept_megabytes"),
    structure="all children of the latents decoded",
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
