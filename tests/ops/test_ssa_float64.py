"""Spatial sparse attention in float64 against published sums of a closed-form input: values, choices, gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from golden import ssa  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import VoxelGrid
from voxgen.core.grid import restore
from voxgen.ops.block_attention import compression_attention, selection_attention, window_attention
from voxgen.ops.block_topk import block_topk
from voxgen.ops.blocks import SSAPlan
from voxgen.ops.spatial_sparse_attention import spatial_sparse_attention

ENGINES = ["torch", "reference"]
"""Those that compute in float64."""


class Expected(NamedTuple):
    """Sums over whole tensors; the choice as the sum of all its slots, numbered within the sample."""

    version: int
    sides: tuple[int, int, int]
    top_k: int
    shift: int
    counts: tuple[int, int]
    k_c: tuple[float, float]
    v_c: tuple[float, float]
    compressed: tuple[float, float]
    lse_compressed: float
    choice: int
    selected: tuple[float, float]
    lse_selected: float
    windowed: tuple[float, float]
    y: tuple[float, float]
    loss: float
    for_x: float
    for_weights: dict[str, float]


CASES = {
    "A": Expected(
        1, (4, 4, 8), 3, 0, (40, 40), (75.812419, 102.717195), (53.672181, 86.517881), (1185.148108, 1326.364637), 5170.549224, 16558,
        (60.370192, 16546.347615), 9810.354993, (4.126714, 16951.756989), (-26.102962, 2092.621787), -0.02079267, 328.656122,
        {"proj_q.weight": 10.687488, "proj_k.weight": 19.263706, "proj_v.weight": 154.238928, "proj_o.weight": 7192.735552,
         "gate.0.weight": 2.143698, "intra_block_pe": 0.020729},
    ),
    "B": Expected(
        2, (4, 8, 8), 2, 4, (40, 16), (-6.959874, 1047.638588), (-6.651330, 990.315547), (-173.404328, 7792.291091), 6192.239985, 5881,
        (4.512510, 16980.816060), 11905.975014, (2.001508, 16923.489850), (-33.534451, 4924.391472), 0.26126570, 555.872942,
        {"proj_q.weight": 124.411576, "proj_k.weight": 74.895437, "proj_v.weight": 139.464202, "proj_o.weight": 6596.494212,
         "gate.0.weight": 6.727576, "intra_block_pe": 14.248625},
    ),
    "C": Expected(
        2, (2, 4, 4), 5, 2, (145, 40), (-35.691734, 4875.858566), (-15.826687, 4907.480447), (-187.161476, 13975.186687), 9441.146843,
        53094, (6.689147, 17010.150432), 12305.055496, (14.190639, 16743.378830), (29.147224, 7863.411435), 0.21824436, 1492.970227,
        {"proj_q.weight": 388.159081, "proj_k.weight": 196.909220, "proj_v.weight": 313.464924, "proj_o.weight": 9133.760349,
         "gate.0.weight": 11.483667, "intra_block_pe": 11.704895},
    ),
}  # fmt: skip


def wave(shape: tuple[int, ...], phase: float, amplitude: float = 0.1, frequency: float = 0.37) -> Tensor:
    """Element i of the flat tensor is amplitude · sin(frequency · i + phase)."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (amplitude * torch.sin(frequency * index + phase)).view(shape)


