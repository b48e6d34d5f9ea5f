"""Train a small texture VAE as Sparse-Up does: colours on surface cells → latent at 32³ → Gaussians on the cells that are kept at 128³.

Run: python examples/train_texture_vae.py [--data FOLDER_OF_MESHES] [--measure-on MESH ...] [--tiles 2] [--mask predicted] [--minutes 10]
     tensorboard --logdir out/texture_vae                                       (curves and pictures)
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
Textured meshes are drawn from many sides by our own rasteriser, and what the views show is gathered on the cells: colours in the place of
DINOv2's features. A step encodes a shape, decodes the Gaussians of its cells, and compares pictures of them with those of the mesh. Half of
the children of each level are dropped before anything is computed for them, by the mesh or by a network that learns to. With --tiles k a
picture is drawn in k × k parts, each with the Gaussians that it can show: one part at a time is in memory, and the gradient is the same.
The table has PSNR on the cells of the mesh and on those of the predicted mask (masked), which share of the mesh's cells that finds (recall)
and how many it keeps, and how far pictures in tiles are from whole ones (seams).
Expect: with --measure-on spot.obj --overfit --no-recolor, which trains on that mesh alone, 31 dB in views that were not trained on, after
nine minutes (800 steps) on two cores. Without --overfit, trained on 64 procedural shapes for as long, spot comes back with 22 dB.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from training import run
from training.arguments import parse
from training.data import Kind
from training.drawn import PRESET, Mask, compare, largest_scale, picture
from training.measure import Measures
from training.memory import KeptForBackward
from training.scores import numbers, table
from training.textures import textured
from training.vae import VAETask
from training.views import FACTOR, FEATURES, Views, batched, convert, exchange_axes, load, recolored, store

from voxgen.attention import MaskPrediction, mask_targets
from voxgen.core import Camera, Selection, SparseTensor
from voxgen.layers import DiagonalGaussian
from voxgen.losses import LossTerms, TextureVAELoss, composite, kl_divergence, mask_bce
from voxgen.losses.gaussians import gaussian_opacity, gaussian_volume
from voxgen.losses.ssim import similarity_map
from voxgen.models import TextureVAE, save_pretrained
from voxgen.models.texture_vae import TextureVAEConfig
from voxgen.ops.candidates import level_structures
from voxgen.ops.resample import Structure
from voxgen.render import Tile, ViewTiling, cull_voxels, render_gaussians
from voxgen.representations import GaussianActivation, GaussianSplats

LEVELS = 2
NETWORK = {
    "feature_channels": FEATURES,
    "latent_channels": 32,
    "model_channels": 96,
    "num_blocks": 2,
    "num_heads": 4,
    "mask_blocks": 1,
    "widths": (48, 32),
    "num_gaussians": 2,
}
TINY = NETWORK | {"latent_channels": 8, "model_channels": 32, "num_blocks": 1, "num_heads": 2, "widths": (16, 12), "num_gaussians": 2}
LOSS = TextureVAELoss(lpips=0.0, opacity=0.05, mask=0.1)
"""Published weights but for three. LPIPS takes longer than the rest of a step on a CPU. Early on, when no colour is right yet, pictures get
better the fainter Gaussians are: a surface stays one by the weight of its opacity. The mask's network learns as fast with any weight of its
term, since Adam divides by it; a small one leaves the encoder to the pictures."""
LOGVAR = -6.0
"""Of the posterior at the start, with means that differ. As published, all start at 0, and for hundreds of steps latents are noise."""
OPACITY, SCALE = 3.0, 0.5
"""Raw channels of the head at the start: opacities of 0.7 and Gaussians that close the surface, where TRELLIS starts with a mist."""
HEAD, HEAD_RATE = 0.02, 5.0
"""Of the head: its weights at the start, zero as published, which lets no gradient through to the rest; and its learning rate, times the
others'. Colours reach from black to white over raw numbers of 3.5, which takes a head hundreds of steps of the others' size."""
OVERLAP = 16
"""Pixels that tiles share: more than twice half a window of SSIM, so that each window counts once, and whole."""


@dataclass(frozen=True, eq=False)
class Shots:
    """v views to draw: cameras, what they should show (v, 3, h, w), which sample each shows, and the grounds (v, 3)."""

    camera: Camera
    target: Tensor
    sample: Tensor
    background: Tensor

    def __getitem__(self, view: int) -> Shots:
        some = slice(view, view + 1)
        return Shots(self.camera[view], self.target[some], self.sample[some], self.background[some])

    def draw(self, splats: GaussianSplats, tile: Tile | None = None) -> Tensor:
        """Pictures (v, 3, h, w), or a tile of them."""
        image = render_gaussians(splats, self.camera, crop=tile, background=self.background, sample=self.sample, preset=PRESET)
        return image.color.permute(0, 3, 1, 2)


class Training(nn.Module):
    """The network and its loss in one forward, as data-parallel wrappers want it."""

    tiles, mask, per_step, recolor = 1, "gt", 1, True

    def __init__(self, network: dict[str, Any]) -> None:
        super().__init__()
        self.vae = TextureVAE(TextureVAEConfig(**network))
        self.loss = replace(LOSS, volume=GaussianActivation.volume_weight(self.vae.config.finest))
        encoder, head = self.vae.encoder.out_layer.linear, self.vae.decoder.out_layer.linear
        nn.init.xavier_uniform_(encoder.weight.chunk(2)[0])
        nn.init.constant_(encoder.bias.chunk(2)[1], LOGVAR)
        nn.init.normal_(head.weight, std=HEAD)
        count = self.vae.decoder.activation.count
        _, _, scale, _, opacity = head.bias.split([3 * count, 3 * count, 3 * count, 4 * count, count])
        nn.init.constant_(scale, SCALE)
        nn.init.constant_(opacity, OPACITY)
        self.progress = 0.0
        self.facts: dict[str, float] = {}

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser: those of the head learn faster."""
        head = list(self.vae.decoder.out_layer.parameters())
        rest = [p for p in self.parameters() if all(p is not q for q in head)]
        return [{"params": rest}, {"params": head, "scale": HEAD_RATE}]

    def forward(self, truth: Views, generator: torch.Generator) -> LossTerms:
        """Encode shapes, decode their Gaussians, and compare pictures of them."""
        chance = torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
        if self.recolor:
            truth = recolored(truth, chance)
        shots = self.draw_views(truth, chance)
        structures = level_structures(truth.grid, LEVELS)
        with KeptForBackward() as trunk:
            posterior = self.vae.encode(truth.features(), truth.geometry.feats)
            z = posterior.sample(generator)
            if self.mask == "all":
                decoded = self.vae.decode(z, source="all", splats=False)
            else:
                union = 0.3 * self.progress if self.mask == "predicted" else 0.0
                decoded = self.vae.decode(z, structures=structures, predict=True, splats=False, union=union, generator=chance)
        draw = self.whole if self.tiles == 1 else self.in_tiles
        terms, kept = draw(decoded.features, shots, posterior, decoded.mask, structures)
        megabytes = {"trunk_megabytes": trunk.bytes / 2**20, "kept_megabytes": (trunk.bytes + kept) / 2**20}
        self.facts = {"gaussians": float(len(decoded.features) * self.vae.decoder.activation.count), **megabytes}
        return terms

    def draw_views(self, truth: Views, chance: torch.Generator) -> Shots:
        """Views of each shape, on black or white."""
        device, count = truth.images.device, truth.images.shape[1]
        picked = [torch.randperm(count, generator=chance)[: self.per_step] for _ in truth.cameras]
        camera = Camera.batched([own[rows] for own, rows in zip(truth.cameras, picked, strict=True)])
        images = torch.cat([own[rows] for own, rows in zip(truth.images, picked, strict=True)]).float() / 255
        sample = torch.arange(len(picked)).repeat_interleave(len(picked[0]))
        background = torch.randint(2, (len(images), 1), generator=chance).float().expand(-1, 3).to(device)
        return Shots(camera, composite(images, background), sample, background)

    def whole(
        self, h: SparseTensor, shots: Shots, posterior: DiagonalGaussian, mask: MaskPrediction | None, true: Sequence[Structure]
    ) -> tuple[LossTerms, int]:
        """The loss of whole pictures, and the bytes that drawing them keeps."""
        with KeptForBackward() as kept:
            splats = self.vae.decoder.gaussians(h)
            terms = self.loss(
                image=shots.draw(splats),
                target=shots.target,
                scales=splats.scales,
                opacities=splats.opacities,
                mean=posterior.mean.feats,
                logvar=posterior.logvar,
                mask_logits=() if mask is None else mask.logits,
                mask_targets=() if mask is None else mask_targets(mask, true),
            )
        return terms, kept.bytes

    def in_tiles(
        self, h: SparseTensor, shots: Shots, posterior: DiagonalGaussian, mask: MaskPrediction | None, true: Sequence[Structure]
    ) -> tuple[LossTerms, int]:
        """The same loss and gradient, a tile at a time; and the most bytes that one keeps.

        Features are detached; each tile adds its gradient to theirs, which a product then carries through the trunk.
        """
        tiling, largest = ViewTiling.of(shots.camera, self.tiles, overlap=OVERLAP), largest_scale(self.vae, h)
        leaf = h.with_feats(h.feats.detach().requires_grad_())
        owner = tiling.stitch([torch.full((1, tile.height, tile.width), float(i)) for i, tile in enumerate(tiling.tiles)])
        part = torch.arange(len(h), device=h.grid.device) % (len(shots.camera) * len(tiling))  # whose regularisers each tile adds
        sums: dict[str, Tensor] = {}
        most = 0
        for step in range(len(shots.camera) * len(tiling)):
            view, index = divmod(step, len(tiling))
            shot, tile = shots[view], tiling.tiles[index]
            with KeptForBackward() as kept:
                seen = cull_voxels(h.grid, shot.camera, tile, largest_scale=largest, sample=int(shot.sample), preset=PRESET)
                image, target = shot.draw(self.vae.decoder.gaussians(seen.apply(leaf)), tile), tile.cut(shot.target, 2)
                own = (tile.cut(owner) == index).to(image) / shots.target[:, 0].numel()  # each pixel's share of all, in one tile
                some = Selection(h.grid, part == step)
                splats, share = self.vae.decoder.gaussians(some.apply(leaf)), some.count / max(1, len(h))
                terms = {
                    "l1": ((image - target).abs().mean(1) * own).sum(),
                    "ssim": ((1 - similarity_map(image, target, 1.0, "zero")).mean(1) * own).sum(),
                    "volume": gaussian_volume(splats.scales) * share,
                    "opacity": gaussian_opacity(splats.opacities) * share,
                }
                loss = self.weighted(terms)
            loss.backward()
            most = max(most, kept.bytes)
            sums = {name: sums.get(name, 0) + term.detach() for name, term in terms.items()}
        sums["kl"] = kl_divergence(posterior.mean.feats, posterior.logvar)
        if mask is not None:
            sums["mask"] = mask_bce(mask.logits, mask_targets(mask, true))
        gradient = torch.zeros_like(h.feats) if leaf.feats.grad is None else leaf.feats.grad
        carried = (h.feats * gradient).sum()
        return LossTerms(self.weighted(sums) + carried - carried.detach(), sums), most

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.loss, name) * term for name, term in terms.items()]).sum()


