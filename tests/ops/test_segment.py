"""Reductions over segments: known answers, empty segments, gradients, independence of the batch, wrong input."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxgen.core.batching import offsets_from_counts
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.segment import Reduction, segment_broadcast, segment_reduce, segment_softmax

ENGINES = ("numba", "torch", "reference")
HOWS: tuple[Reduction, ...] = ("sum", "mean", "max", "min")


def rows(counts: tuple[int, ...], channels: int = 3, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(counts))
    return torch.randn(sum(counts), channels, generator=generator, dtype=torch.float64).to(dtype), offsets_from_counts(counts)


@pytest.mark.parametrize("backend", ENGINES)
def test_known_answers(backend: str) -> None:
    values = torch.tensor([[1.0, -1.0], [3.0, 5.0], [2.0, 2.0]])
    offsets = torch.tensor([0, 2, 2, 3])
    assert segment_reduce(values, offsets, "sum", backend=backend).tolist() == [[4, 4], [0, 0], [2, 2]]
    assert segment_reduce(values, offsets, "mean", backend=backend).tolist() == [[2, 2], [0, 0], [2, 2]]
    assert segment_reduce(values, offsets, "max", backend=backend).tolist() == [[3, 5], [0, 0], [2, 2]]
    assert segment_reduce(values, offsets, "min", backend=backend).tolist() == [[1, -1], [0, 0], [2, 2]]
    assert segment_broadcast(values, offsets, backend=backend).tolist() == [[1, -1], [1, -1], [2, 2]]
    thirds = segment_softmax(torch.tensor([[0.0], [2.0]]).log(), torch.tensor([0, 2]), backend=backend)
    assert thirds.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("backend", ENGINES)
def test_an_empty_segment_of_negative_rows_around_it_is_zero(backend: str) -> None:
    values, offsets = torch.full((3, 1), -2.0), torch.tensor([0, 0, 3, 3])
    for how in ("max", "min"):
        assert segment_reduce(values, offsets, how, backend=backend).tolist() == [[0], [-2], [0]]


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("how", HOWS)
def test_gradients_to_second_order(backend: str, how: Reduction) -> None:
    values, offsets = rows((4, 0, 1, 70), 2, torch.float64)
    values.requires_grad_()

    def squared(v: torch.Tensor) -> torch.Tensor:
        return segment_reduce(v, offsets, how, backend=backend).square()

    assert torch.autograd.gradcheck(squared, (values,))
    assert torch.autograd.gradgradcheck(squared, (values,))


@pytest.mark.parametrize("backend", ENGINES)
def test_gradients_of_broadcast_and_softmax(backend: str) -> None:
    offsets = offsets_from_counts((4, 0, 1, 5))
    per_segment = rows((4,), 2, torch.float64)[0].requires_grad_()
    values = rows((10,), 2, torch.float64)[0].requires_grad_()
    for function, at in ((segment_broadcast, per_segment), (segment_softmax, values)):
        assert torch.autograd.gradcheck(lambda v, f=function: f(v, offsets, backend=backend).square(), (at,))
        assert torch.autograd.gradgradcheck(lambda v, f=function: f(v, offsets, backend=backend).square(), (at,))


@pytest.mark.parametrize("backend", ENGINES)
def test_equal_extremes_share_the_gradient(backend: str) -> None:
    values = torch.tensor([[1.0], [4.0], [4.0], [4.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(segment_reduce(values, torch.tensor([0, 3, 4]), "max", backend=backend).sum(), values)
    assert grad.tolist() == [[0], [0.5], [0.5], [1]]


@pytest.mark.parametrize("backend", ENGINES)
@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 700), min_size=1, max_size=4), dtype=st.sampled_from((torch.float32, torch.float16)))
def test_a_segment_gives_the_same_bits_alone_and_in_a_batch(backend: str, counts: list[int], dtype: torch.dtype) -> None:
    values, offsets = rows(tuple(counts), 3, dtype)
    for how in HOWS:
        together = segment_reduce(values, offsets, how, backend=backend)
        alone = [segment_reduce(v, torch.tensor([0, len(v)]), how, backend=backend) for v in values.split(counts)]
        assert torch.equal(together, torch.cat(alone)), how
    together = segment_softmax(values, offsets, backend=backend)
    alone = [segment_softmax(v, torch.tensor([0, len(v)]), backend=backend) for v in values.split(counts)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("how", HOWS)
def test_nan_stays_in_its_segment_and_channel(backend: str, how: Reduction) -> None:
    values, offsets = rows((300, 2, 70))
    clean = values.clone()
    values[280, 1] = float("nan")
    found, expected = segment_reduce(values, offsets, how, backend=backend), segment_reduce(clean, offsets, how, backend=backend)
    hit = torch.zeros(3, 3, dtype=torch.bool)
    hit[0, 1] = True
    assert found[hit].isnan().all()
    assert torch.equal(found[~hit], expected[~hit])
    softmax = segment_softmax(values, offsets, backend=backend).isnan()
    assert softmax[:300, 1].all()
    assert softmax.sum() == 300


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_long_sums_of_small_numbers_stay_exact(backend: str) -> None:
    """Row after row in float32, a million tenths are off by 1 %; the tree of pieces is off by some units of the last place."""
    values = torch.full((1_000_000, 1), 0.1)
    total = segment_reduce(values, torch.tensor([0, 1_000_000]), backend=backend)
    exact = float(values[0, 0].double()) * 1_000_000
    assert abs(float(total) - exact) < 1e-5 * exact  # 2e-6 measured; 1e-2 without the pieces


def test_half_precision_is_summed_in_float32() -> None:
    values = torch.ones(5000, 1, dtype=torch.float16)  # in float16 the sum stops at 2048
    assert float(segment_reduce(values, torch.tensor([0, 5000]))) == 5000


def test_softmax_of_large_numbers() -> None:
    values = torch.tensor([[1e30], [1e30], [-1e30]])
    assert segment_softmax(values, torch.tensor([0, 3])).tolist() == [[0.5], [0.5], [0.0]]


@pytest.mark.parametrize("backend", ENGINES)
def test_wrong_offsets(backend: str) -> None:
    values = torch.zeros(4, 2)
    with pytest.raises(ShapeError, match=r"from 0 to the number of rows, 4; got 0 and 3"):
        segment_reduce(values, torch.tensor([0, 3]), backend=backend)
    with pytest.raises(ShapeError, match=r"got 1 and 4"):
        segment_softmax(values, torch.tensor([1, 4]), backend=backend)
    with pytest.raises(RangeError, match=r"must not fall; got 9 at 1 and 4 after it.*offsets_from_counts"):
        segment_reduce(values, torch.tensor([0, 9, 4]), backend=backend)
    with pytest.raises(ShapeError, match=r"to the number of rows, 5; got 0 and 4"):
        segment_broadcast(values[:1], torch.tensor([0, 4]), rows=5, backend=backend)


def test_wrong_arguments() -> None:
    values, offsets = torch.zeros(4, 2), torch.tensor([0, 4])
    with pytest.raises(DtypeError, match=r"segment_reduce: offsets must be .* int64; got \(2,\) int32.*offsets_from_counts"):
        segment_reduce(values, offsets.int())
    with pytest.raises(DtypeError, match=r"values must be .* float32"):
        segment_reduce(values.int(), offsets)
    with pytest.raises(ShapeError, match=r"values must be \(n, c\)"):
        segment_softmax(values[0], offsets)
    with pytest.raises(ShapeError, match=r"at least one; got none"):
        segment_reduce(values, offsets[:0])
    with pytest.raises(ShapeError, match=r"one entry more than the 4 rows of values; got 2"):
        segment_broadcast(values, offsets)
    with pytest.raises(RangeError, match=r"'sum', 'mean', 'max', 'min'; got str 'median'"):
        segment_reduce(values, offsets, "median")  # pyright: ignore


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_the_operators_are_sound(engine: str) -> None:
    values, offsets = rows((4, 0, 70), 2)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for how in ("sum", "max"):
        torch.library.opcheck(torch.ops.voxgen.rows_to_segments, (values.requires_grad_(), offsets, how, engine), test_utils=tests)
    torch.library.opcheck(torch.ops.voxgen.segment_softmax, (values, offsets, engine), test_utils=tests)
    torch.library.opcheck(torch.ops.voxgen.segments_to_rows, (values[:3].detach().requires_grad_(), offsets, 74, engine), test_utils=tests)


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_compiles_as_one_graph(engine: str) -> None:
    torch.compiler.reset()

    def layer(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        mean = segment_reduce(values, offsets, "mean", backend=engine)
        centred = values - segment_broadcast(mean, offsets, rows=len(values), backend=engine)
        return centred * segment_softmax(centred, offsets, backend=engine)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for counts in ((30, 0, 10), (25, 3, 20)):
        values, offsets = rows(counts)
        values.requires_grad_()
        actual, expected = compiled(values, offsets), layer(values, offsets)
        assert torch.allclose(actual, expected, atol=1e-6)
        upstream = torch.randn_like(expected)
        pair = [torch.autograd.grad(out, values, upstream)[0] for out in (actual, expected)]
        assert torch.allclose(pair[0], pair[1], atol=1e-6)


@pytest.mark.parametrize("function", [segment_reduce, segment_broadcast, segment_softmax])
def test_examples_of_docstrings(function: Callable[..., Any]) -> None:
    names = {"torch": torch, function.__name__: function}
    (test,) = doctest.DocTestFinder().find(function, globs=names)
    report: list[str] = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)
    assert test.examples


def test_importing_the_op_imports_no_engine() -> None:
    code = "import sys, voxgen.ops.segment; assert not [m for m in sys.modules if 'numba' in m or m.startswith('voxgen.ops.segment.')]"
    subprocess.run([sys.executable, "-c", code], check=True)
