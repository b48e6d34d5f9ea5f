"""Train a small image encoder before any flow: a picture → what stands where, asked cell by cell through cross-attention.

Run: python examples/train_image_encoder.py [--data FOLDER] [--minutes 10] [--out out/image_encoder]
     python examples/train_structure_flow.py --image-encoder out/image_encoder/image_encoder.safetensors ...
     tensorboard --logdir out/image_encoder                                     (curves and pictures)
FOLDER is what `voxgen prepare --ovoxel 64 --images 8` made; without it, procedural assets are prepared in --out first.

A flow that learns together with a fresh encoder looks at pictures late: for thousands of steps its loss falls by what all objects have in
common. This puts the question directly. 8³ queries read the tokens as the flow will, and say which of the 2³ cells inside of each are
occupied, and of what colour they are. Large encoders (DINOv2, DINOv3) bring such features from elsewhere and need no such training.
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from training import run
from training.flow_encoder import TINY as TINY_ENCODER
from training.flow_source import asset_options, pictures_of, prepared_folder, split
from training.latents import LatentBatch, LatentDataset
from training.task import Prepared, Task

from voxgen.attention import CrossAttention, FeedForward
from voxgen.core.atomic import atomic_write
from voxgen.data import ImagesStage, OVoxelStage, ShardDataset, occupancy
from voxgen.layers import LayerNorm32
from voxgen.losses import LossTerms
from voxgen.models import SmallImageEncoder, build, save_pretrained
from voxgen.render import Panel, compose_figure, save_png
from voxgen.representations import OVoxel

SIDE = 8
"""Queries along an axis; each answers for 2³ cells."""
CHILDREN = 8


class Training(nn.Module):
    """An encoder, and queries that read what stands in each cell from its tokens.

    Args:
        encoder: pictures → tokens.
        width, layers, heads: of the queries' network, which is thrown away afterwards.
    """

    def __init__(self, encoder: SmallImageEncoder, width: int = 128, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.encoder = encoder
        self.cells = nn.Parameter(0.02 * torch.randn(SIDE**3, width))
        self.reads = nn.ModuleList(CrossAttention(width, encoder.channels, heads=heads) for _ in range(layers))
        self.thinks = nn.ModuleList(FeedForward(width, 4.0) for _ in range(layers))
        self.norms = nn.ModuleList(LayerNorm32(width) for _ in range(2 * layers))
        self.answer = nn.Linear(width, CHILDREN + 3)

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 8, s, s, s) logits of the cells inside of each query's, and (b, 3, s, s, s) colours."""
        tokens = self.encoder(images)
        h = self.cells.expand(len(images), -1, -1)
        for i, (read, think) in enumerate(zip(self.reads, self.thinks, strict=True)):
            h = h + read(self.norms[2 * i](h), tokens)
            h = h + think(self.norms[2 * i + 1](h))
        said = self.answer(h).transpose(1, 2).unflatten(2, (SIDE,) * 3)
        return said[:, :CHILDREN], said[:, CHILDREN:].sigmoid()

    def forward(self, batch: LatentBatch, generator: torch.Generator) -> LossTerms:
        """Cross-entropy of occupancy, and the error of colours where something stands."""
        logits, colors = self.answers(batch.pictures())
        truth = cast(Tensor, batch.latent)
        cells, paint = truth[:, :CHILDREN], truth[:, CHILDREN:]
        there = cells.any(1, keepdim=True)
        terms = {
            "occupancy": F.binary_cross_entropy_with_logits(logits, cells),
            "color": ((colors - paint).abs() * there).sum() / (3 * there.sum()).clamp(min=1),
        }
        return LossTerms(terms["occupancy"] + 0.5 * terms["color"], terms)