def reconstruct(vae: TextureVAE, truth: Views, mask: Mask) -> tuple[SparseTensor, GaussianSplats]:
    """Encode → mean of the posterior → decode on the cells of the mesh, on those that the network keeps, or on all."""
    z = vae.encode(truth.features(), truth.geometry.feats).mean
    decoded = vae.decode(z, structures=level_structures(truth.grid, LEVELS) if mask == "gt" else None, source=mask, splats=False)
    return decoded.features, vae.decoder.gaussians(decoded.features)


def save(vae: TextureVAE, folder: Path) -> str:
    """Configuration and weights: `voxgen.models.load_pretrained` builds the network from the file."""
    save_pretrained(vae, folder / "texture_vae.safetensors")
    return "texture_vae.safetensors"


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tiles", type=int, default=1, help="draw training views in so many tiles along each axis, one at a time")
    shown = "which cells pictures show: the mesh's; those of the network's mask; all children, also in training, for what the mask saves"
    add("--mask", choices=("gt", "predicted", "all"), default="gt", help=shown)
    add("--views", type=int, default=16, help="of each shape, for features and for training")
    add("--view-size", type=int, default=256, help="pixels along each side of a view")
    add("--recolor", action=argparse.BooleanOptionalAction, default=True, help="exchange and invert colours at each step")
    add("--views-a-step", type=int, default=1, help="of each shape of a batch")


