"""The minimum in a box: optimality conditions, open directions, gradients, and every kind of bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.qef import OP, solve_box_qef
from voxgen.testing.cases.qef import quadratics

ENGINES = list(OP.backends)


def gradient(q: Tensor, v: Tensor) -> Tensor:
    """Half the gradient of [v, 1]ᵀ Q [v, 1]."""
    a = q[:, [0, 1, 2, 1, 4, 5, 2, 5, 7]].reshape(-1, 3, 3)
    return (a @ v[:, :, None])[:, :, 0] + q[:, [3, 6, 8]]


def assert_optimal(q: Tensor, low: Tensor, high: Tensor, v: Tensor, tolerance: float) -> None:
    """Karush-Kuhn-Tucker: inside the box, and no way inside goes downhill. For a convex objective this is the minimum."""
    assert bool(((low <= v) & (v <= high)).all())
    g = gradient(q, v)
    assert float(torch.where(v > low, g, torch.zeros_like(g)).max()) <= tolerance  # may not want to go down where it can
    assert float(torch.where(v < high, -g, torch.zeros_like(g)).max()) <= tolerance


@pytest.mark.parametrize("backend", ENGINES)
@settings(max_examples=25, deadline=None)
@given(planes=st.integers(1, 6), spread=st.floats(0.0, 3.0), seed=st.integers(0, 2**31))
def test_no_way_inside_the_box_goes_downhill(backend: str, planes: int, spread: float, seed: int) -> None:
    inputs = quadratics(50, planes, spread, torch.float64, seed)
    v = solve_box_qef(inputs["q"], inputs["low"], inputs["high"], backend=backend)
    # The pull towards the anchor, 1e-9 of a trace of at most 6, times the size of a box of at most 1.
    assert_optimal(inputs["q"], inputs["low"], inputs["high"], v, 1e-8)


@pytest.mark.parametrize("backend", ENGINES)
def test_open_directions_go_to_the_anchor(backend: str) -> None:
    zeros, ones = torch.zeros(1, 3), torch.ones(1, 3)
    plane = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 1.0, -0.25, 0.0625]])  # (z - 0.25)²
    v = solve_box_qef(plane, zeros, ones, anchor=torch.tensor([[0.1, 0.7, 0.9]]), backend=backend)
    torch.testing.assert_close(v, torch.tensor([[0.1, 0.7, 0.25]]), atol=1e-5, rtol=0)
    assert torch.equal(solve_box_qef(plane * 0, zeros, ones, backend=backend), torch.full((1, 3), 0.5))
    beyond = solve_box_qef(plane, zeros, ones, anchor=torch.tensor([[-1.0, 2.0, 0.5]]), backend=backend)
    torch.testing.assert_close(beyond, torch.tensor([[0.0, 1.0, 0.25]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ENGINES)
def test_the_minimum_in_the_box_is_not_the_clamped_minimum(backend: str) -> None:
    """(x + y - 3)² + 0.1 (x - y - 2)²: clamping the free minimum (2.5, 0.5) gives (1, 0.5), but x + y = 2 lies nearer at (1, 1)."""
    a = torch.tensor([[1.1, 0.9], [0.9, 1.1]])
    b = torch.tensor([-3.0 - 0.2, -3.0 + 0.2])
    q = torch.tensor([[a[0, 0], a[0, 1], 0, b[0], a[1, 1], 0, b[1], 1, 0, 9.4]])
    v = solve_box_qef(q, torch.zeros(1, 3), torch.ones(1, 3), backend=backend)
    torch.testing.assert_close(v, torch.tensor([[1.0, 1.0, 0.0]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_gradients_are_those_of_finite_differences(backend: str, spread: float) -> None:
    inputs = {n: t.requires_grad_() for n, t in quadratics(6, 5, spread, torch.float64, 3).items()}

    def solve(*args: Tensor) -> Tensor:
        return solve_box_qef(args[0], args[1], args[2], anchor=args[3], backend=backend)

    assert torch.autograd.gradcheck(solve, tuple(inputs.values()))


@pytest.mark.parametrize("backend", ENGINES)
def test_strided_and_empty_input(backend: str) -> None:
    inputs = quadratics(20, 4, 0.5, torch.float64)
    wide = {n: torch.stack((t, t), 2)[:, :, 0] for n, t in inputs.items()}
    plain, strided = (solve_box_qef(i["q"], i["low"], i["high"], backend=backend) for i in (inputs, wide))
    assert torch.equal(plain, strided)
    assert solve_box_qef(torch.zeros(0, 10), torch.zeros(0, 3), torch.zeros(0, 3), backend=backend).shape == (0, 3)


def test_bad_input_is_refused_with_the_reason() -> None:
    q, low, high = torch.zeros(2, 10), torch.zeros(2, 3), torch.ones(2, 3)
    with pytest.raises(ShapeError, match=r"q must be \(n, 10\)"):
        solve_box_qef(q[:, :9], low, high)
    with pytest.raises(ShapeError, match=r"low must be \(2, 3\)"):
        solve_box_qef(q, low[:1], high)
    with pytest.raises(DtypeError, match=r"high must be .* float32"):
        solve_box_qef(q, low, high.double())
    with pytest.raises(DtypeError, match="q must be"):
        solve_box_qef(q.half(), low.half(), high.half())
    with pytest.raises(RangeError, match=r"low must not exceed high; got .* in row 1"):
        solve_box_qef(q, low, high.index_fill(0, torch.tensor([1]), -1))
    with pytest.raises(RangeError, match="q must be finite"):
        solve_box_qef(q + float("nan"), low, high)
