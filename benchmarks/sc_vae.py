"""TRELLIS.2's released shape autoencoder on a real surface: time, split by operation, share of torch's matrix products, memory.

    OMP_WAIT_POLICY=passive python benchmarks/sc_vae.py                         # 256³, some minutes on two cores
    OMP_WAIT_POLICY=passive python benchmarks/sc_vae.py --resolution 512        # the size that a 512³ asset has
    python benchmarks/sc_vae.py --model small --resolution 64                   # a quick look

The widths, depths and blocks are the released ones, the weights random (seed 0, float32 unless --dtype says otherwise), the
surface a mesh of $VOXGEN_DATA (else a hollow ball), its levels those of its O-Voxel. Measured are encoding, decoding on the
given structure, and decoding on the predicted one. Random weights predict anything, so the threshold of each level is set
to keep as many children as the true level has: as many rows, scattered, with fewer neighbours each.

Operations are those of pairs of cells that exist and of linear layers. The roof is the best `torch.mm` of the same run, in
turns with the network; the share is operations a second over it. The split is a run of its own under clocks. Memory is the
peak of the process in one call above what it held before (weights and input). Grids are fresh in each call, so their
neighbour tables are made, timed and counted in each.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from conv import DATA, best, extra_bytes, roofs
from op_split import OpSplit
from torch import nn

import voxgen
from voxgen.core import SparseTensor
from voxgen.io import load_mesh
from voxgen.layers import EarlyPruningUpsampler
from voxgen.models import DecoderOutput, SCDecoder, ShapeContent, build
from voxgen.ops.resample import Structure
from voxgen.representations import OVoxel
from voxgen.testing.grids import fresh
from voxgen.testing.shells import shell

WIDTHS = {"trellis2": (256, 512), "small": (64, 128)}
"""Channels of the matrix products that set the roof."""


def surface(mesh: str, resolution: int, steps: int) -> tuple[OVoxel, tuple[Structure, ...]]:
    """The O-Voxel of a mesh, or of a hollow ball, and its levels, coarse → fine."""
    if mesh == "ball":
        found = shell(resolution=resolution)
        ovoxel = OVoxel(found.grid, found.dual, found.intersected)
    else:
        ovoxel = OVoxel.from_mesh(load_mesh(DATA / mesh), resolution, materials=False)
    levels = [Structure.of_children(ovoxel.grid)]
    while len(levels) < steps:
        levels.append(Structure.of_children(levels[-1].parents))
    return ovoxel, tuple(reversed(levels))


def anew(structures: tuple[Structure, ...]) -> tuple[Structure, ...]:
    """The same levels on grids without tables."""
    grids = [fresh(structures[0].parents), *(fresh(s.children) for s in structures)]
    return tuple(Structure(a, b, s.factor, s.links) for a, b, s in zip(grids, grids[1:], structures, strict=False))


def set_thresholds(decoder: SCDecoder, decode: Callable[[], object], structures: tuple[Structure, ...]) -> None:
    """Let each level keep as many children as the true one has."""
    counts = iter([len(s.children) for s in structures])

    def before(step: EarlyPruningUpsampler, args: tuple[SparseTensor], _kwargs: Any) -> None:
        logits = step.predict(args[0].feats).float().flatten()
        kept = next(counts)
        step.threshold = float(logits.kthvalue(len(logits) - kept).values) if kept < len(logits) else float("-inf")

    steps = [m for m in decoder.modules() if isinstance(m, EarlyPruningUpsampler)]
    hooks = [step.register_forward_pre_hook(before, with_kwargs=True) for step in steps]  # pyright: ignore[reportArgumentType]
    decode()
    for hook in hooks:
        hook.remove()


def network(model: str, part: str, dtype: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    if model == "small":
        return getattr(build("voxgen/shape-vae-small", torso_dtype=dtype), part).to(device).eval()
    return build(f"trellis2/shape-{part}", torso_dtype=dtype).to(device).eval()


def measure(name: str, call: Callable[[], Any], options: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """Time, memory, share of torch.mm's rate and split of a call, each from the best of its runs; and its result."""
    mms: dict[str, Callable[[], object]] = {}
    work: dict[str, float] = {}
    for width in WIDTHS[options.model]:
        calls, flops = roofs(width, torch.float32 if options.device == "cpu" else getattr(torch, options.dtype), options.device)
        mms |= {f"{k}, C = {width}": v for k, v in calls.items()}
        work |= {f"{k}, C = {width}": v for k, v in flops.items()}
    rounds = [best(mms, 3, float("inf"), options.device)]
    found: dict[str, dict[str, float]] = {}
    extra = extra_bytes(lambda: found.update(best({name: call}, 1, 0.0, options.device, warm_up=False)), options.device, warm_up=False)
    if options.repeats > 1:
        rounds.append(best({name: call} | mms, options.repeats - 1, float("inf"), options.device, warm_up=False))
    with OpSplit(options.device) as split:
        output = call()
    rounds += [best(mms, 3, float("inf"), options.device, warm_up=False), found]
    rounds.append({name: {"wall_s": sum(split.wall.values()), "cpu_s": sum(split.cpu.values())}})
    times = {n: {c: min(r[n][c] for r in rounds if n in r) for c in ("wall_s", "cpu_s")} for n in (name, *mms)}
    roof = {clock: max(work[n] / times[n][clock] for n in mms) for clock in ("wall_s", "cpu_s")}
    flops = sum(split.flops.values())
    result: dict[str, Any] = {
        **times[name],
        "gflop": flops / 1e9,
        "gflops": flops / times[name]["wall_s"] / 1e9,
        "roof_gflops": roof["wall_s"] / 1e9,
        "share": flops / times[name]["wall_s"] / roof["wall_s"],
        "cpu_share": flops / times[name]["cpu_s"] / roof["cpu_s"],
        "extra_bytes": extra,
        "split": {
            title: {"wall_s": split.wall[title], "cpu_s": split.cpu[title], "gflop": split.flops.get(title, 0.0) / 1e9}
            for title in sorted(split.wall, key=lambda t: -split.cpu[t])
        },
    }
    report(name, result)
    return result, output


