"""The surface-anchoring mask: what a generator learns of shapes that it never saw, and what each way of making candidates wastes.

    OMP_WAIT_POLICY=passive python benchmarks/mask_upsampling.py              # a few minutes on two cores; 64³ → 128³
    python benchmarks/mask_upsampling.py --steps 100 --shapes 40              # quicker, less exact

A `MaskGenerator` is trained on procedural shapes and judged on bunny, teapot and beetle, all children of all cells together:

- accuracy and recall with every logit above 0 kept;
- the share of the children kept at 99 % recall on these meshes, and what comes out with the threshold that was calibrated for 99 %
  recall on other procedural shapes, as a user would (`MaskGenerator.calibrate`), the child of the largest logit always kept.

Twice, with the same network and steps: once with the fifteen numbers of `surface_channels` beside a latent that says nothing, once with
that latent alone, so that all it knows is which cells of the coarse level exist. The latent of a trained encoder lies between the two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import voxgen
from voxgen.attention import MaskGenerator
from voxgen.core import SparseTensor, TriMesh
from voxgen.io import load_mesh
from voxgen.losses import mask_bce
from voxgen.ops.candidates import level_structures, redundancy
from voxgen.ops.resample import Structure
from voxgen.ops.surface_cells import CHANNELS, surface_channels, surface_grid

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from training.shapes import fitted, random_shape

DATA = Path(os.environ.get("VOXGEN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
HELD_OUT = ("bunny", "teapot", "beetle")
VALIDATION_SEED = 1_000_000_000
RECALL = 0.99
INPUTS = {"surface": CHANNELS, "occupancy": 0}
"""Width of the numbers beside a latent that says nothing."""


@dataclass(frozen=True)
class Shape:
    """A surface: the numbers of its cells at the coarse level, and which children exist at each finer one."""

    name: str
    x: SparseTensor
    structures: tuple[Structure, ...]


def shape(name: str, mesh: TriMesh, resolution: int, levels: int) -> Shape:
    structures = level_structures(surface_grid(mesh, resolution << levels), levels)
    x = surface_channels(mesh, resolution)
    # Both are exact, but the meshes are not the same in both: a vertex on a plane of cells may fall to either side.
    return Shape(name, SparseTensor(structures[0].parents, x.feats[x.grid.rows_of(structures[0].parents.coords)]), structures)


def cropped(s: Shape, side: int, chance: torch.Generator) -> Shape:
    """The cells within a cube about a random one of them, and their children."""
    centre = s.x.grid.cells[int(torch.randint(len(s.x), (), generator=chance))]
    keep = ((s.x.grid.cells - centre).abs() <= side // 2).all(1)
    x = SparseTensor(s.x.grid.select(keep), s.x.feats[keep])
    structures, parents = [], x.grid
    for structure in s.structures:
        structures.append(Structure.of_mask(parents, structure.mask()[keep]))
        keep, parents = keep[structure.parent.long()], structures[-1].children
    return Shape(s.name, x, tuple(structures))


def batched(shapes: list[Shape]) -> tuple[SparseTensor, list[Structure]]:
    x = SparseTensor.batched([s.x for s in shapes])
    structures, parents = [], x.grid
    for level in range(len(shapes[0].structures)):
        mask = torch.cat([s.structures[level].mask() for s in shapes])
        structures.append(Structure.of_mask(parents, mask))
        parents = structures[-1].children
    return x, structures


def run(net: MaskGenerator, x: SparseTensor, structures: list[Structure] | tuple[Structure, ...]) -> tuple[Tensor, ...]:
    z = x.with_feats(torch.ones(len(x), net.latent_channels))
    return net(z, x.feats if net.geometry_channels else None, structures=structures).logits


def train(net: MaskGenerator, shapes: list[Shape], steps: int, batch: int, side: int, rate: float, name: str) -> float:
    """CPU seconds of the training."""
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    chance = torch.Generator().manual_seed(1)
    start = time.process_time()
    bar = tqdm(range(steps), desc=name)
    for _ in bar:
        picked = [cropped(shapes[int(i)], side, chance) for i in torch.randint(len(shapes), (batch,), generator=chance)]
        x, structures = batched(picked)
        loss = mask_bce(run(net, x, structures), [s.mask() for s in structures])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix(bce=f"{float(loss.detach()) / net.levels:.4f}")
    return time.process_time() - start


@torch.no_grad()
def scores(net: MaskGenerator, shapes: list[Shape]) -> list[tuple[Tensor, Tensor]]:
    """For each level, logits and truth of the children of all shapes."""
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(net.levels)]
    for s in shapes:
        for level, logits in enumerate(run(net, s.x, s.structures)):
            found[level].append((logits, s.structures[level].mask()))
    return [(torch.cat([a for a, _ in level]), torch.cat([b for _, b in level])) for level in found]


def judged(net: MaskGenerator, level: int, logits: Tensor, truth: Tensor) -> dict[str, float]:
    """Figures of one level."""
    predict: Any = net.predict[level]
    calibrated = predict.keep(logits)
    true = logits[truth].sort().values
    at_recall = true[int((1 - RECALL) * len(true))]
    return {
        "bce": float(F.binary_cross_entropy_with_logits(logits, truth.float())),
        "accuracy": float(((logits > 0) == truth).double().mean()),
        "recall_at_0.5": float((logits[truth] > 0).double().mean()),
        "true_share": float(truth.double().mean()),
        "kept_at_99_recall": float((logits >= at_recall).double().mean()),
        "calibrated_threshold": float(predict.threshold),
        "calibrated_recall": float(calibrated[truth].double().mean()),
        "calibrated_kept": float(calibrated.double().mean()),
    }


def candidates(s: Shape) -> dict[str, float]:
    step = s.structures[-1]
    return {kind: redundancy(step.parents, step.children, kind).redundant for kind in ("children8", "kernel3", "corner")}  # pyright: ignore


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=64, help="of the coarse level")
    parser.add_argument("--levels", type=int, default=1)
    parser.add_argument("--shapes", type=int, default=80)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--batch", type=int, default=8, help="crops a step")
    parser.add_argument("--crop", type=int, default=20, help="side of a crop in cells; whole shapes are alike inside and few a step")
    parser.add_argument("--inputs", nargs="+", choices=list(INPUTS), default=list(INPUTS))
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    size = (args.resolution, args.levels)
    shapes = [shape(str(seed), random_shape(seed)[1], *size) for seed in tqdm(range(args.shapes), desc="shapes")]
    validation = [shape(str(seed), random_shape(VALIDATION_SEED + seed)[1], *size) for seed in range(16)]
    held_out = [shape(name, fitted(load_mesh(DATA / f"{name}.obj")), *size) for name in HELD_OUT]
    result: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "date": str(date.today())},
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "options": {key: value for key, value in vars(args).items() if key != "json"},
        "cells": {s.name: [len(s.x), *(len(step.children) for step in s.structures)] for s in held_out},
        "redundant_candidates": {s.name: candidates(s) for s in held_out},
    }
    for name in args.inputs:
        geometry = INPUTS[name]
        torch.manual_seed(0)
        net = MaskGenerator(
            1, geometry, model_channels=args.channels, num_blocks=args.blocks, heads=4, widths=(args.channels // 2,) * (args.levels - 1)
        )
        seconds = train(net, shapes, args.steps, args.batch, args.crop, args.rate, name)
        for level, (logits, truth) in enumerate(scores(net, validation)):
            predict: Any = net.predict[level]
            predict.calibrate(logits, truth, RECALL)
        levels = scores(net, held_out)
        result[name] = {
            "parameters": sum(p.numel() for p in net.parameters()),
            "training_cpu_seconds": seconds,
            "levels": [judged(net, level, *found) for level, found in enumerate(levels)],
            "by_mesh": {s.name: [judged(net, i, *found) for i, found in enumerate(scores(net, [s]))] for s in held_out},
        }
        for level, row in enumerate(result[name]["levels"]):
            print(f"{name}, level {level}: " + ", ".join(f"{key} {value:.4f}" for key, value in row.items()))
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
