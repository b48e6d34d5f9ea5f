"""Inputs for `voxgen.ops.point_cells`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import Frame
from voxgen.core.batching import offsets_from_counts
from voxgen.ops.point_cells import point_cells

from . import Case

DTYPES = (torch.float32, torch.float64)


def cases(dtype: torch.dtype) -> list[Case]:
    """With and without a skin; samples of different size, one empty; beyond the box; a grid too large for a table."""
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype) - 0.5
    lattice = torch.cartesian_prod(*[torch.linspace(-0.5, 0.5, 5, dtype=dtype)] * 3)
    box = Frame.box((-0.7, -0.5, 0.1), (0.3, 0.7, 0.9), (20, 9, 31))
    return [
        _case("own-cells", points, 16, 0.0),
        _case("skin", points, 16, 16 / 63),
        _case("wide-skin", points[:40], (7, 19, 12), 1.7),
        _case("three-samples-one-empty", points, 9, 0.3, counts=(200, 0, 300)),
        _case("on-grid-planes", lattice, 4, 4 / 15),
        _case("partly-beyond-the-box", points, (20, 9, 31), 0.4, frame=box),
        _case("too-large-for-a-table", points, 1024, 0.25),
        _case("no-points", points[:0], 8, 0.25),
        _case("one-point", points[:1], 1, 0.25),
    ]


def _case(
    name: str,
    points: Tensor,
    resolution: int | tuple[int, int, int],
    skin: float,
    counts: tuple[int, ...] | None = None,
    frame: Frame | None = None,
) -> Case:
    offsets = None if counts is None else offsets_from_counts(counts)

    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        bounds = None if offsets is None else offsets.to(inputs["points"].device)
        return {"coords": point_cells(inputs["points"], resolution, offsets=bounds, frame=frame, skin=skin, backend=backend).coords}

    return Case(name, {"points": points}, run)
