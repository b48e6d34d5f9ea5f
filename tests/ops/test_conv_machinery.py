"""Sparse convolution in the machinery of torch: operators, compile, checkpointing, autocast, threads, memory."""

from __future__ import annotations

import gc
from typing import Any

import numba
import pytest
import torch
from conv_inputs import conv, operands
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from voxgen.core.errors import BackendUnavailable
from voxgen.ops.conv import _numba, sparse_conv
from voxgen.ops.neighbors import neighbor_table
from voxgen.testing.compare import difference
from voxgen.testing.grids import fresh, random_grid


def test_result_does_not_depend_on_threads() -> None:
    table = neighbor_table(random_grid((3000,), 50))
    feats, weight, bias = (t.requires_grad_() for t in operands(table, 24, 40))

    def run() -> list[Tensor]:
        out = sparse_conv(feats, weight, bias, table, backend="numba")
        return [out, *torch.autograd.grad(out.square().sum(), [feats, weight, bias])]

    several = run()
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert all(torch.equal(a, b) for a, b in zip(run(), several, strict=True))
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("chunk", [1, 7, 150, 1000])
def test_result_does_not_depend_on_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = neighbor_table(random_grid((90, 0, 60), 9))
    tensors = operands(table, 24, 40)
    expected = conv(tensors, table, "numba")
    monkeypatch.setattr(_numba, "_chunk", lambda *_: chunk)
    assert torch.equal(conv(tensors, table, "numba"), expected)


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_global_state_is_left_alone(engine: str) -> None:
    state = lambda: (torch.get_num_threads(), numba.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype())  # noqa: E731
    before = state()
    table = neighbor_table(random_grid((30,), 9))
    feats, weight, bias = (t.requires_grad_() for t in operands(table, 4, 40))
    sparse_conv(feats, weight, bias, table, backend=engine).sum().backward()
    assert state() == before


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (1, 2)])
@pytest.mark.parametrize("options", [{}, {"stride": 2}])
def test_only_the_gradients_asked_for(engine: str, wanted: tuple[int, ...], options: dict[str, Any]) -> None:
    table = neighbor_table(random_grid((40, 0, 30), 8), **options)
    tensors = operands(table, 34, 36)
    chosen = [tensors[i].requires_grad_() for i in wanted]
    upstream = torch.randn(len(table), 36)
    actual = torch.autograd.grad(conv(tensors, table, engine), chosen, upstream)
    expected = torch.autograd.grad(conv(tensors, table, "reference"), chosen, upstream)
    assert all(difference(a, e) < 1e-5 for a, e in zip(actual, expected, strict=True))
    if 2 not in wanted:
        without = torch.autograd.grad(sparse_conv(tensors[0], tensors[1], None, table, backend=engine), chosen, upstream)
        assert all(torch.equal(a, w) for a, w in zip(actual, without, strict=True))


def test_tables_made_in_inference_mode_serve_training() -> None:
    grid = random_grid((40,), 8)
    with torch.inference_mode():
        table = neighbor_table(grid, stride=2)
        feats, weight, _ = operands(table, 34, 36)
        for engine in ("numba", "torch"):
            sparse_conv(feats, weight, None, table, backend=engine)
    feats, weight, _ = (t.requires_grad_() for t in operands(table, 34, 36))
    for engine in ("numba", "torch"):
        sparse_conv(feats, weight, None, neighbor_table(grid, stride=2), backend=engine).sum().backward()


@pytest.mark.parametrize(("engine", "options"), [("numba", {"stride": 2}), ("torch", {})])
def test_operator_is_registered_soundly(engine: str, options: dict[str, Any]) -> None:
    table = neighbor_table(random_grid((12, 0, 9), 5), **options)
    feats, weight, bias = (t.requires_grad_() for t in operands(table, 3, 4))
    back = None if table.is_symmetric else table.transposed().table
    operator = torch.ops.voxgen.sparse_conv.default
    torch.library.opcheck(operator, (feats, weight, bias, table.table, [], back, [], engine))


@pytest.mark.parametrize(("engine", "options"), [("auto", {}), ("numba", {"stride": 2}), ("torch", {"stride": 2})])
def test_compiles_as_one_graph(engine: str, options: dict[str, Any]) -> None:
    torch.compiler.reset()

    def layer(tensors: list[Tensor], table: Any) -> Tensor:
        return torch.relu(conv(tensors, table, engine) * 2)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for counts in ((30, 0, 10), (25, 3, 20)):  # the second grid must not get the first one's tables
        table = neighbor_table(random_grid(counts, 7), **options)
        tensors = [t.requires_grad_() for t in operands(table, 34, 36)]
        actual, expected = compiled(tensors, table), layer(tensors, table)
        assert difference(actual, expected) < 1e-5
        pairs = zip(torch.autograd.grad(actual.sum(), tensors), torch.autograd.grad(expected.sum(), tensors), strict=True)
        assert all(difference(a, e) < 1e-5 for a, e in pairs)


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_activation_checkpointing(engine: str) -> None:
    table = neighbor_table(random_grid((40, 0, 30), 8), stride=2)
    tensors = [t.requires_grad_() for t in operands(table, 34, 36)]

    def layer(*args: Tensor) -> Tensor:
        return torch.relu(conv(args, table, engine))

    expected = torch.autograd.grad(layer(*tensors).square().sum(), tensors)
    actual = torch.autograd.grad(checkpoint(layer, *tensors, use_reentrant=False).square().sum(), tensors)  # pyright: ignore
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_second_derivatives_are_refused_clearly(engine: str) -> None:
    table = neighbor_table(random_grid((20,), 8))
    tensors = [t.requires_grad_() for t in operands(table, 3, 4)]
    first = torch.autograd.grad(conv(tensors, table, engine).square().sum(), tensors[0], create_graph=True)[0]
    with pytest.raises(BackendUnavailable, match=r"second derivatives.*backend='reference'"):
        first.square().sum().backward()
    first = torch.autograd.grad(conv(tensors, table, "reference").square().sum(), tensors[0], create_graph=True)[0]
    first.square().sum().backward()


def test_table_lives_as_long_as_a_graph_needs_it() -> None:
    grid = random_grid((40,), 8)
    table = neighbor_table(grid, stride=2)
    feats, weight, _ = (t.requires_grad_() for t in operands(table, 3, 4))
    expected = torch.autograd.grad(sparse_conv(feats, weight, None, table, backend="reference").sum(), feats)[0]
    out = sparse_conv(feats, weight, None, table, backend="numba").sum()
    del grid, table
    gc.collect()
    assert difference(torch.autograd.grad(out, feats)[0], expected) < 1e-5


def test_autocast() -> None:
    table = neighbor_table(random_grid((30,), 8))
    tensors = operands(table, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(tensors, table)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, conv([t.bfloat16() for t in tensors], table))


def test_fresh_tables_give_the_same() -> None:
    grid = random_grid((50, 0, 20), 9)
    feats, weight, bias = operands(neighbor_table(grid), 4, 6)
    first = sparse_conv(feats, weight, bias, neighbor_table(grid, backend="numba"))
    again = sparse_conv(feats, weight, bias, neighbor_table(fresh(grid), backend="torch"))
    assert torch.equal(first, again)
