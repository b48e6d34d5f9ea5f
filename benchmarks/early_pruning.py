"""Early pruning in TRELLIS.2's shape decoder: rows and peak memory of each step to a finer level, with and without, at equal output.

    OMP_WAIT_POLICY=passive python benchmarks/early_pruning.py                  # the steps of a 512³ surface
    python benchmarks/early_pruning.py --resolution 256 --widths 128 64 32      # other networks

A step of the released decoder (random weights, random features) goes from the cells of a real surface's level to the
children that a mask keeps, the true ones. In three ways, with the same weights and the same results:

- early: voxgen's `EarlyPruningUpsampler`. The mask comes first; nothing is computed for a child that it rejects.
- late: features for all eight children of every cell (first convolution, rearrangement, norm, activation, shortcut); then
  the rejected ones are dropped, and the second convolution runs over the others.
- masked: as late, but rows are dropped at the very end; until then rejected ones are set to zero, and the second
  convolution runs over all.

Rows are those of the widest level that features are made for. Memory is the peak of one call above what is held before it:
grids, the neighbour tables of the children and the result included, the step's input and weights not. Each variant runs in a
process of its own, in which the C library gives every large piece of memory back at once, so that the peak is that of the
tensors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, cast

import torch
from conv import DATA, best, extra_bytes
from sc_vae import surface
from torch import Tensor
from torch.nn import functional as F

import voxgen
from voxgen.core import SparseTensor
from voxgen.layers import EarlyPruningUpsampler, ResidualUpsample, repeat_channels
from voxgen.ops.conv import sparse_conv
from voxgen.ops.neighbors import neighbor_table
from voxgen.ops.resample import Structure, channel_to_space
from voxgen.testing.grids import fresh

WAYS = ("early", "late", "masked")
RELEASED = (1024, 512, 256, 128, 64)
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0", "MALLOC_MMAP_MAX_": "1000000"}
"""Environment in which glibc maps each piece of memory apart."""


def early(step: EarlyPruningUpsampler, x: SparseTensor, mask: Tensor) -> SparseTensor:
    return step(x, mask=mask).x


def late(step: EarlyPruningUpsampler, x: SparseTensor, mask: Tensor) -> SparseTensor:
    up = cast(ResidualUpsample, step.upsample)
    h = F.silu(up.norm2(_all_children(up, x).view(8 * len(x), -1)), inplace=True)  # rows parent by parent, child by child
    structure = Structure.of_mask(x.grid, mask)
    kept = structure.parent.long() * 8 + structure.slot
    h = up.conv2(SparseTensor(structure.children, h[kept]))
    shortcut = repeat_channels(x.feats.view(8 * len(x), -1), h.channels)
    return h.with_feats(h.feats.add_(shortcut[kept]))


def masked(step: EarlyPruningUpsampler, x: SparseTensor, mask: Tensor) -> SparseTensor:
    up = cast(ResidualUpsample, step.upsample)
    everything, kept = Structure.of_mask(x.grid), Structure.of_mask(x.grid, mask)
    h = channel_to_space(_all_children(up, x), everything)
    h = F.silu(up.norm2(h), inplace=True)
    there = mask[everything.parent.long(), everything.slot.long()]
    h = up.conv2(SparseTensor(everything.children, h.mul_(there[:, None])))
    own = channel_to_space(x.feats, everything)
    h = h.feats.unflatten(1, (own.shape[1], -1)).add_(own[:, :, None]).flatten(1)
    return SparseTensor(kept.children, h[there])


def _all_children(up: ResidualUpsample, x: SparseTensor) -> Tensor:
    """(p, 8 · co): the first convolution for all children."""
    h = F.silu(up.norm1(x.feats), inplace=True)
    return sparse_conv(h, up.conv1.weight, up.conv1.bias, neighbor_table(x.grid))


CALLS: dict[str, Callable[[EarlyPruningUpsampler, SparseTensor, Tensor], SparseTensor]] = {"early": early, "late": late, "masked": masked}


def step_of(widths: tuple[int, int], cells: int) -> tuple[EarlyPruningUpsampler, Tensor]:
    """The step's layers and input features; its last convolution not zero, as training leaves it."""
    torch.manual_seed(0)
    step = EarlyPruningUpsampler(*widths).eval()
    cast(ResidualUpsample, step.upsample).conv2.reset_parameters()
    return step, torch.randn(cells, widths[0])