def target(ovoxel: OVoxel) -> Tensor:
    """(11, s, s, s): which of the 2³ cells inside of each are occupied, x slowest, and the mean colour of what is in it."""
    cells = occupancy(ovoxel, 2 * SIDE)[0, 0].float()
    inside = cells.unflatten(0, (SIDE, 2)).unflatten(2, (SIDE, 2)).unflatten(4, (SIDE, 2)).permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
    factor = ovoxel.resolution[0] // SIDE
    x, y, z = (ovoxel.grid.cells // factor).long().unbind(1)
    place = (x * SIDE + y) * SIDE + z
    colors = ovoxel.materials["base_color"].float()
    count = torch.zeros(SIDE**3).index_add_(0, place, torch.ones(len(place)))
    mean = torch.zeros(SIDE**3, 3).index_add_(0, place, colors) / count.clamp(min=1)[:, None]
    return torch.cat((inside, mean.T.unflatten(1, (SIDE,) * 3)))


@dataclass(frozen=True, kw_only=True)
class EncoderTask(Task):
    """The encoder, with its queries."""

    FIXED: ClassVar[tuple[str, ...]] = ("held_out", "image_size", "views", "assets", "channels")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        asset_options(parser)
        add("--image-size", type=int, default=128, help="pixels along a side")
        add("--channels", type=int, default=0, help="width of a token; 0: that of voxgen/image-encoder-small")
        parser.set_defaults(ema=0.995, checkpoint_every=200, picture_every=1000)

    def settle(self, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        if arguments.smallest:
            arguments.assets, arguments.held_out, arguments.views, arguments.image_size = 6, 2, 2, 32
        arguments.cache = arguments.cache or arguments.out

    def prepare(self, arguments: argparse.Namespace, *, show: bool) -> Prepared[Any]:
        stages = [OVoxelStage(32 if arguments.smallest else 64), ImagesStage(arguments.views, 2 * arguments.image_size)]
        folder = prepared_folder(arguments, stages, show=show)
        data = ShardDataset(folder, ["ovoxel", "images"])
        targets = [target(data.read(i, "ovoxel")) for i in tqdm(range(len(data)), desc="occupancy", unit="asset", disable=not show)]
        images = pictures_of(data, arguments.image_size, arguments.cache, show=show)
        parts = [
            LatentDataset([targets[i] for i in part], images, part, [data.names[i] for i in part])
            for part in split(data, arguments.held_out)
        ]
        return Prepared(parts[0], parts[1])

    def build(self, arguments: argparse.Namespace, prepared: Prepared[Any]) -> nn.Module:
        fields: dict[str, Any] = dict(TINY_ENCODER) if arguments.smallest else {}
        if arguments.channels:
            fields["channels"] = arguments.channels
        encoder = build("voxgen/image-encoder-small", image_size=arguments.image_size, **fields)
        return Training(cast(SmallImageEncoder, encoder), width=32 if arguments.smallest else 128)

    def glance(self, run: run.Run, held_out: LatentDataset) -> tuple[Tensor, dict[str, float]]:
        return sheet(cast(Training, run.averaged), held_out, f"step {run.step}"), scores(cast(Training, run.averaged), held_out)

    def finish(self, run: run.Run, held_out: LatentDataset) -> dict[str, float]:
        out, module = run.arguments.out, cast(Training, run.averaged).eval()
        save_pretrained(module.encoder, out / "image_encoder.safetensors")
        summary = {**scores(module, held_out), "steps": run.step, "seconds": run.seconds}
        title = f"{self.title} after {run.step:,} steps, {run.seconds / 60:.1f} minutes"
        save_png(out / "answers.png", sheet(module, held_out, title))
        with atomic_write(out / "result.json", "w") as file:
            json.dump(summary, file, indent=1)
        tqdm.write(f"\n{title}\n" + ", ".join(f"{name} {value:.3f}" for name, value in summary.items()))
        tqdm.write(f"wrote image_encoder.safetensors and answers.png to {out}")
        return summary


@torch.no_grad()
def scores(module: Training, held_out: LatentDataset) -> dict[str, float]:
    """Of the first picture of each held-out asset: intersection over union of occupied cells, error of colours; and without pictures."""
    batch = held_out.batched([held_out[i, 0] for i in range(len(held_out))])
    truth = cast(Tensor, batch.latent)
    found: dict[str, float] = {}
    for name, images in (("", batch.pictures()), ("_of_others", batch.pictures().roll(1, 0))):
        logits, colors = module.answers(images)
        cells, there = truth[:, :CHILDREN] > 0, truth[:, :CHILDREN].any(1, keepdim=True)
        guess = logits > 0
        found[f"iou{name}"] = float((guess & cells).sum() / (guess | cells).sum().clamp(min=1))
        found[f"color{name}"] = float(((colors - truth[:, CHILDREN:]).abs() * there).sum() / (3 * there.sum()).clamp(min=1))
    return found


@torch.no_grad()
def sheet(module: Training, held_out: LatentDataset, title: str) -> Tensor:
    """Pictures, and from the front the cells that are there and those that are said to be."""
    batch = held_out.batched([held_out[i, 0] for i in range(min(6, len(held_out)))])
    images, truth = batch.pictures(), cast(Tensor, batch.latent)
    logits, colors = module.answers(images)
    rows: list[Sequence[Panel]] = []
    for i in range(len(images)):
        seen = F.interpolate(images[i : i + 1], (128, 128), mode="area")[0].permute(1, 2, 0)
        shown = [front(truth[i, :CHILDREN] > 0, truth[i, CHILDREN:]), front(logits[i] > 0, colors[i])]
        rows.append([Panel(seen, "picture"), Panel(shown[0], "cells"), Panel(shown[1], "as said")])
    return compose_figure(rows, title=title)


def front(cells: Tensor, colors: Tensor) -> Tensor:
    """(128, 128, 3): the first occupied cell along -z from each place of the front, in its colour."""
    whole = cells.unflatten(0, (2, 2, 2)).permute(3, 0, 4, 1, 5, 2).reshape((2 * SIDE,) * 3)
    paint = colors.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    depth = whole.flip(2).int().argmax(2)
    first = 2 * SIDE - 1 - depth
    image = paint.gather(3, first[None, :, :, None].expand(3, -1, -1, 1))[..., 0]
    image = torch.where(whole.any(2), image * (1 - 0.02 * depth), 1.0)
    return image.permute(2, 1, 0).flip(0).repeat_interleave(8, 0).repeat_interleave(8, 1)


TASK = EncoderTask(
    name="image_encoder",
    title="Image encoder",
    description=(__doc__ or "").splitlines()[0],
    network={},
    tiny={},
    unit="tokens",
    budget=32 * SIDE**3,
    smallest_budget=2 * SIDE**3,
    learning_rate=2e-3,
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the scores on held-out assets (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
