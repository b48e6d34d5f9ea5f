"""Inputs for `voxgen.ops.qef`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.ops.qef import solve_box_qef

from . import Case

DTYPES = (torch.float64, torch.float32)


def quadratics(n: int, planes: int, spread: float, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Sums of `planes` squared plane distances whose planes pass within `spread` of the middle of a box of side 1 or less."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    low = normal(n, 3)
    high = low + torch.rand(n, 3, generator=g, dtype=torch.float64)
    direction = torch.nn.functional.normalize(normal(n, planes, 3), dim=2)
    point = (low + high)[:, None] / 2 + spread * normal(n, planes, 3)
    plane = torch.cat((direction, -(direction * point).sum(2, keepdim=True)), 2)
    matrix = plane.transpose(1, 2) @ plane
    row, column = torch.triu_indices(4, 4)
    inputs = {"q": matrix[:, row, column], "low": low, "high": high, "anchor": low + (high - low) / 3}
    return {name: t.to(dtype) for name, t in inputs.items()}


def cases(dtype: torch.dtype) -> list[Case]:
    """Regular quadratics with the minimum mostly inside and mostly outside; then open directions, flat boxes, no and one row."""
    names = ("q", "low", "high", "anchor")
    flat = quadratics(40, 3, 0.3, dtype, 4)
    flat["high"] = torch.where(torch.arange(3) == torch.arange(40)[:, None] % 3, flat["low"], flat["high"])
    # Engines solve in another order; open directions are solved to 1e-16 / 1e-9 (worst of these cases 3e-8), their gradients
    # to the square of that loss, so only their values are compared.
    loose = {"v": 1e-6} if dtype == torch.float64 else {}
    return [
        Case("inside", quadratics(100, 5, 0.05, dtype, 1), _run),
        Case("outside", quadratics(100, 5, 1.0, dtype, 2), _run),
        Case("inside-gradient", quadratics(30, 5, 0.05, dtype, 1), _run, names),
        Case("outside-gradient", quadratics(30, 5, 1.0, dtype, 2), _run, names),
        Case("open-line", quadratics(50, 2, 0.3, dtype, 3), _run, tolerance=loose),
        Case("open-plane", quadratics(50, 1, 0.3, dtype, 5), _run, tolerance=loose),
        Case("flat-boxes", flat, _run),
        Case("all-zero", {n: t * 0 for n, t in quadratics(3, 1, 1.0, dtype).items()}, _run),
        Case("one", quadratics(1, 4, 0.5, dtype, 6), _run),
        Case("empty", quadratics(0, 1, 0.5, dtype), _run),
    ]


def _run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {"v": solve_box_qef(inputs["q"], inputs["low"], inputs["high"], anchor=inputs["anchor"], backend=backend)}
