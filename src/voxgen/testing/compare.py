"""How results of two backends are compared: one tolerance table, one function."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from .cases import Case

TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 5e-3,
    torch.bfloat16: 3e-2,
}
"""Largest difference allowed, relative to the largest magnitude of the expected tensor."""


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest magnitude expected (or over 1, where that is 0); NaN counts as infinite."""
    if actual.numel() == 0:
        return 0.0
    a, e = actual.detach().double(), expected.detach().double()
    gap = torch.where(a.isnan() & e.isnan(), 0.0, (a - e).abs()).max()
    size = float(e.abs().nan_to_num(0, 0, 0).max()) or 1.0
    return float("inf") if bool(gap.isnan()) else float(gap) / size


def assert_same(actual: Tensor, expected: Tensor, name: str, tolerance: float | None = None) -> None:
    """Raise AssertionError unless shape and dtype agree and values do: exactly for integers and booleans, else to the tolerance."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise AssertionError(f"{name}: expected {tuple(expected.shape)} {expected.dtype}, got {tuple(actual.shape)} {actual.dtype}")
    if not expected.is_floating_point():
        if not torch.equal(actual, expected):
            wrong = int((actual != expected).sum())
            raise AssertionError(f"{name}: {wrong} of {expected.numel()} entries differ")
        return
    allowed = TOLERANCE[expected.dtype] if tolerance is None else tolerance
    gap = difference(actual, expected)
    if not gap <= allowed:
        raise AssertionError(f"{name}: relative difference {gap:.3g} exceeds {allowed:.3g}")


def upstream(name: str, like: Tensor) -> Tensor:
    """A fixed, dense upstream gradient for an output."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def evaluate(case: Case, backend: str, device: str = "cpu") -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Run a case on one backend: its outputs, and its gradients by "grad <input>"."""
    inputs = {n: t.detach().clone().to(device).requires_grad_(n in case.gradients) for n, t in case.inputs.items()}
    outputs = case.run(backend, inputs)
    gradients: dict[str, Tensor] = {}
    if case.gradients:
        floats = {n: t for n, t in outputs.items() if t.is_floating_point() and t.requires_grad}
        if not floats:
            raise AssertionError(f"{case.name}: gradients are asked for, but no output of {backend} requires one")
        found = torch.autograd.grad(
            list(floats.values()),
            [inputs[n] for n in case.gradients],
            [upstream(n, t) for n, t in floats.items()],
            allow_unused=True,
        )
        for n, g in zip(case.gradients, found, strict=True):
            gradients[f"grad {n}"] = torch.zeros_like(inputs[n]) if g is None else g.detach()
    return {n: t.detach() for n, t in outputs.items()}, gradients


def compare_backends(case: Case, backend: str, device: str = "cpu") -> None:
    """Raise AssertionError unless `backend` gives what the reference gives, forward and every gradient, and twice the same."""
    expected, expected_gradients = evaluate(case, "reference", device)
    actual, gradients = evaluate(case, backend, device)
    if actual.keys() != expected.keys():
        raise AssertionError(f"{case.name}: outputs {sorted(actual)} instead of {sorted(expected)}")
    for name, value in {**expected, **expected_gradients}.items():
        assert_same({**actual, **gradients}[name], value, f"{case.name}: {name} of {backend}", case.tolerance.get(name))
    again, gradients_again = evaluate(case, backend, device)
    for name, value in {**actual, **gradients}.items():
        if not torch.equal({**again, **gradients_again}[name].nan_to_num(), value.nan_to_num()):
            raise AssertionError(f"{case.name}: {name} of {backend} changes from one run to the next")
