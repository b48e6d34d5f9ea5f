"""Spatial sparse attention against full attention on shells of tokens: time forward and backward, by branch, and memory.

    OMP_WAIT_POLICY=passive python benchmarks/attention.py                         # 2k, 8k and 16k tokens, numba against SDPA
    python benchmarks/attention.py --tokens 8192 --top-k 32 --compression 4        # another setting
    python benchmarks/attention.py --tokens 2048 --masked                          # also SDPA with a dense mask
    python benchmarks/attention.py --device cuda --dtype float16 --tokens 8192 32768 131072

Tokens are the latent cells of a sphere's shell (the shape of real geometry), scaled to the wanted number. Queries and keys are
smooth functions of the place with noise (`--noise`), because how much neighbouring queries share decides the time; never
uniform random tokens. Full attention is torch's `scaled_dot_product_attention` on the same heads (grouped keys), in
turns with ours; "masked" computes the selection branch with a dense boolean mask. "Work" is the ratio of
multiply-adds: keys that a query sees in full attention over those that it sees in all branches, with the scores' second pass.
On a CPU memory is the peak of a process of its own above what it held before the call, forward and backward, gradients
included; on a GPU it is what torch reports. The first, unmeasured call loads the compiled code.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numba
import torch
from torch import Tensor

import voxgen
from voxgen.core import VoxelGrid
from voxgen.ops.block_attention import compression_attention, selection_attention, window_attention
from voxgen.ops.block_topk import block_topk
from voxgen.ops.blocks import SSAPlan
from voxgen.ops.resample import pool
from voxgen.ops.spatial_sparse_attention import spatial_sparse_attention
from voxgen.testing.grids import fresh

RADIUS = 0.475
THICKNESS = 1.06
"""Cells on each side of the surface: a band of four voxels at 1024³ touches this many latent cells at 128³."""


def shell(tokens: int) -> VoxelGrid:
    """The latent cells of a sphere's band, about as many as wanted."""
    side = max(8, round((tokens / (8 * torch.pi * RADIUS**2 * THICKNESS)) ** 0.5))
    axis = torch.arange(side, dtype=torch.int32)
    cells = torch.cartesian_prod(axis, axis, axis)
    distance = ((cells + 0.5) / side - 0.5).norm(dim=1) - RADIUS
    cells = cells[distance.abs() * side <= THICKNESS]
    return VoxelGrid.from_sorted(torch.nn.functional.pad(cells, (1, 0)).int(), resolution=side, batch_size=1)


def operands(plan: SSAPlan, options: argparse.Namespace) -> list[Tensor]:
    """q, k, v, k_c, v_c, gate that want gradients."""
    generator = torch.Generator().manual_seed(0)
    place = (plan.grid.cells.cpu() + 0.5) / plan.grid.resolution[0] - 0.5
    waves = torch.cat([f(place * scale) for f in (torch.sin, torch.cos) for scale in (3, 7, 13, 29)], 1)

    def smooth(heads: int) -> Tensor:
        weight = torch.randn(waves.shape[1], heads * options.head_dim, generator=generator) / waves.shape[1] ** 0.5 * 3
        rows = waves @ weight
        return rows + options.noise * rows.std() * torch.randn(rows.shape, generator=generator)

    q, k, v = smooth(options.heads), smooth(options.key_heads), smooth(options.key_heads)
    structure = SSAPlan.build(fresh(plan.grid).to("cpu"), compression_block=options.compression, selection_block=options.selection)
    rows = [q, k, v, *(pool(t, structure.compression, "mean_plus_one") for t in (k, v))]
    gate = torch.rand(len(q), 3, generator=generator)
    shaped = [t.view(len(t), -1, options.head_dim) for t in rows]
    dtype = getattr(torch, options.dtype)
    return [t.to(options.device, dtype).requires_grad_() for t in [*shaped, gate]]


