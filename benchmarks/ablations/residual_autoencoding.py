"""Ablations of the SC-VAE at small scale: residual autoencoding, and the ConvNeXt-style block, at 16 and 32 times downsampling.

    OMP_WAIT_POLICY=passive python benchmarks/ablations/residual_autoencoding.py                      # about ten CPU minutes
    python benchmarks/ablations/residual_autoencoding.py --steps 20 --shapes 8 --held-out 4           # a quick look
    python benchmarks/ablations/residual_autoencoding.py --json ablations.json --figure curves.png

Shape autoencoders of a few channels learn procedural shapes at 64³ (those of examples/train_sc_vae.py), all with the same
seed, batches, noise, optimiser, learning rate and steps. Compared are, between levels:

- residual: space-to-channel blocks with the parameter-free shortcut (`ResidualDownsample`, `ResidualUpsample`);
- random start: the same, but the last convolution of a block starts random and not at zero;
- no shortcut: as random start, without the shortcut (nothing would pass through a convolution that is zero);
- pooled: `PooledDownsample`, `NearestUpsample`.

and on a level, with the residual pair between levels and nearly the same number of parameters:

- ConvNeXt: 3 `SparseConvNeXtBlock` a level;
- zero start: the same with a last linear layer that starts at zero (released networks start it at random);
- plain: 2 `SparseResidualBlock` a level (which start at zero).

Measured on held-out shapes, decoded from the posterior's mean on the given structure: reconstruction loss (crossed edges,
dual vertices, which children exist), intersection over union of the crossed edges and of the predicted children, and the
Chamfer distance to the true O-Voxel's mesh in voxels.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

import numba
import torch
from torch import Tensor, nn
from tqdm import tqdm

import voxgen
from voxgen.core import Frame
from voxgen.layers import ResidualDownsample, ResidualUpsample, SparseConvNeXtBlock
from voxgen.losses import LossTerms, ShapeVAELoss
from voxgen.metrics import compare_surfaces
from voxgen.models import SCVAE, DecodedShape, DecoderConfig, EncoderConfig, Latent, SCDecoder, SCEncoder, ShapeContent
from voxgen.representations import OVoxel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from examples.training.shapes import random_shape

LOSS = ShapeVAELoss(crossing=1.0, dual_vertex=10.0, subdivision=1.0, kl=1e-5)
"""As in examples/train_sc_vae.py."""
HELD_OUT = 1_000_000
"""Seeds of shapes from here on are never trained on."""
WIDTHS = {16: (8, 16, 32, 64, 128), 32: (4, 8, 16, 32, 64, 128)}
LATENT = {16: 16, 32: 64}
PAIRS = {
    "residual": ("SparseResBlockS2C3d", "SparseResBlockC2S3d"),
    "random start": ("SparseResBlockS2C3d", "SparseResBlockC2S3d"),
    "no shortcut": ("SparseResBlockS2C3d", "SparseResBlockC2S3d"),
    "pooled": ("SparseResBlockDownsample3d", "SparseResBlockUpsample3d"),
}
BLOCKS = {
    "ConvNeXt": ("SparseConvNeXtBlock3d", 3),
    "zero start": ("SparseConvNeXtBlock3d", 3),
    "plain": ("SparseResBlock3d", 2),
}


@dataclass(frozen=True)
class Run:
    """One training."""

    factor: int
    name: str
    steps: int
    batch: int
    learning_rate: float
    seed: int
    shapes: int
    held_out: int
    resolution: int

    @property
    def title(self) -> str:
        return f"{self.factor}×, {self.name}"


def network(run: Run) -> SCVAE[DecodedShape]:
    widths = WIDTHS[run.factor]
    kind, count = BLOCKS.get(run.name, ("SparseConvNeXtBlock3d", 1))
    down, up = PAIRS.get(run.name, PAIRS["residual"])
    levels = (0, *[count] * (len(widths) - 1))
    torch.manual_seed(run.seed)
    encoder = SCEncoder(EncoderConfig(widths, levels, LATENT[run.factor], block_type=kind, down_block_type=down))
    decoder = SCDecoder(DecoderConfig(widths[::-1], levels[::-1], LATENT[run.factor], block_type=kind, up_block_type=up))
    vae = SCVAE(encoder, decoder, ShapeContent())
    if run.name in ("random start", "no shortcut"):
        for part in vae.modules():
            if isinstance(part, (ResidualDownsample, ResidualUpsample)):
                part.shortcut = run.name == "random start"
                part.conv2.reset_parameters()
    if run.name == "zero start":
        for part in vae.modules():
            if isinstance(part, SparseConvNeXtBlock):
                nn.init.zeros_(cast(nn.Linear, part.mlp[2]).weight)
    return vae


@functools.cache
def shapes(seeds: range, resolution: int) -> list[OVoxel]:
    frame = Frame.unit(resolution)
    made = [OVoxel.from_mesh(random_shape(seed)[1], resolution, materials=False, frame=frame) for seed in seeds]
    return [o.replace(crossing_sign=None) for o in made]


def loss(decoded: DecodedShape, latent: Latent, truth: OVoxel) -> LossTerms:
    return LOSS(
        crossing_logits=decoded.prediction.crossing_logits,
        dual_vertices=decoded.prediction.dual_vertices,
        subdivision_logits=[level.feats for level in decoded.logits],
        mean=latent.posterior.mean.feats,
        logvar=latent.posterior.logvar,
        crossings=truth.intersected,
        target_vertices=truth.dual_vertices,
        subdivisions=[structure.mask() for structure in latent.structures],
    )


def reconstruction_loss(terms: LossTerms) -> dict[str, float]:
    """The loss without KL, and its parts as they count in it."""
    own = terms.numbers()
    parts = {
        "crossing": LOSS.crossing * own["crossing"],
        "dual_vertex": LOSS.dual_vertex * own["dual_vertex"],
        "subdivision": LOSS.subdivision * sum(v for k, v in own.items() if k.startswith("subdivision")),
    }
    return {"loss": sum(parts.values()), **parts}


@torch.no_grad()
def held_out_loss(vae: SCVAE[DecodedShape], batch: OVoxel) -> dict[str, float]:
    decoded, latent = vae(batch, sample=False)
    return reconstruction_loss(loss(decoded, latent, batch))


@torch.no_grad()
def scores(vae: SCVAE[DecodedShape], held_out: list[OVoxel]) -> dict[str, float]:
    """Means over the held-out shapes; decoded on the given structure."""
    found: list[tuple[float, float, float]] = []
    for truth in held_out:
        decoded, latent = vae(truth, sample=False)
        children = torch.cat([level.feats.flatten() > 0 for level in decoded.logits])
        real = torch.cat([structure.mask().flatten() for structure in latent.structures])
        mesh, target = (o.replace(split_weight=None).to_mesh() for o in (decoded.ovoxel, truth))
        chamfer = float(truth.resolution[0])  # nothing at all counts as a whole side away
        if mesh.num_faces:
            chamfer = compare_surfaces(mesh, target, samples=5000).chamfer_distance().l1 * truth.resolution[0]
        found.append((iou(decoded.prediction.intersected, truth.intersected), iou(children, real), chamfer))
    flags, structure, distances = zip(*found, strict=True)
    return {
        "crossing_iou": sum(flags) / len(flags),
        "children_iou": sum(structure) / len(structure),
        "chamfer_voxels": sum(distances) / len(distances),
    }


def iou(a: Tensor, b: Tensor) -> float:
    return int((a & b).sum()) / max(1, int((a | b).sum()))


def train(run: Run) -> dict[str, Any]:
    """Train one network; returns its curve on held-out shapes and its scores."""
    torch.set_num_threads(1)  # what is computed is small, and the result must not depend on the machine's cores
    numba.set_num_threads(1)
    own, held_out = shapes(range(run.shapes), run.resolution), shapes(range(HELD_OUT, HELD_OUT + run.held_out), run.resolution)
    together = OVoxel.batched(held_out)
    vae = network(run)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=run.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, run.learning_rate, run.steps, pct_start=0.1, cycle_momentum=False)
    chance = torch.Generator().manual_seed(run.seed)
    order: list[int] = []
    curve: list[dict[str, float]] = []
    start = time.process_time()
    for step in range(run.steps):
        while len(order) < run.batch:
            order += torch.randperm(len(own), generator=chance).tolist()
        picked, order = order[: run.batch], order[run.batch :]
        batch = OVoxel.batched([own[i] for i in picked])
        decoded, latent = vae(batch, generator=torch.Generator().manual_seed(run.seed * 1_000_003 + step))
        terms = loss(decoded, latent, batch)
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % max(1, run.steps // 10) == 0 or step + 1 == run.steps:
            curve.append({"step": step + 1, "train": reconstruction_loss(terms)["loss"], **held_out_loss(vae, together)})
    seconds = time.process_time() - start
    return {
        "factor": run.factor,
        "name": run.name,
        "seed": run.seed,
        "parameters": sum(p.numel() for p in vae.parameters()),
        "cpu_s_a_step": seconds / run.steps,
        **curve[-1],
        **scores(vae, held_out),
        "curve": curve,
    }


COLUMNS = {
    "parameters": ("parameters", ",.0f"),
    "CPU s/step": ("cpu_s_a_step", ".3f"),
    "loss": ("loss", ".4f"),
    "edges": ("crossing", ".4f"),
    "vertices": ("dual_vertex", ".4f"),
    "children": ("subdivision", ".4f"),
    "edge IoU": ("crossing_iou", ".4f"),
    "child IoU": ("children_iou", ".4f"),
    "Chamfer": ("chamfer_voxels", ".3f"),
}


def line(result: dict[str, Any] | None = None) -> str:
    """The table's head, or one training."""
    if result is None:
        return f"{'':18}" + "".join(f"{title:>11}" for title in COLUMNS)
    numbers = "".join(f"{format(result[key], form):>11}" for key, form in COLUMNS.values())
    return f"{result['factor']}×, {result['name']:13}" + numbers


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Held-out loss over steps: a row an ablation, a column a factor."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    factors = sorted({r["factor"] for r in results})
    groups = [g for g in (tuple(PAIRS), tuple(BLOCKS)) if any(r["name"] in g for r in results)]
    figure, axes = plt.subplots(len(groups), len(factors), figsize=(4.6 * len(factors), 3.1 * len(groups)), squeeze=False, sharey="row")
    for row, names in enumerate(groups):
        for column, factor in enumerate(factors):
            panel = axes[row][column]
            for name in names:
                runs = [r for r in results if (r["factor"], r["name"]) == (factor, name)]
                for r in runs:
                    label = name if r is runs[0] else None
                    panel.plot(
                        [c["step"] for c in r["curve"]],
                        [c["loss"] for c in r["curve"]],
                        color=f"C{names.index(name) + 4 * row}",
                        label=label,
                    )
            panel.set(title=f"{'between levels' if row == 0 else 'on a level'}, {factor}× downsampling", xlabel="step")
            panel.set_ylabel("held-out reconstruction loss" if column == 0 else "")
            panel.grid(alpha=0.3)
            panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factor", type=int, nargs="*", default=[16, 32], choices=list(WIDTHS))
    parser.add_argument("--name", nargs="*", default=[*PAIRS, *BLOCKS], choices=[*PAIRS, *BLOCKS])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, nargs="*", default=[0])
    parser.add_argument("--shapes", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=12)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings at a time, one thread each")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figure", type=Path, help="draw the curves into this file")
    options = parser.parse_args()
    rest = (options.steps, options.batch, options.learning_rate)
    data = (options.shapes, options.held_out, options.resolution)
    runs = [Run(factor, name, *rest, seed, *data) for seed in options.seed for factor in options.factor for name in options.name]
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread a training",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "numba": numba.__version__},
        **{k: getattr(options, k) for k in ("steps", "batch", "learning_rate", "shapes", "held_out", "resolution", "jobs")},
        "widths": WIDTHS,
        "latent_channels": LATENT,
        "load_before": os.getloadavg(),
        "results": [],
    }
    tqdm.write(line())
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for result in tqdm(pool.map(train, runs), total=len(runs), desc="trainings", disable=None):
            tqdm.write(line(result))
            report["results"].append(result)
            report["load_after"] = os.getloadavg()
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(report, indent=1) + "\n")
            if options.figure:
                draw(report["results"], options.figure)


if __name__ == "__main__":
    main()
