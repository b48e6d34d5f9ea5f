"""Spatial sparse attention against full attention: the error as each token sees more blocks, and the time as tokens grow.

Run: python examples/ssa_vs_full_attention.py [--mesh asset.glb] [--tokens-a-side 16 32 48 64] [--out out]   (needs matplotlib)
Expect: the error falls with every block and is rounding once all are seen; the best-scored blocks beat as many random ones;
time grows about linearly with the tokens where full attention's grows with their square.

Tokens are the latent cells of a shape, as Direct3D-S2 makes them: the 8³-cell blocks that its SDF band touches. Queries, keys
and values are smooth functions of the place with noise, since there is no trained model here; keys of the summaries are means
of a block's keys. The error is that of the selection branch alone, ‖selection − full‖ / ‖full‖ over all tokens and heads:
what a trained model gives also holds a window and summaries, weighted by its gate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from voxgen import demo
from voxgen.attention import SSAPlan, full_attention, spatial_sparse_attention
from voxgen.core import TriMesh, VoxelGrid
from voxgen.io import load_mesh
from voxgen.ops.block_attention import compression_attention, selection_attention, window_attention
from voxgen.ops.block_topk import block_topk
from voxgen.ops.resample import Structure, pool
from voxgen.representations import SparseSDF

HEADS, KEY_HEADS, HEAD_CHANNELS = 8, 2, 32
TOP_K = 8
"""Blocks a token sees where time is measured, as in the released models."""


class Found(NamedTuple):
    """Errors by number of blocks, one list a curve; error of the window alone; seconds by number of tokens."""

    top_k: list[int]
    errors: dict[str, list[float]]
    window: float
    tokens: list[int]
    seconds: dict[str, list[float]]


def latent_cells(mesh: TriMesh, side: int) -> VoxelGrid:
    """The tokens of a shape on a grid of side³."""
    return Structure.of_children(SparseSDF.from_mesh(mesh, 8 * side, sign="unsigned").grid, 8).parents


def operands(grid: VoxelGrid, sharpness: float, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (n, heads, channels); sharpness is the standard deviation of a logit."""
    chance = torch.Generator().manual_seed(0)
    place = (grid.cells + 0.5) / grid.resolution[0] - 0.5
    waves = torch.cat([f(place * scale) for f in (torch.sin, torch.cos) for scale in (3, 7, 13, 29)], 1)

    def project(heads: int) -> Tensor:
        rows = waves @ torch.randn(waves.shape[1], heads * HEAD_CHANNELS, generator=chance)
        rows = rows + noise * rows.std() * torch.randn(rows.shape, generator=chance)
        return ((rows - rows.mean(0)) / rows.std(0)).unflatten(1, (heads, HEAD_CHANNELS))

    return project(HEADS) * sharpness, project(KEY_HEADS), project(KEY_HEADS)


def summaries(plan: SSAPlan, rows: Tensor) -> Tensor:
    return pool(rows.flatten(1), plan.compression, "mean").view(-1, *rows.shape[1:])


def relative_error(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())


@torch.no_grad()
def measure_errors(grid: VoxelGrid, sharpness: float, noise: float) -> tuple[list[int], dict[str, list[float]], float]:
    """How far the selection branch is from full attention."""
    q, k, v = operands(grid, sharpness, noise)
    true = full_attention(q[None], k[None], v[None])[0]
    plans = {f"best by summaries of {side}³ cells": SSAPlan.build(grid, compression_block=side) for side in (8, 4)}
    blocks = next(iter(plans.values())).selection
    top_k = sorted({min(2**i, len(blocks)) for i in range(len(blocks).bit_length() + 1)})
    chosen: dict[str, Callable[[int], Tensor]] = {}
    for name, plan in plans.items():
        k_c, v_c = summaries(plan, k), summaries(plan, v)
        lse = compression_attention(q, k_c, v_c, plan).lse
        chosen[name] = lambda count, plan=plan, k_c=k_c, lse=lse: block_topk(q, k_c, lse, plan, count)
    order = torch.rand(KEY_HEADS, len(grid), len(blocks), generator=torch.Generator().manual_seed(0)).argsort(2).int()
    chosen["random"] = lambda count: order[..., :count].sort(2).values
    errors = {
        name: [relative_error(selection_attention(q, k, v, choose(count), blocks).out, true) for count in top_k]
        for name, choose in chosen.items()
    }
    window = next(iter(plans.values())).windows()
    return top_k, errors, relative_error(window_attention(q, k, v, window).out, true)