@torch.no_grad()
def measure(way: str, widths: tuple[int, int], structure: Structure, options: argparse.Namespace) -> dict[str, Any]:
    """Memory, time, and a fingerprint of the result by which ways are compared."""
    step, feats = step_of(widths, len(structure.parents))
    mask = structure.mask()
    grid = fresh(structure.parents)
    neighbor_table(grid)  # the blocks before the step have made it

    def call() -> SparseTensor:
        return CALLS[way](step, SparseTensor(grid, feats), mask)

    result = call().feats
    probe = torch.randn(result.shape[1], generator=torch.Generator().manual_seed(1))
    fingerprint = (result @ probe)[:: max(1, len(result) // 4096)].tolist()
    del result
    times = {}
    extra = extra_bytes(lambda: times.update(best({way: call}, options.repeats, 0.0, "cpu", warm_up=False)[way]), "cpu", warm_up=False)
    rows = 8 * len(structure.parents) if way != "early" else len(structure.children)
    return {**times, "rows": rows, "extra_bytes": extra, "result": fingerprint}


def compare(structure: Structure, widths: tuple[int, int], level: int, options: argparse.Namespace) -> dict[str, Any]:
    """All ways at one step, each in a process of its own; their results must agree."""
    found: dict[str, Any] = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--level", str(level), "--mesh", options.mesh]
        command += ["--resolution", str(options.resolution), "--repeats", str(options.repeats), "--widths", *map(str, options.widths)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ALLOCATOR)
        found[way] = json.loads(done.stdout)
    truth = torch.tensor(found["early"].pop("result"))
    for way in WAYS[1:]:
        other = torch.tensor(found[way].pop("result"))
        found[way]["difference"] = float((other - truth).abs().max() / truth.abs().max())
        if found[way]["difference"] > 1e-5:
            raise RuntimeError(f"{way} differs from early by {found[way]['difference']:.2g}.")
    print(f"\n{widths[0]} → {widths[1]} channels, {len(structure.parents):,} cells → {len(structure.children):,}")
    for way, entry in found.items():
        saved = ""
        if way != "early":
            fewer = 1 - found["early"]["rows"] / entry["rows"]
            less = 1 - found["early"]["extra_bytes"] / entry["extra_bytes"]
            saved = f"   early: {fewer:.1%} fewer rows, {less:.1%} less memory"
        print(f"  {way:7s}{entry['rows']:11,} rows {entry['extra_bytes'] / 1e6:9,.1f} MB {entry['cpu_s']:8.2f} s of CPU{saved}")
    return {"widths": widths, "parents": len(structure.parents), "children": len(structure.children), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mesh = "suzanne.obj" if (DATA / "suzanne.obj").exists() else "ball"
    parser.add_argument("--mesh", default=mesh, help="a file, relative to $VOXGEN_DATA; 'ball': a hollow ball")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--widths", type=int, nargs="*", default=list(RELEASED), help="channels of the levels, coarse → fine")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--level", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, structures = surface(options.mesh, options.resolution, len(options.widths) - 1)
    if options.way:
        widths = options.widths[options.level], options.widths[options.level + 1]
        print(json.dumps(measure(options.way, widths, structures[options.level], options)))
        return
    steps = [compare(s, (options.widths[i], options.widths[i + 1]), i, options) for i, s in enumerate(structures)]
    total = {way: sum(step[way]["rows"] for step in steps) for way in WAYS}
    peak = {way: max(step[way]["extra_bytes"] for step in steps) for way in WAYS}
    print(f"\nall steps: {1 - total['early'] / total['late']:.1%} fewer rows")
    for way in WAYS[1:]:
        print(f"highest peak of the steps: {1 - peak['early'] / peak[way]:.1%} less than {way}")
    if options.json:
        results = {
            "date": date.today().isoformat(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__},
            "mesh": options.mesh,
            "resolution": options.resolution,
            "load": os.getloadavg(),
            "steps": steps,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
