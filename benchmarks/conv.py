"""Submanifold 3³ convolution on shells of cells: share of torch's own matrix-product rate, memory, and neighbour tables.

    OMP_WAIT_POLICY=passive python benchmarks/conv.py                      # bunny of $VOXGEN_DATA, else a hollow ball
    python benchmarks/conv.py --resolution 128 256 512 --channels 16 32 64 128 256 --json conv.json
    python benchmarks/conv.py --engine numba torch --threads 1             # engines against each other, one thread
    python benchmarks/conv.py --device cuda --dtype bfloat16               # on a GPU

"Useful" operations are 2 · pairs · C · C (pairs of cells that exist), three times that with both gradients. The roof is the
best `torch.mm` of the same run over the shapes (4096 × 27C × C) and (65536 × C × C), measured in turns with the convolution,
so that a busy moment hits both; the share is useful operations a second over the roof, and may exceed 100 % where torch's
product is not the machine's limit. Wall shares are best against best; CPU shares compare CPU seconds of all threads, which
other processes disturb less. Extra memory is the peak of the process above what it held before, less the results, over
the size of the features. Where spconv is installed, its CPU build runs the same layer (its gradient needs CUDA).
The first, unmeasured call loads the compiled code.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import torch
from torch import Tensor

import voxgen
from voxgen.core import VoxelGrid
from voxgen.io import load_mesh
from voxgen.ops.conv import sparse_conv
from voxgen.ops.conv.layouts import to_layout
from voxgen.ops.lookup import block_index
from voxgen.ops.neighbors import NeighborTable, neighbor_table
from voxgen.testing.grids import fresh
from voxgen.testing.shells import shell

DATA = Path(os.environ.get("VOXGEN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
Times = dict[str, dict[str, float]]


def cells(mesh: str | None, resolution: int) -> VoxelGrid:
    """The cells around a surface: of a mesh in $VOXGEN_DATA, else of a hollow ball."""
    if mesh is None:
        return shell(resolution=resolution).grid
    from voxgen.representations import OVoxel

    return fresh(OVoxel.from_mesh(load_mesh(DATA / mesh), resolution, materials=False).grid)


def best(calls: dict[str, Callable[[], object]], repeats: int, budget: float, device: str, warm_up: bool = True) -> Times:
    """Best wall and CPU seconds of each call, in turns, until the repeats or the seconds of the budget are spent."""
    found: Times = {name: {"wall_s": float("inf"), "cpu_s": float("inf")} for name in calls}
    for call in calls.values() if warm_up else ():
        call()
    end = time.perf_counter() + budget
    for turn in range(repeats):
        if turn >= 3 and time.perf_counter() > end:
            break
        for name, call in calls.items():
            wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            wait(device)
            found[name]["wall_s"] = min(found[name]["wall_s"], time.perf_counter() - wall)
            found[name]["cpu_s"] = min(found[name]["cpu_s"], time.process_time() - cpu)
    return found


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def extra_bytes(call: Callable[[], object], device: str, warm_up: bool = True) -> int | None:
    """Peak memory of a call above what is held before it; None where the system does not tell."""
    if warm_up:
        call()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    _give_back_freed()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _kilobytes(status, "VmRSS")
    call()
    return 1024 * max(0, _kilobytes(status, "VmHWM") - before)


def _give_back_freed() -> None:
    """What was freed but is held by the C library would hide what a call takes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def roofs(channels: int, dtype: torch.dtype, device: str) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """torch.mm of the two shapes, and their operations."""
    calls: dict[str, Callable[[], object]] = {}
    work: dict[str, float] = {}
    for name, rows, depth in (("mm windows", 4096 if channels <= 128 else 2048, 27 * channels), ("mm pairs", 65536, channels)):
        left, right = (torch.randn(*shape, device=device).to(dtype) for shape in ((rows, depth), (depth, channels)))
        out = torch.empty(rows, channels, dtype=dtype, device=device)
        calls[name] = lambda left=left, right=right, out=out: torch.mm(left, right, out=out)
        work[name] = 2.0 * rows * depth * channels
    return calls, work