def measure_time(grid: VoxelGrid, sharpness: float, noise: float, repeats: int = 2) -> tuple[float, float]:
    """Seconds forward and backward of full and of spatial sparse attention, the best of some in turns."""
    q, k, v = (t.requires_grad_() for t in operands(grid, sharpness, noise))
    plan = SSAPlan.build(grid)
    gate = torch.full((len(grid), 3), 0.5)

    def full() -> Tensor:
        return full_attention(q[None], k[None], v[None])[0]

    def sparse() -> Tensor:
        return spatial_sparse_attention(q, k, v, summaries(plan, k), summaries(plan, v), gate, plan, TOP_K, shift=4)

    best = {full: float("inf"), sparse: float("inf")}
    for _ in range(repeats):
        for call in best:
            start = time.perf_counter()
            out = call()
            torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
            best[call] = min(best[call], time.perf_counter() - start)
    return best[full], best[sparse]


def draw(found: Found, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
    for name, values in found.errors.items():
        left.plot(found.top_k, values, marker=".", color="0.6" if name == "random" else None, label=name)
    left.axhline(found.window, color="0.4", linewidth=0.8, linestyle="--", label="window alone")
    left.set(xscale="log", xlabel="blocks a token sees", ylabel="relative error to full attention", ylim=(0, None))
    left.set_title("selection branch")
    for name, values in found.seconds.items():
        right.plot(found.tokens, values, marker="o", label=name)
    right.set(xscale="log", yscale="log", xlabel="tokens", ylabel="s", title="forward and backward, CPU")
    right.set_xticks(found.tokens, [f"{count:,}" for count in found.tokens])
    right.set_xticks([], minor=True)
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> Found:
    """Returns what the plot shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mesh", type=Path, help="any glb, gltf, obj, ply, stl or off (default: the demo's asset)")
    parser.add_argument("--tokens-a-side", type=int, nargs="+", default=[16, 32, 48, 64], help="latent grids for the times")
    parser.add_argument("--sharpness", type=float, default=3.0, help="standard deviation of a logit; 0 is a plain mean of all tokens")
    parser.add_argument("--noise", type=float, default=0.3, help="share of queries, keys and values that is no function of the place")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--smallest", action="store_true", help="the size that tests run")
    arguments = parser.parse_args(argv)
    sides = [8, 16] if arguments.smallest else sorted(arguments.tokens_a_side)
    mesh = load_mesh(arguments.mesh) if arguments.mesh else demo.procedural_asset()
    settings = arguments.sharpness, arguments.noise

    grid = latent_cells(mesh, 16 if arguments.smallest else 48)
    top_k, errors, window = measure_errors(grid, *settings)
    print(f"{len(grid):,} tokens: relative error to full attention (window alone {window:.3f})\n{'blocks seen':>32}", end="")
    print("".join(f"{count:8}" for count in top_k))
    for name, values in errors.items():
        print(f"{name:>32}" + "".join(f"{value:8.3f}" for value in values))

    tokens: list[int] = []
    seconds: dict[str, list[float]] = {"full attention": [], "spatial sparse attention": []}
    measure_time(latent_cells(mesh, 8), *settings, repeats=1)  # loads the compiled code
    print(f"{'tokens':>10}{'full, s':>12}{'sparse, s':>12}{'ratio':>8}")
    for side in sides:
        grid = latent_cells(mesh, side)
        full, sparse = measure_time(grid, *settings)
        tokens.append(len(grid))
        for values, value in zip(seconds.values(), (full, sparse), strict=True):
            values.append(value)
        print(f"{len(grid):10,}{full:12.3f}{sparse:12.3f}{full / sparse:8.1f}")

    found = Found(top_k, errors, window, tokens, seconds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    picture = arguments.out / "ssa_vs_full_attention.png"
    draw(found, picture)
    print(f"expected: an error of rounding with all blocks; wrote {picture}")
    return found


if __name__ == "__main__":
    main()
