"""Train a small texture VAE as Sparse-Up does: colours on surface cells → latent at 32³ → Gaussians on the cells that are kept at 128³.

Run: python examples/train_texture_vae.py [--data FOLDER_OF_MESHES] [--measure-on MESH ...] [--tiles 2] [--mask predicted] [--minutes 10]
     tensorboard --logdir out/texture_vae                                       (curves and pictures)
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
Textured meshes are drawn from many sides by our own rasteriser, and what the views show is gathered on the cells: colours in the place of
DINOv2's features. A step encodes a shape, decodes the Gaussians of its cells, and compares pictures of them with those of the mesh. Half of
the children of each level are dropped before anything is computed for them, by the mesh or by a network that learns to. With --tiles k a
picture is drawn in k × k parts, each with the Gaussians that it can show: one part at a time is in memory, and the gradient is the same.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm
from training import run
from training.data import Kind, Source
from training.measure import Measures
from training.memory import KeptForBackward
from training.textures import textured
from training.views import (
    FACTOR,
    FEATURES,
    Views,
    batched,
    cameras_around,
    convert,
    exchange_axes,
    load,
    photograph,
    store,
)

from voxgen.attention import mask_targets
from voxgen.core import Camera, Selection, SparseTensor
from voxgen.losses import LossTerms, TextureVAELoss, composite, mask_bce
from voxgen.losses.gaussians import gaussian_opacity, gaussian_volume
from voxgen.losses.latent import kl_divergence
from voxgen.losses.ssim import similarity_map
from voxgen.metrics import psnr
from voxgen.models import TextureVAE, save_pretrained
from voxgen.models.texture_vae import TextureVAEConfig
from voxgen.ops.candidates import level_structures
from voxgen.ops.grid_sets import intersection
from voxgen.render import Panel, ScaleBar, ViewTiling, apply_colormap, compose_figure, cull_voxels, render_gaussians
from voxgen.representations import GaussianActivation

LEVELS = 2
NETWORK = {
    "feature_channels": FEATURES,
    "latent_channels": 16,
    "model_channels": 96,
    "num_blocks": 2,
    "num_heads": 4,
    "mask_blocks": 1,
    "widths": (48, 32),
    "num_gaussians": 4,
}
TINY = NETWORK | {"latent_channels": 8, "model_channels": 32, "num_blocks": 1, "num_heads": 2, "widths": (16, 12), "num_gaussians": 2}
LOGVAR = -6.0
"""Of the posterior at the start, with means that differ. As published, all start at 0, and for hundreds of steps latents are noise."""
OPACITY, SCALE = 3.0, 0.5
"""Raw channels of the head at the start: opacities of 0.7 and Gaussians that close the surface, where TRELLIS starts with a mist."""
HELD_OUT_VIEWS, HELD_OUT_SEED = 8, 1 << 20
OVERLAP = 16
BLACK_AND_WHITE = (0.0, 1.0)


class Training(nn.Module):
    """The network and its loss in one forward, as data-parallel wrappers want it."""

    tiles, mask, per_step = 1, "gt", 2

    def __init__(self, network: dict[str, Any]) -> None:
        super().__init__()
        self.vae = TextureVAE(TextureVAEConfig(**network))
        self.loss = TextureVAELoss(lpips=0.0, volume=GaussianActivation.volume_weight(self.vae.config.finest))
        encoder, head = self.vae.encoder.out_layer.linear, self.vae.decoder.out_layer.linear
        nn.init.xavier_uniform_(encoder.weight.chunk(2)[0])
        nn.init.constant_(encoder.bias.chunk(2)[1], LOGVAR)
        count = self.vae.decoder.activation.count
        _, _, scale, _, opacity = head.bias.split([3 * count, 3 * count, 3 * count, 4 * count, count])
        nn.init.constant_(scale, SCALE)
        nn.init.constant_(opacity, OPACITY)
        self.progress = 0.0
        self.facts: dict[str, float] = {}

    def forward(self, truth: Views, generator: torch.Generator) -> LossTerms:
        """Encode shapes, decode their Gaussians, and compare pictures of them."""
        chance = torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
        camera, target, sample, background = self.draw_views(truth, chance)
        structures = level_structures(truth.grid, LEVELS)
        with KeptForBackward() as trunk:
            posterior = self.vae.encode(truth.features(), truth.geometry.feats)
            z = posterior.sample(generator)
            if self.mask == "all":
                decoded, guess = self.vae.decode(z, source="all", splats=False), None
            else:
                union = 0.3 * self.progress if self.mask == "predicted" else 0.0
                decoded = self.vae.decode(z, structures=structures, predict=True, splats=False, union=union, generator=chance)
                guess = decoded.mask
        whole = {"mean": posterior.mean.feats, "logvar": posterior.logvar}
        if guess is not None:
            whole |= {"mask_logits": guess.logits, "mask_targets": mask_targets(guess, structures)}
        h = decoded.features
        if self.tiles == 1:
            with KeptForBackward() as drawing:
                splats = self.vae.decoder.gaussians(h)
                image = render_gaussians(splats, camera, background=background, sample=sample).color.permute(0, 3, 1, 2)
                terms = self.loss(image=image, target=target, scales=splats.scales, opacities=splats.opacities, **whole)
            kept = drawing.bytes
        else:
            terms, kept = self.in_tiles(h, camera, target, sample, background, whole)
        megabytes = {"trunk_megabytes": trunk.bytes / 2**20, "kept_megabytes": (trunk.bytes + kept) / 2**20}
        self.facts = {"gaussians": float(len(h) * self.vae.decoder.activation.count), **megabytes}
        return terms

    def draw_views(self, truth: Views, chance: torch.Generator) -> tuple[Camera, Tensor, Tensor, Tensor]:
        """Cameras, pictures (v, 3, h, w) on black or white, which sample each shows, and the grounds (v, 3)."""
        device, count = truth.images.device, truth.images.shape[1]
        picked = [torch.randperm(count, generator=chance)[: self.per_step] for _ in truth.cameras]
        camera = Camera.batched([own[rows] for own, rows in zip(truth.cameras, picked, strict=True)])
        images = torch.cat([own[rows] for own, rows in zip(truth.images, picked, strict=True)]).float() / 255
        sample = torch.arange(len(picked)).repeat_interleave(len(picked[0]))
        background = torch.randint(2, (len(images), 1), generator=chance).float().expand(-1, 3).to(device)
        return camera, composite(images, background), sample, background

    def in_tiles(
        self, h: SparseTensor, camera: Camera, target: Tensor, sample: Tensor, background: Tensor, whole: dict[str, Any]
    ) -> tuple[LossTerms, int]:
        """The loss of whole pictures and its gradient, a tile at a time; and the most that one keeps.

        Features are detached; each tile adds its gradient to theirs, which a product then carries through the trunk.
        """
        weights, largest = self.loss, largest_scale(self.vae, h)
        leaf = h.with_feats(h.feats.detach().requires_grad_())
        tiling = ViewTiling.of(camera, self.tiles, overlap=OVERLAP)
        mine = tiling.stitch([torch.full((1, tile.height, tile.width), float(i)) for i, tile in enumerate(tiling.tiles)])
        share = torch.arange(len(h), device=h.grid.device) % (len(camera) * len(tiling)) if len(h) else None
        sums = dict.fromkeys(("l1", "ssim", "volume", "opacity"), 0.0)
        most = 0
        for view in range(len(camera)):
            for index, tile in enumerate(tiling.tiles):
                with KeptForBackward() as drawing:
                    seen = cull_voxels(h.grid, camera[view], tile, largest_scale=largest, sample=int(sample[view]))
                    splats = self.vae.decoder.gaussians(seen.apply(leaf))
                    image = render_gaussians(
                        splats, camera[view], crop=tile, background=background[view], sample=sample[view : view + 1]
                    ).color.permute(0, 3, 1, 2)
                    truth = tile.cut(target[view : view + 1], 2)
                    own = (tile.cut(mine, 1) == index).to(image) / target[:, 0].numel()  # its share of all pixels
                    parts = {
                        "l1": ((image - truth).abs().mean(1) * own).sum(),
                        "ssim": ((1 - similarity_map(image, truth, 1.0, "zero")).mean(1) * own).sum(),
                    }
                    if share is not None:
                        some = Selection(h.grid, share == view * len(tiling) + index)
                        those = self.vae.decoder.gaussians(some.apply(leaf))
                        parts["volume"] = gaussian_volume(those.scales) * (some.count / len(h))
                        parts["opacity"] = gaussian_opacity(those.opacities) * (some.count / len(h))
                    loss = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
                loss.backward()
                most = max(most, drawing.bytes)
                for name, part in parts.items():
                    sums[name] += float(part.detach())
        terms = {name: h.feats.new_tensor(value) for name, value in sums.items()}
        terms["kl"] = kl_divergence(whole["mean"], whole["logvar"])
        if "mask_logits" in whole:
            terms["mask"] = mask_bce(whole["mask_logits"], whole["mask_targets"])
        total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        carried = (h.feats * (leaf.feats.grad if leaf.feats.grad is not None else 0)).sum()
        return LossTerms(total + carried - carried.detach(), terms), most


@torch.no_grad()
def largest_scale(vae: TextureVAE, h: SparseTensor) -> float:
    """Of all Gaussians: what culling has to reckon with."""
    return float(vae.decoder.gaussians(h).scales.max()) if len(h) else 0.0


@dataclass(frozen=True)
class Score:
    """One shape, in views that its features do not come from; means of pictures on black and on white.

    Attributes:
        cells: of the finest level that the mesh touches.   gaussians: on them.
        psnr: in decibels, with the cells of the mesh.   other: with those of the network's mask, or with all.
        recall: share of the mesh's cells among these.   kept: how many they are, times the mesh's.
        seams: largest difference between a picture and the same in tiles.
    """

    cells: float
    gaussians: float
    psnr: float
    other: float
    recall: float
    kept: float
    seams: float

    def row(self, name: str) -> str:
        return (
            f"{name[:24]:<24} {self.cells:>7,.0f} {self.gaussians:>9,.0f} {self.psnr:>6.2f} {self.other:>6.2f} {self.recall:>7.4f} "
            f"{self.kept:>6.3f} {self.seams:>8.1e}"
        )

    @staticmethod
    def mean(scores: list[Score]) -> Score:
        return Score(*(sum(getattr(s, f.name) for s in scores) / len(scores) for f in fields(Score)))


@dataclass(frozen=True, eq=False)
class Result:
    """A held-out shape, and one view of it on white: true, drawn, drawn in tiles. Pictures are (h, w, 3)."""

    source: Source
    truth: Tensor
    drawn: Tensor
    tiled: Tensor
    score: Score


@torch.no_grad()
def measure(
    vae: TextureVAE,
    reconstruct: Any,
    shapes: run.Shapes,
    kind: Kind[Views],
    device: torch.device,
    *,
    mask: str = "gt",
    tiles: int = 2,
    samples: int = 0,
    show: bool = False,
) -> list[Result]:
    """Draw each shape from sides that nothing was gathered from, and compare."""
    del samples
    vae.eval()
    results = []
    for source, path in tqdm(shapes, desc="measuring", unit="shape", leave=False, disable=not show):
        truth = kind.load(path).to(device)
        camera = cameras_around(HELD_OUT_VIEWS, truth.images.shape[3], HELD_OUT_SEED).to(device)
        images = photograph(kind.mesh_of(source), camera.to("cpu"))[0].to(device)
        true, other = (reconstruct(vae, truth, source="gt"), reconstruct(vae, truth, source="all" if mask == "all" else "predicted"))
        shown = other if mask == "predicted" else true
        tiled = draw_in_tiles(vae, shown.features, camera[0], tiles)
        whole = render_gaussians(shown.splats, camera[0], background=(1.0, 1.0, 1.0)).color[0]
        shared = len(intersection(truth.grid, other.features.grid))
        score = Score(
            float(len(truth)),
            float(len(true.splats)),
            _psnr(true.splats, camera, images),
            _psnr(other.splats, camera, images),
            shared / len(truth),
            len(other.features) / len(truth),
            float((tiled - whole).abs().max()),
        )
        on_white = composite(images[:1], torch.ones(1, 3, device=device))[0].permute(1, 2, 0)
        results.append(Result(source, on_white.cpu(), whole.cpu(), tiled.cpu(), score))
    vae.train()
    return results


def _psnr(splats: Any, camera: Camera, images: Tensor) -> float:
    """Mean over views, on black and on white."""
    drawn = render_gaussians(splats, camera)
    values = []
    for ground in BLACK_AND_WHITE:
        found = (drawn.color + (1 - drawn.alpha)[..., None] * ground).clamp(0, 1).permute(0, 3, 1, 2)
        values.append(psnr(found, composite(images, torch.full((len(images), 3), ground, device=images.device))))
    return float(torch.cat(values).mean())


def draw_in_tiles(vae: TextureVAE, h: SparseTensor, camera: Camera, tiles: int) -> Tensor:
    """One view on white, (h, w, 3): of each tile only the cells that it can show, none blended."""
    tiling, largest = ViewTiling.of(camera, tiles, overlap=0), largest_scale(vae, h)
    parts = []
    for tile in tiling.tiles:
        seen = cull_voxels(h.grid, camera, tile, largest_scale=largest)
        parts.append(render_gaussians(vae.decoder.gaussians(seen.apply(h)), camera, crop=tile, background=(1.0, 1.0, 1.0)).color)
    return tiling.stitch(parts)[0]


def reconstruct(vae: TextureVAE, truth: Views, *, source: str) -> Any:
    """Encode → mean of the posterior → decode on the cells of the mesh, on those that the mask keeps, or on all."""
    z = vae.encode(truth.features(), truth.geometry.feats).mean
    return vae.decode(z, structures=level_structures(truth.grid, LEVELS)) if source == "gt" else vae.decode(z, source=cast(Any, source))


def table(results: Sequence[Result]) -> str:
    """One line a shape, and the mean."""
    header = f"{'held-out shape':<24} {'cells':>7} {'Gaussians':>9} {'PSNR':>6} {'mask:':>6} {'recall':>7} {'kept':>6} {'seams':>8}"
    lines = [header, *(r.score.row(r.source.name) for r in results)]
    return "\n".join([*lines, Score.mean([r.score for r in results]).row("mean")])


def numbers(results: Sequence[Result]) -> dict[str, float]:
    return {f.name: getattr(Score.mean([r.score for r in results]), f.name) for f in fields(Score)}


def picture(results: Sequence[Result], resolution: int, title: str) -> Tensor:
    """A row a shape: the mesh, the Gaussians, the Gaussians in tiles, the error. (h, w, 3) uint8."""
    del resolution
    rows = []
    for r in results:
        error = apply_colormap((r.drawn - r.truth).abs().mean(2), 0.0, 0.3)
        panels = [Panel(r.truth, r.source.name), Panel(r.drawn.clamp(0, 1), "Gaussians", (f"{r.score.psnr:.1f} dB",))]
        panels += [Panel(r.tiled.clamp(0, 1), "in tiles", (f"differs by {r.score.seams:.0e}",)), Panel(error, "error")]
        rows.append([*panels, ScaleBar(0.0, 0.3, label="mean of |difference|")])
    caption = "Held-out shapes from a side that the encoder did not see, base colour without light; averaged weights."
    return compose_figure(rows, title=title, caption=caption)


def save(vae: TextureVAE, folder: Path) -> str:
    """Configuration and weights: `voxgen.models.load_pretrained` builds the network from the file."""
    save_pretrained(vae, folder / "texture_vae.safetensors")
    return "texture_vae.safetensors"


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tiles", type=int, default=1, help="draw training views in so many tiles along each axis, one at a time")
    shown = "which cells pictures show: the mesh's; those of the network's mask; all children, also in training, for what the mask saves"
    add("--mask", choices=("gt", "predicted", "all"), default="gt", help=shown)
    add("--views", type=int, default=24, help="of each shape, for features and for training")
    add("--view-size", type=int, default=192, help="pixels along each side of a view")
    add("--views-a-step", type=int, default=2, help="of each shape of a batch")


def configure(model: nn.Module, arguments: argparse.Namespace) -> None:
    training = cast(Training, model)
    training.tiles, training.mask, training.per_step = arguments.tiles, arguments.mask, arguments.views_a_step
    if training.tiles > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SystemExit("--tiles adds gradients of the head inside of a step, which several processes do not share; use one.")


KIND = Kind("views", functools.partial(convert, size=64, count=4), store, load, exchange_axes, batched, dress=textured)
TASK = run.Task(
    name="texture_vae",
    title="Texture VAE",
    description=(__doc__ or "").splitlines()[0],
    kind=KIND,
    training=Training,
    network=NETWORK,
    tiny=TINY,
    reconstruct=reconstruct,
    save=save,
    budget=25_000,
    learning_rate=3e-3,
    smallest_resolution=32,
    smallest_budget=1000,
    options=options,
    fixed=("tiles", "mask", "views", "view_size", "views_a_step"),
    defaults={"resolution": 128, "shapes": 64, "held_out": 4},
    configure=configure,
    measures=Measures(measure, table, picture, numbers, "views that nothing was gathered from; decibels"),
    shown=("gaussians", "kept_megabytes"),
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    given = run.parse(TASK, argv)
    size, count = (64, 4) if given.smallest else (given.view_size, given.views)
    kind = replace(KIND, name=f"views-{count}-of-{size}", convert=functools.partial(convert, size=size, count=count))
    measures = replace(TASK.measures, measure=functools.partial(measure, mask=given.mask, tiles=max(2, given.tiles)))
    coarse = {"resolution": given.resolution // FACTOR}
    structure = {"gt": "on the cells of the mesh", "predicted": "on the cells of the predicted mask", "all": "on all children"}[given.mask]
    task = replace(TASK, kind=kind, measures=measures, network=NETWORK | coarse, tiny=TINY | coarse, structure=structure)
    return run.main(task, argv)


if __name__ == "__main__":
    main()
