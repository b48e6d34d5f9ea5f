"""Ablation of spatial sparse attention's branches at small scale, on a task that needs far context.

    OMP_WAIT_POLICY=passive python benchmarks/ablations/ssa_modules.py                   # about a CPU minute
    python benchmarks/ablations/ssa_modules.py --steps 20                                # a quick look
    python benchmarks/ablations/ssa_modules.py --json ablation.json --figure curves.png

The task is a look-up. Tokens are the cells of shells at 16³, in blocks of 4³. In each sample a few blocks are places: all tokens
of place p carry p, each carries a key j of a few, and the value v[p, j], which is drawn anew for every sample and step. Every
other token asks for one pair (p, j) and must name v[p, j]. The answer never lies in the window of the token that asks; the
place is plain to see in a block's summary, but many values share that summary.

Networks are one layer of attention between an embedding and a two-layer readout, all with the same parameters, seed, samples and
optimiser; factors of 0 behind the gate take branches away. Queries start alike to keys, so that the matching need not be found
from nothing, which takes any of them long. Full attention (`RaggedAttention`, one key head too) has no summaries and
no gate and is there for scale. Reported are loss and accuracy of the answers on shells that were not trained on; guessing is right
once in `--values`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import numba
import torch
from torch import Tensor, nn
from tqdm import tqdm

import voxgen
from voxgen.attention import RaggedAttention, SpatialSparseAttention
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.ops.blocks import partition
from voxgen.representations import OVoxel
from voxgen.testing import shapes

SIDE, BLOCK, WIDTH, HEADS = 16, 4, 64, 4
BRANCHES = {
    "window": (0, 0, 1),
    "window + compression": (1, 0, 1),
    "window + compression + selection": (1, 1, 1),
    "compression + selection": (1, 1, 0),
}
FULL = "full attention"
HELD_OUT = 1_000_000
"""Seeds of tasks from here on are never trained on."""


class Keep(nn.Module):
    """Takes branches away behind the gate."""

    branches: Tensor

    def __init__(self, branches: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("branches", torch.tensor(branches, dtype=torch.float32), persistent=False)

    def forward(self, gate: Tensor) -> Tensor:
        return gate * self.branches


class Network(nn.Module):
    """One layer of attention."""

    def __init__(self, name: str, inputs: int, values: int, top_k: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, WIDTH)
        self.readout = nn.Sequential(nn.LayerNorm(2 * WIDTH), nn.Linear(2 * WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, values))
        if name == FULL:
            self.attention = RaggedAttention(WIDTH, HEADS, kv_heads=1, bias=False)
        else:
            self.attention = SpatialSparseAttention(WIDTH, HEADS, 1, BLOCK, BLOCK, BLOCK, top_k)
            self.attention.gate.append(Keep(BRANCHES[name]))
        self.match_at_first()

    @torch.no_grad()
    def match_at_first(self) -> None:
        """Start with queries like keys and summaries like means, so that a token first attends to those of its place and key."""
        attention, gain = self.attention, 6.0
        nn.init.orthogonal_(self.embed.weight)
        rows = nn.init.orthogonal_(torch.empty(WIDTH // HEADS, WIDTH), gain=gain)
        if isinstance(attention, RaggedAttention):
            attention.to_qkv.weight[: WIDTH + WIDTH // HEADS] = rows.repeat(HEADS + 1, 1)
        else:
            attention.proj_q.weight.copy_(rows.repeat(HEADS, 1))
            attention.proj_k.weight.copy_(rows)
            nn.init.eye_(attention.get_parameter("compression_key.act_layers.0.conv.weight"))

    def forward(self, x: SparseTensor) -> Tensor:
        tokens = x.with_feats(self.embed(x.feats))
        return self.readout(torch.cat((tokens.feats, self.attention(tokens).feats), 1))


def shells(first: int, count: int) -> VoxelGrid:
    """A batch of turned tori, balls and boxes."""
    made: list[TriMesh] = []
    for seed in range(first, first + count):
        chance = torch.Generator().manual_seed(seed)
        angle, a, b, c = (6.28 * torch.rand(4, generator=chance)).tolist()
        kind = (shapes.sphere(0.42), shapes.torus(0.3, 0.13), shapes.box((-0.3, -0.2, -0.25), (0.3, 0.2, 0.25)))[seed % 3]
        made.append(shapes.rotated(kind, angle, (a - 3, b - 3, c - 3)))
    return OVoxel.from_mesh(made, SIDE, materials=False).grid


def task(grid: VoxelGrid, seed: int, options: argparse.Namespace) -> tuple[SparseTensor, Tensor, Tensor]:
    """Tokens, the rows that ask, and their answers."""
    chance = torch.Generator().manual_seed(seed)
    blocks = partition(grid, BLOCK)
    place = torch.full((len(blocks),), -1)
    for low, high in zip(blocks.offsets[:-1].tolist(), blocks.offsets[1:].tolist(), strict=True):
        full = low + blocks.counts[low:high].argsort(descending=True)[: (high - low) // 2]  # places in blocks with many cells
        place[full[torch.randperm(len(full), generator=chance)[: options.places]]] = torch.arange(options.places)
    own = place[blocks.block.long()]
    asked = torch.where(own < 0, torch.randint(options.places, own.shape, generator=chance), own)
    key = torch.randint(options.keys, own.shape, generator=chance)
    table = torch.randint(options.values, (grid.batch_size, options.places, options.keys), generator=chance)
    value = table[grid.batch.long(), asked, key]
    asks = own < 0
    told = one_hot(value, options.values) * ~asks[:, None]
    feats = torch.cat((one_hot(asked, options.places), one_hot(key, options.keys), told, asks[:, None].float()), 1)
    rows = asks.nonzero()[:, 0]
    return SparseTensor(grid, feats), rows, value[rows]


def one_hot(labels: Tensor, count: int) -> Tensor:
    return nn.functional.one_hot(labels, count).float()


def train(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network; returns its curve on held-out shells."""
    torch.manual_seed(options.seed)
    grids = [shells(i * options.batch, options.batch) for i in range(options.batches)]
    held_out = shells(HELD_OUT, 2 * options.batch)
    network = Network(name, options.places + options.keys + options.values + 1, options.values, options.top_k)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, options.steps, pct_start=0.1, cycle_momentum=False)
    curve: list[dict[str, float]] = []
    start = time.process_time()
    for step in tqdm(range(options.steps), desc=name, disable=None):
        x, rows, answers = task(grids[step % len(grids)], options.seed * HELD_OUT * 10 + step, options)
        loss = nn.functional.cross_entropy(network(x)[rows], answers)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % max(1, options.steps // 20) == 0 or step + 1 == options.steps:
            curve.append({"step": step + 1, "train_loss": loss.item(), **score(network, held_out, options)})
    return {
        "name": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "cpu_s": time.process_time() - start,
        **curve[-1],
        "curve": curve,
    }


@torch.no_grad()
def score(network: Network, grid: VoxelGrid, options: argparse.Namespace) -> dict[str, float]:
    """Means over some tasks: the answers of one are few."""
    losses, right = [], []
    for seed in range(HELD_OUT, HELD_OUT + 4):
        x, rows, answers = task(grid, seed, options)
        logits = network(x)[rows]
        losses.append(nn.functional.cross_entropy(logits, answers).item())
        right.append((logits.argmax(1) == answers).float().mean().item())
    return {"loss": statistics.fmean(losses), "accuracy": statistics.fmean(right)}


def draw(results: list[dict[str, Any]], path: Path, chance: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for result in results:
        steps, accuracy = ([point[key] for point in result["curve"]] for key in ("step", "accuracy"))
        axes.plot(steps, accuracy, label=result["name"], linestyle="--" if result["name"] == FULL else "-")
    axes.axhline(chance, color="0.6", linewidth=0.8)
    axes.text(results[0]["curve"][-1]["step"], chance, "guessing", va="top", ha="right", color="0.4", fontsize=8)
    axes.set(xlabel="step", ylabel="right answers on held-out shells", ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", nargs="*", default=[*BRANCHES, FULL], choices=[*BRANCHES, FULL])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=2, help="shells a step")
    parser.add_argument("--batches", type=int, default=8, help="different batches of shells; their values are new in each step")
    parser.add_argument("--places", type=int, default=6)
    parser.add_argument("--keys", type=int, default=4)
    parser.add_argument("--values", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="with one the curves do not depend on the machine's cores")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figure", type=Path, help="draw the curves into this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    settings = {k: v for k, v in vars(options).items() if k not in ("json", "figure", "name")}
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {options.threads} used",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "numba": numba.__version__},
        "settings": {**settings, "side": SIDE, "block": BLOCK, "width": WIDTH, "heads": HEADS},
        "results": [],
    }
    for name in options.name:
        result = train(name, options)
        tqdm.write(
            f"{name:34} right {result['accuracy']:.3f}   loss {result['loss']:.3f}   "
            f"{result['parameters']:,} parameters   {result['cpu_s']:.0f} CPU s"
        )
        report["results"].append(result)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(report, indent=1) + "\n")
        if options.figure:
            draw(report["results"], options.figure, 1 / options.values)
    return report


if __name__ == "__main__":
    main()