def calls_of(plan: SSAPlan, tensors: list[Tensor], options: argparse.Namespace) -> dict[str, Callable[[], tuple[Tensor, list[Tensor]]]]:
    """Each gives its output and what it can be differentiated by."""
    q, k, v, k_c, v_c, gate = tensors
    engine, shift = options.engine, options.window // 2

    def full() -> tuple[Tensor, list[Tensor]]:
        a, b, c = (t.transpose(0, 1)[None] for t in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(a, b, c, enable_gqa=True)[0].transpose(0, 1), [q, k, v]

    def sparse() -> tuple[Tensor, list[Tensor]]:
        out = spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, options.top_k, shift=shift, backend=engine)
        return out, [q, k, v, k_c, v_c, gate]

    with torch.no_grad():
        lse = compression_attention(q, k_c, v_c, plan, backend=engine).lse
        chosen = block_topk(q, k_c, lse, plan, options.top_k, backend=engine)
    calls: dict[str, Callable[[], tuple[Tensor, list[Tensor]]]] = {
        "full attention (SDPA)": full,
        "spatial sparse attention": sparse,
        "  compression": lambda: (compression_attention(q, k_c, v_c, plan, backend=engine).out, [q, k_c, v_c]),
        "  choice": lambda: (block_topk(q, k_c, lse, plan, options.top_k, backend=engine), []),
        "  selection": lambda: (selection_attention(q, k, v, chosen, plan.selection, backend=engine).out, [q, k, v]),
        "  window": lambda: (window_attention(q, k, v, plan.windows(shift), backend=engine).out, [q, k, v]),
    }
    if options.masked:

        def masked() -> tuple[Tensor, list[Tensor]]:
            sees = torch.zeros(len(k_c[0]), len(q), len(plan.selection) + 1, dtype=torch.bool, device=q.device)
            sees.scatter_(2, torch.where(chosen < 0, len(plan.selection), chosen).long(), True)
            mask = sees[..., plan.selection.block.long()].repeat_interleave(options.heads // options.key_heads, 0)
            a, b, c = (t.transpose(0, 1)[None] for t in (q, k, v))
            out = torch.nn.functional.scaled_dot_product_attention(a, b, c, attn_mask=mask[None], enable_gqa=True)[0]
            return out.transpose(0, 1), [q, k, v]

        calls["selection as masked SDPA"] = masked
    return calls


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(call: Callable[[], tuple[Tensor, list[Tensor]]], repeats: int, device: str) -> dict[str, float]:
    """Best forward and backward time of several, in seconds."""
    best = {"forward_s": float("inf"), "backward_s": float("inf")}
    for _ in range(repeats):
        start = clock(device)
        out, inputs = call()
        middle = clock(device)
        best["forward_s"] = min(best["forward_s"], middle - start)
        if not inputs:
            best["backward_s"] = 0.0
            continue
        upstream = torch.ones_like(out)
        start = clock(device)
        torch.autograd.grad(out, inputs, upstream)
        best["backward_s"] = min(best["backward_s"], clock(device) - start)
    return best


def peak_bytes(name: str, tokens: int, options: argparse.Namespace) -> int:
    """Peak memory of one forward and backward call above what was held before, in a process of its own."""
    arguments = [f"--{key.replace('_', '-')}={getattr(options, key)}" for key in SETTINGS]
    command = [sys.executable, __file__, *arguments, f"--tokens={tokens}", f"--peak={name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def print_peak(name: str, tokens: int, options: argparse.Namespace) -> None:
    plan = SSAPlan.build(shell(tokens).to(options.device), **sides(options))
    small = SSAPlan.build(shell(300).to(options.device), **sides(options))
    for warm_up in (True, False):
        current = small if warm_up else plan
        call = calls_of(current, operands(current, options), options)[name]
        before = held(options.device)
        out, inputs = call()
        torch.autograd.grad(out, inputs, torch.ones_like(out))
    print(held(options.device, peak=True) - before)


def held(device: str, peak: bool = False) -> int:
    """Bytes that the process holds; its peak since the last call that asked for what it holds."""
    if device == "cuda":
        if not peak:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    field = "VmHWM" if peak else "VmRSS"
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return 1024 * int(line.split()[1])


def sides(options: argparse.Namespace) -> dict[str, int]:
    return {"compression_block": options.compression, "selection_block": options.selection, "window": options.window}


def work_ratio(plan: SSAPlan, tensors: list[Tensor], options: argparse.Namespace) -> float:
    """Keys of full attention over keys of all branches; the choice multiplies queries and keys once more, which is half."""
    q, _, _, k_c, v_c, _ = tensors
    with torch.no_grad():
        lse = compression_attention(q, k_c, v_c, plan, backend=options.engine).lse
        chosen = block_topk(q, k_c, lse, plan, options.top_k, backend=options.engine)
    counts = torch.nn.functional.pad(plan.selection.counts, (0, 1))
    selected = float(counts[chosen.long()].sum(2).double().mean())
    windows = plan.windows(options.window // 2).counts.double()
    inside = float((windows**2).sum() / windows.sum())
    return len(q) / (1.5 * len(plan.compressed) + selected + inside)


def run(tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    grid = shell(tokens).to(options.device)
    plan = SSAPlan.build(grid, **sides(options))
    start = clock(options.device)
    plan = SSAPlan.build(fresh(grid), **sides(options))
    plan.windows(options.window // 2)
    planned = clock(options.device) - start
    tensors = operands(plan, options)
    calls = calls_of(plan, tensors, options)
    small = SSAPlan.build(shell(300).to(options.device), **sides(options))
    for call in calls_of(small, operands(small, options), options).values():
        measure(call, 1, options.device)
    ratio = work_ratio(plan, tensors, options)
    mean = len(grid) / len(plan.selection)
    print(f"\n{len(grid):,} tokens, {len(plan.selection):,} blocks of {mean:.0f}, {len(plan.compressed):,} compression tokens")
    print(f"  {ratio:.1f} times less work than full attention; plan in {1e3 * planned:.1f} ms")
    result: dict[str, Any] = {"tokens": len(grid), "blocks": len(plan.selection), "work_ratio": ratio, "plan_s": planned}
    for name, call in calls.items():
        result[name.strip()] = entry = measure(call, options.repeats, options.device)
        line = f"  {name:26s} forward {1e3 * entry['forward_s']:9.1f} ms   backward {1e3 * entry['backward_s']:9.1f} ms"
        if name in ("full attention (SDPA)", "spatial sparse attention") and not options.no_memory:
            entry["peak_bytes"] = peak_bytes(name, tokens, options)
            line += f"   peak memory {entry['peak_bytes'] / 2**20:8.0f} MiB"
        print(line, flush=True)
    full, ours = result["full attention (SDPA)"], result["spatial sparse attention"]
    both = (full["forward_s"] + full["backward_s"]) / (ours["forward_s"] + ours["backward_s"])
    forward, backward = (full[k] / ours[k] for k in ("forward_s", "backward_s"))
    print(f"  faster than full attention: forward {forward:.1f}×, backward {backward:.1f}×, both {both:.1f}×")
    result["speedup"] = {"forward": forward, "backward": backward, "both": both}
    return result


SETTINGS = ("heads", "key_heads", "head_dim", "top_k", "compression", "selection", "window", "noise", "engine", "device", "dtype")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="*", default=[2048, 8192, 16384])
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--compression", type=int, default=8, help="side of a compression block; 8 in v1.1, 4 in v1.0 and the paper")
    parser.add_argument("--selection", type=int, default=8)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--masked", action="store_true", help="also the selection branch as SDPA with a dense mask")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(options.peak, options.tokens[0], options)
        return
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "numba": numba.__version__},
        "settings": {key: getattr(options, key) for key in SETTINGS},
        "runs": [run(tokens, options) for tokens in options.tokens],
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
