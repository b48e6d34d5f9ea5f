"""The blocks as a table: how to make each, and how to run it on a tensor of 16 channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.layers import (
    DualGridHead,
    EarlyPruningUpsampler,
    GaussianHead,
    LatentHead,
    LayerNorm32,
    MaterialHead,
    NearestUpsample,
    OctantUpsample,
    PooledDownsample,
    ResidualDownsample,
    ResidualUpsample,
    SelfPruningUpsampler,
    SparseConv3d,
    SparseConvNeXtBlock,
    SparseGroupNorm,
    SparseInstanceNorm,
    SparseResidualBlock,
    SurfaceAnchoringUpsampler,
    pointwise,
)
from voxgen.ops.resample import Structure
from voxgen.testing.grids import random_grid

WIDTH = 16


def children_of(grid: VoxelGrid) -> Structure:
    """Some children of each cell, chosen by its place alone, so that batches and orders do not matter."""
    place = grid.cells @ torch.tensor([[1], [3], [5]], dtype=torch.int32)
    mask = (place + torch.arange(8, dtype=torch.int32)) % 3 == 0
    return Structure.of_mask(grid, mask)


class Layer(NamedTuple):
    """How to make a block and run it. The result is one tensor of features on one grid."""

    make: Callable[[], nn.Module]
    run: Callable[[Any, SparseTensor], SparseTensor]
    checkpoints: bool = False
    local: bool = True


def _call(module: Any, x: SparseTensor) -> SparseTensor:
    return module(x)


def _down(module: Any, x: SparseTensor) -> SparseTensor:
    return module(x)[0]


def _up(module: Any, x: SparseTensor) -> SparseTensor:
    return module(x, children_of(x.grid))


def _taught(module: Any, x: SparseTensor) -> SparseTensor:
    return module(x, structure=children_of(x.grid)).x


def _latent(module: Any, x: SparseTensor) -> SparseTensor:
    posterior = module(x)
    return posterior.sample(noise=torch.ones_like(posterior.logvar))


def _dual(module: Any, x: SparseTensor) -> SparseTensor:
    head = module(x)
    return x.with_feats(torch.cat((head.dual_vertices, head.crossing_logits, head.split_weight), 1))


LAYERS = {
    "conv": Layer(lambda: SparseConv3d(WIDTH, 8), _call),
    "conv-down": Layer(lambda: SparseConv3d(WIDTH, 8, 2, stride=2, bias=False), _call),
    "conv-up": Layer(lambda: SparseConv3d(WIDTH, 4, 2, stride=2, transposed=True), _call),
    "pointwise": Layer(lambda: pointwise(nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU())), _call),
    "layer-norm": Layer(lambda: LayerNorm32(WIDTH), _call),
    "group-norm": Layer(lambda: SparseGroupNorm(4, WIDTH), _call, local=False),
    "instance-norm": Layer(lambda: SparseInstanceNorm(WIDTH), _call, local=False),
    "convnext": Layer(lambda: SparseConvNeXtBlock(WIDTH, mlp_ratio=2), _call, True),
    "residual": Layer(lambda: SparseResidualBlock(WIDTH, 24), _call, True),
    "residual-down": Layer(lambda: ResidualDownsample(WIDTH, 32), _down, True),
    "residual-up": Layer(lambda: ResidualUpsample(WIDTH, 8), _up, True),
    "without-shortcut": Layer(lambda: ResidualUpsample(WIDTH, 8, shortcut=False), _up, True),
    "pooled-down": Layer(lambda: PooledDownsample(WIDTH, 24, "mean_plus_one"), _down, True),
    "nearest-up": Layer(lambda: NearestUpsample(WIDTH, 8), _up, True),
    "nearest-group-up": Layer(lambda: NearestUpsample(WIDTH, 8, norm="group", num_groups=4), _up, True, local=False),
    "self-pruning": Layer(lambda: SelfPruningUpsampler(WIDTH, 8, norm="per_voxel"), _taught),
    "early-pruning": Layer(lambda: EarlyPruningUpsampler(WIDTH, 8), _taught),
    "octant-up": Layer(lambda: OctantUpsample(WIDTH, 8), _up, True),
    "anchoring": Layer(lambda: SurfaceAnchoringUpsampler(WIDTH, 8), _taught),
    "latent": Layer(lambda: LatentHead(WIDTH, 4), _latent),
    "dual-grid": Layer(lambda: DualGridHead(WIDTH), _dual),
    "gaussian": Layer(lambda: GaussianHead(WIDTH, 2), _call),
    "material": Layer(lambda: MaterialHead(WIDTH), _call),
}


def made(name: str, **attributes: Any) -> Any:
    """The block with weights of a trained size: none is zero, as some are at first."""
    module = LAYERS[name].make()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter.numel() / parameter.shape[-1] if "conv" in key and parameter.ndim > 1 else WIDTH
            gain = noise / max(1.0, fan_in) ** 0.5 if parameter.ndim > 1 else 0.1 * noise
            parameter.copy_(gain + (1 if "norm" in key and key.endswith("weight") else 0))
    for attribute, value in attributes.items():
        setattr(module, attribute, value)
    return module


def tensor(*counts: int, resolution: int = 12, dtype: torch.dtype = torch.float32, seed: int = 0) -> SparseTensor:
    """Random cells, counts[s] in sample s, and features."""
    grid = random_grid(counts, resolution, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    return SparseTensor(grid, torch.randn(len(grid), WIDTH, generator=generator, dtype=torch.float64).to(dtype))


def gradients(name: str, module: Any, x: SparseTensor) -> dict[str, Tensor]:
    """Result and gradients of a block, of everything that has one."""
    feats = x.feats.detach().clone().requires_grad_()
    out = LAYERS[name].run(module, x.with_feats(feats)).feats
    weights = torch.linspace(-0.5, 1, out.numel(), dtype=out.dtype).reshape(out.shape)  # of no mean that sums would cancel to
    named = {"feats": feats, **dict(module.named_parameters())}
    found = torch.autograd.grad((out * weights).sum(), list(named.values()), allow_unused=True)
    return {"out": out.detach(), **{n: g for n, g in zip(named, found, strict=True) if g is not None}}
