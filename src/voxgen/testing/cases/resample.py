"""Inputs of the resampling functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.resample import Structure, channel_to_space, pool, space_to_channel, subdivide
from voxgen.testing.grids import fresh, full_grid, random_grid

from . import Case

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Function = Callable[..., Tensor]


def cases(dtype: torch.dtype) -> list[Case]:
    """Every function on grids with lone children, full parents, empty samples; odd channels; factors other than two."""
    three = random_grid((40, 0, 25), 9)
    grids = {"empty": random_grid((0, 0), 8), "one-cell": random_grid((1,), 3), "three-samples": three, "full-cube": full_grid(4)}
    found = []
    for name, grid in grids.items():
        for how in ("mean", "mean_plus_one", "sum", "max"):
            found.append(_case(dtype, f"{how}-{name}", grid, 5, pool, how=how))
        found.append(_case(dtype, f"subdivide-{name}", grid, 3, subdivide, from_parents=True))
        found.append(_case(dtype, f"s2c-{name}", grid, 3, space_to_channel))
        found.append(_case(dtype, f"c2s-{name}", grid, 24, channel_to_space, from_parents=True))
    found.append(_case(dtype, "mean-by-8", three, 67, pool, factor=8))
    found.append(_case(dtype, "max-by-4-1-2", three, 1, pool, factor=(4, 1, 2), how="max"))
    found.append(_case(dtype, "s2c-by-3-2-1", three, 7, space_to_channel, factor=(3, 2, 1)))
    found.append(_case(dtype, "c2s-x-slowest", three, 16, channel_to_space, from_parents=True, order="x_slowest"))
    return found


def _case(
    dtype: torch.dtype,
    name: str,
    grid: VoxelGrid,
    channels: int,
    function: Function,
    from_parents: bool = False,
    factor: int | tuple[int, int, int] = 2,
    **options: str,
) -> Case:
    rows = len(Structure.of_children(grid, factor).parents if from_parents else grid)
    generator = torch.Generator().manual_seed(rows + 100 * channels)
    feats = torch.randn(channels, rows, generator=generator, dtype=torch.float64).to(dtype).T  # not contiguous

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        structure = Structure.of_children(fresh(grid).to(inputs["feats"].device), factor)
        return {"out": function(inputs["feats"], structure, backend=backend, **options)}

    return Case(name, {"feats": feats}, run, gradients=("feats",))