def layers(
    table: NeighborTable, feats: Tensor, weight: Tensor, engines: list[str], backward: bool
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Forward, and forward with both gradients, by engine; and their useful operations."""
    calls: dict[str, Callable[[], object]] = {}
    work: dict[str, float] = {}
    useful = 2.0 * table.num_pairs() * weight.shape[1] * weight.shape[2]
    x, w = feats.detach().requires_grad_(), weight.detach().requires_grad_()
    upstream = torch.randn_like(feats)
    for engine in engines:

        def forward(engine: str = engine) -> Tensor:
            with torch.no_grad():
                return sparse_conv(feats, weight, None, table, backend=engine)

        def both(engine: str = engine) -> Any:
            return torch.autograd.grad(sparse_conv(x, w, None, table, backend=engine), (x, w), upstream)

        calls[f"forward: {engine}"], work[f"forward: {engine}"] = forward, useful
        if backward:
            calls[f"both: {engine}"], work[f"both: {engine}"] = both, 3 * useful
    return calls, work


def against_spconv(table: NeighborTable, feats: Tensor, weight: Tensor) -> dict[str, Callable[[], object]]:
    """The same layer by spconv's native algorithm, with pair lists made beforehand, and with them to make; and ours likewise.

    Its result is checked with one thread: with several its CPU build (2.3.8) adds to one row from two threads at a time, and
    some rows come out wrong.
    """
    import spconv.pytorch as spconv  # pyright: ignore[reportMissingImports]
    from spconv.core import ConvAlgo  # pyright: ignore[reportMissingImports]

    grid, threads = table.in_grid, torch.get_num_threads()
    layer = spconv.SubMConv3d(weight.shape[1], weight.shape[2], 3, bias=False, indice_key="same", algo=ConvAlgo.Native)
    with torch.no_grad():
        layer.weight.copy_(to_layout(weight, "spconv"))
        torch.set_num_threads(1)
        known = layer(spconv.SparseConvTensor(feats, grid.coords, list(grid.resolution), grid.batch_size))
        torch.set_num_threads(threads)
    gap = (known.features - sparse_conv(feats, weight, None, table)).abs().max() / known.features.abs().max()
    if float(gap) > 1e-4:
        raise RuntimeError(f"spconv and voxgen disagree by {float(gap):.2g}")
    ready = known.replace_feature(feats)  # the pair lists are in its cache

    def theirs(new: bool) -> object:
        tensor = spconv.SparseConvTensor(feats, grid.coords, list(grid.resolution), grid.batch_size) if new else ready
        with torch.no_grad():
            return layer(tensor).features

    return {
        "forward: spconv": lambda: theirs(False),
        "map, forward: spconv": lambda: theirs(True),
        "map, forward: numba": lambda: sparse_conv(feats, weight, None, neighbor_table(fresh(grid)), backend="numba"),
    }


def measure_layer(table: NeighborTable, channels: int, options: argparse.Namespace) -> dict[str, Any]:
    dtype, device = getattr(torch, options.dtype), options.device
    feats = torch.randn(len(table.in_grid), channels, device=device).to(dtype)
    weight = (torch.randn(27, channels, channels, device=device) / (27 * channels) ** 0.5).to(dtype)
    calls, work = layers(table, feats, weight, options.engine, not options.no_backward)
    ceiling, ceiling_work = roofs(channels, dtype, device)
    if device == "cpu" and dtype == torch.float32 and importlib.util.find_spec("spconv"):
        peers = against_spconv(table, feats, weight)
        calls |= peers
        work |= dict.fromkeys(peers, work[f"forward: {options.engine[0]}"])
    times = best(ceiling | calls, options.repeats, options.budget, device)
    roof = {clock: max(ceiling_work[n] / times[n][clock] for n in ceiling) for clock in ("wall_s", "cpu_s")}
    result: dict[str, Any] = {"roof_gflops": roof["wall_s"] / 1e9}
    print(f"  C = {channels}: roof {roof['wall_s'] / 1e9:.0f} GFLOP/s")
    size = feats.numel() * feats.element_size()
    for name, call in calls.items():
        own = work[name] / times[name]["wall_s"]
        entry = {
            **times[name],
            "gflops": own / 1e9,
            "share": own / roof["wall_s"],
            "cpu_share": work[name] / times[name]["cpu_s"] / roof["cpu_s"],
        }
        extra = extra_bytes(call, device)
        if extra is not None:
            results = size + ((size + weight.numel() * weight.element_size()) if name.startswith("both") else 0)  # output and gradients
            entry["extra_memory"] = max(0, extra - results) / size
        result[name] = entry
        memory = f"{entry['extra_memory']:5.2f} × input" if "extra_memory" in entry else ""
        print(
            f"    {name:22s} {1e3 * times[name]['wall_s']:9.1f} ms {own / 1e9:7.0f} GFLOP/s  {entry['share']:5.0%} of the roof "
            f"({entry['cpu_share']:5.0%} by CPU time)  extra memory {memory}"
        )
    return result


def measure_tables(grid: VoxelGrid, options: argparse.Namespace) -> Times:
    """Building the block index and the 27-neighbour table, by engine, on a grid without tables."""
    calls: dict[str, Callable[[], object]] = {}
    for engine in ("numba", "torch") if options.device == "cpu" else ("torch",):
        indexed = fresh(grid)
        block_index(indexed, backend=engine)

        def table(engine: str = engine, indexed: VoxelGrid = indexed) -> NeighborTable:
            indexed._tables = {k: v for k, v in indexed._tables.items() if k[0] == "block_index"}  # pyright: ignore
            return neighbor_table(indexed, backend=engine)

        calls[f"index: {engine}"] = lambda engine=engine: block_index(fresh(grid), backend=engine)
        calls[f"table: {engine}"] = table
    times = best(calls, options.repeats, options.budget, options.device)
    for name, value in times.items():
        print(f"  {name:14s} {1e3 * value['wall_s']:8.1f} ms, {1e9 * value['wall_s'] / max(1, len(grid)):6.1f} ms a million cells")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bunny = "bunny.obj" if (DATA / "bunny.obj").exists() else None
    parser.add_argument("--mesh", default=bunny, help="a file, relative to $VOXGEN_DATA; 'ball': a hollow ball")
    parser.add_argument("--resolution", type=int, nargs="*", default=[128, 256])
    parser.add_argument("--channels", type=int, nargs="*", default=[16, 32, 64, 128, 256])
    parser.add_argument("--engine", nargs="*", help="default: numba and torch on a CPU, triton on a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a group of calls, after three turns")
    parser.add_argument("--no-backward", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    options.engine = options.engine or (["numba", "torch"] if options.device == "cpu" else ["triton"])
    if options.threads:
        torch.set_num_threads(options.threads)
        numba.set_num_threads(options.threads)
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else llvm.get_host_cpu_name(),
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "numba": numba.__version__},
        "mesh": options.mesh or "hollow ball",
        "dtype": options.dtype,
    }
    for resolution in options.resolution:
        grid = cells(None if options.mesh in (None, "ball") else options.mesh, resolution).to(options.device)
        table = neighbor_table(grid)
        print(f"\n{results['mesh']} at {resolution}³: {len(grid):,} cells, {table.num_pairs() / max(1, len(grid)):.2f} neighbours each")
        entry: dict[str, Any] = {"cells": len(grid), "pairs": table.num_pairs(), "tables": measure_tables(grid, options)}
        for channels in options.channels:
            entry[f"C={channels}"] = measure_layer(table, channels, options)
        results[str(resolution)] = entry
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