def configure(model: nn.Module, arguments: argparse.Namespace) -> None:
    training = cast(Training, model)
    training.tiles, training.mask, training.per_step = arguments.tiles, arguments.mask, arguments.views_a_step
    training.recolor = arguments.recolor
    if training.tiles > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SystemExit("--tiles adds gradients of the head inside of a step, which several processes do not share; use one.")


KIND = Kind("views", functools.partial(convert, size=64, count=4), store, load, exchange_axes, batched, dress=textured)
TASK = VAETask(
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
    fixed=("tiles", "mask", "views", "view_size", "views_a_step", "recolor"),
    defaults={"resolution": 128, "shapes": 64, "held_out": 4},
    configure=configure,
    measures=Measures(compare, table, picture, numbers, "views that nothing was gathered from; decibels"),
    shown=("gaussians", "kept_megabytes"),
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    given = parse(TASK, argv)
    size, count = (64, 4) if given.smallest else (given.view_size, given.views)
    kind = replace(KIND, name=f"views-{count}-of-{size}", convert=functools.partial(convert, size=size, count=count))
    measures = replace(TASK.measures, compare=functools.partial(compare, mask=given.mask, tiles=max(2, given.tiles)))
    coarse = {"resolution": given.resolution // FACTOR}
    structure = {"gt": "on the cells of the mesh", "predicted": "on the cells of the predicted mask", "all": "on all children"}[given.mask]
    task = replace(TASK, kind=kind, measures=measures, network=NETWORK | coarse, tiny=TINY | coarse, structure=structure)
    return run.main(task, argv)


if __name__ == "__main__":
    main()