def report(name: str, result: dict[str, Any]) -> None:
    memory = "" if result["extra_bytes"] is None else f", peak memory {result['extra_bytes'] / 1e6:,.0f} MB more"
    print(
        f"\n{name}: {result['wall_s']:.2f} s ({result['cpu_s']:.2f} s of CPU), {result['gflop']:,.0f} GFLOP, "
        f"{result['gflops']:.0f} GFLOP/s = {result['share']:.0%} of torch.mm's {result['roof_gflops']:.0f} "
        f"({result['cpu_share']:.0%} by CPU time){memory}"
    )
    total = sum(part["cpu_s"] for part in result["split"].values())
    for title, part in result["split"].items():
        work = f"{part['gflop']:9,.0f} GFLOP {part['gflop'] / part['cpu_s']:6.0f} a CPU second" if part["gflop"] else ""
        print(f"  {title:26s}{part['wall_s']:9.3f} s {part['cpu_s']:9.3f} s of CPU {part['cpu_s'] / total:6.1%} {work}")


@torch.no_grad()
def encode(ovoxel: OVoxel, options: argparse.Namespace) -> dict[str, Any]:
    encoder = network(options.model, "encoder", options.dtype, options.device)
    x = ShapeContent().read(ovoxel)
    encoder(warm(options))
    return measure("encode", lambda: encoder(SparseTensor(fresh(x.grid), x.feats)), options)[0]


def warm(options: argparse.Namespace) -> SparseTensor:
    """A small surface, for the first call, which loads compiled code."""
    found = shell(resolution=32)
    return ShapeContent().read(OVoxel(found.grid, found.dual, found.intersected)).to(options.device)


@torch.no_grad()
def decode(structures: tuple[Structure, ...], options: argparse.Namespace) -> dict[str, Any]:
    decoder = network(options.model, "decoder", options.dtype, options.device)
    assert isinstance(decoder, SCDecoder)
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(len(structures[0].parents), decoder.config.latent_channels, generator=generator).to(options.device)
    small = warm(options)
    levels = [Structure.of_children(small.grid)]
    while len(levels) < decoder.num_steps:
        levels.append(Structure.of_children(levels[-1].parents))
    decoder(SparseTensor(levels[-1].parents, feats[:1].expand(len(levels[-1].parents), -1)), structure=levels[::-1])

    def given() -> object:
        own = anew(structures)
        return decoder(SparseTensor(own[0].parents, feats), structure=own)

    def predicted() -> DecoderOutput:
        return decoder(SparseTensor(fresh(structures[0].parents), feats))

    results = {"decode, given structure": measure("decode, given structure", given, options)[0]}
    set_thresholds(decoder, predicted, structures)
    results["decode, predicted structure"], output = measure("decode, predicted structure", predicted, options)
    results["decode, predicted structure"]["cells"] = [len(s.children) for s in output.structures]
    if not bool(output.head.feats.isfinite().all()):
        raise RuntimeError("The decoded features are not finite.")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mesh = "suzanne.obj" if (DATA / "suzanne.obj").exists() else "ball"
    parser.add_argument("--mesh", default=mesh, help="a file, relative to $VOXGEN_DATA; 'ball': a hollow ball")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--model", choices=tuple(WIDTHS), default="trellis2")
    parser.add_argument("--part", nargs="*", choices=("encode", "decode"), default=["encode", "decode"])
    parser.add_argument("--dtype", default="float32", help="of the torso")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    steps = 4 if options.model == "trellis2" else 2
    ovoxel, structures = surface(options.mesh, options.resolution, steps)
    cells = [len(structures[0].parents), *(len(s.children) for s in structures)]
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__},
        "model": options.model,
        "dtype": options.dtype,
        "mesh": options.mesh,
        "resolution": options.resolution,
        "cells": cells,
        "load_before": os.getloadavg(),
    }
    print(f"{options.mesh} at {options.resolution}³: cells by level {', '.join(f'{n:,}' for n in cells)}; load {os.getloadavg()[0]:.1f}")
    ovoxel = ovoxel.to(options.device)
    if "encode" in options.part:
        results["encode"] = encode(ovoxel, options)
        gc.collect()
    if "decode" in options.part:
        results |= decode(tuple(_moved(s, options.device) for s in structures), options)
    results["load_after"] = os.getloadavg()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def _moved(structure: Structure, device: str) -> Structure:
    if device == "cpu":
        return structure
    return Structure.between(structure.parents.to(device), structure.children.to(device))


if __name__ == "__main__":
    main()