def weights_of(version: int, side: int) -> dict[str, Tensor]:
    c = 32
    weights = {
        "proj_q.weight": wave((64, 64), 0.1, 0.6),
        "proj_k.weight": wave((c, 64), 0.2, 0.3),
        "proj_v.weight": wave((c, 64), 0.3, 0.3),
        "proj_o.weight": wave((64, 64), 0.4),
        "gate.0.weight": wave((3, 64), 0.5, 0.5),
        "intra_block_pe": wave((side, side, side, c), 0.6, 0.5),
    }
    for name, p in (("compression_key", 1.0), ("compression_value", 2.0)):
        if version == 1:
            own = {"act_layers.0.conv.kernel": wave((c, c), p, 0.5), "act_layers.0.conv.bias": wave((c,), p + 0.1)}
        else:
            own = {
                "act_layers.0.weight": 1 + wave((c,), p),
                "act_layers.0.bias": wave((c,), p + 0.1),
                "out_layers.0.conv.kernel": wave((27, c, c), p + 0.2),
                "out_layers.0.conv.bias": wave((c,), p + 0.3),
                "out_layers.1.weight": 1 + wave((c,), p + 0.4),
                "out_layers.1.bias": wave((c,), p + 0.5),
                "out_layers.3.conv.kernel": wave((27, c, c), p + 0.6),
                "out_layers.3.conv.bias": wave((c,), p + 0.7),
            }
        weights |= {f"{name}.{key}": value for key, value in own.items()}
    return {name: value.requires_grad_() for name, value in weights.items()}


def tokens(block: int) -> tuple[VoxelGrid, Tensor]:
    """Two shells of cells, ordered by sample, block, place in the block; the grid, and the order that brings them to it."""
    axis = torch.arange(16)
    cells = torch.cartesian_prod(axis, axis, axis)
    squared = ((cells - 8) ** 2).sum(1)
    samples = [cells[(squared >= low) & (squared <= high)] for low, high in ((23, 31), (9, 15))]
    coords = torch.cat([torch.nn.functional.pad(c, (1, 0), value=s) for s, c in enumerate(samples)])
    outer, inner = coords[:, 1:] // block, coords[:, 1:] % block
    rank = coords[:, 0]
    for column in (*outer.T, *inner.T):
        rank = rank * 16 + column
    return VoxelGrid.build(coords[rank.argsort()].int(), resolution=16, batch_size=2)


def close(actual: Tensor | float, expected: float) -> None:
    value = float(actual.detach()) if isinstance(actual, Tensor) else actual
    assert value == pytest.approx(expected, rel=2e-7, abs=6e-7)  # the published numbers have six to eight decimals


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", list(CASES))
def test_published_sums(name: str, backend: str) -> None:
    e = CASES[name]
    small, large, window = e.sides
    grid, order = tokens(large)
    assert grid.offsets.tolist() == [0, 278, 436]
    plan = SSAPlan.build(grid, compression_block=small, selection_block=large, window=window)
    assert (len(plan.compressed), len(plan.selection)) == e.counts
    weights = weights_of(e.version, small)
    x = wave((436, 64), 0.7, 1.0, 0.11).requires_grad_()
    q, k, v, k_c, v_c, gate = ssa.operands(x[order], weights, plan, 4, 16)

    def sums(value: Tensor, expected: tuple[float, float]) -> None:
        close(value.sum(), expected[0])
        close(value.abs().sum(), expected[1])

    sums(k_c, e.k_c)
    sums(v_c, e.v_c)
    compressed, lse = compression_attention(q, k_c, v_c, plan, backend=backend)
    sums(compressed, e.compressed)
    close(lse.sum(), e.lse_compressed)
    chosen = block_topk(q, k_c, lse, plan, e.top_k, backend=backend)
    assert int((chosen - plan.sample_blocks[:, :1]).sum()) == e.choice
    selected, lse = selection_attention(q, k, v, chosen, plan.selection, backend=backend)
    sums(selected, e.selected)
    close(lse.sum(), e.lse_selected)
    sums(window_attention(q, k, v, plan.windows(e.shift), backend=backend).out, e.windowed)
    out = spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, e.top_k, shift=e.shift, backend=backend)
    y = restore(out.flatten(1), order) @ weights["proj_o.weight"].T
    sums(y, e.y)
    loss = (y.flatten() * torch.sin(0.29 * torch.arange(y.numel(), dtype=torch.float64))).sum()
    close(loss, e.loss)
    names: list[Any] = list(e.for_weights)
    found = torch.autograd.grad(loss, [x, *(weights[n] for n in names)])
    close(found[0].abs().sum(), e.for_x)
    for key, gradient in zip(names, found[1:], strict=True):
        close(gradient.abs().sum(), e.for_weights[key])
