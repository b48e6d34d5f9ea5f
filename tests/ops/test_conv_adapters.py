"""Other libraries' convolutions behind ours: what they refuse, and what they are handed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from voxgen.core.errors import BackendUnavailable
from voxgen.ops._registry import Call
from voxgen.ops.conv import CONV, sparse_conv
from voxgen.ops.neighbors import NeighborTable, neighbor_table
from voxgen.testing.compare import difference
from voxgen.testing.grids import random_grid


def operands(table: NeighborTable, channels_in: int = 5, channels_out: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    weight = torch.randn(table.volume, channels_in, channels_out) / 10
    return torch.randn(len(table.in_grid), channels_in), weight, torch.randn(channels_out)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["spconv", "torchsparse"])
def test_a_library_that_is_missing_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    table = neighbor_table(random_grid((9,), 8))
    with pytest.raises(BackendUnavailable, match=f"{name}: package {name} is not installed"):
        sparse_conv(*operands(table), table, backend=name)


def test_reasons() -> None:
    def reasons(name: str, device: str, **facts: Any) -> str:
        checks = CONV.backends[name].checks[1:]  # whether the package is there is another test
        call = Call(torch.device(device), facts.pop("dtype", torch.float32), facts.pop("grad", False), facts)
        return "; ".join(reason for check in checks for reason in check(call))

    usual = {"submanifold": True, "dilation": (1, 1, 1), "volume": 27}
    assert reasons("torchsparse", "cuda", **usual) == ""
    assert "cuda" in reasons("torchsparse", "cpu", **usual)
    assert "ignores dilation" in reasons("torchsparse", "cuda", **{**usual, "dilation": (2, 2, 2)})
    assert "at most 31 offsets, got 125" in reasons("torchsparse", "cuda", **{**usual, "volume": 125})
    assert "submanifold" in reasons("torchsparse", "cuda", **{**usual, "submanifold": False})
    assert reasons("spconv", "cuda", grad=True) == ""
    assert "takes float32, float16" in reasons("spconv", "cuda", dtype=torch.bfloat16)
    assert "has no gradient" in reasons("spconv", "cpu", grad=True)
    assert "runs on cuda and cpu" in reasons("spconv", "meta")


@pytest.mark.parametrize(
    "options",
    [{}, {"dilation": 2}, {"kernel_size": 1}, {"kernel_size": 2, "stride": 2}, {"kernel_size": 2, "stride": 2, "transposed": True}],
)
def test_spconv(options: dict[str, Any], one_thread: None) -> None:
    pytest.importorskip("spconv", reason="package spconv is not installed", exc_type=ImportError)
    grid = random_grid((60, 0, 30), 9)
    for table in (neighbor_table(grid, **options), neighbor_table(grid, **options).transposed()):
        tensors = operands(table)
        out = sparse_conv(*tensors, table, backend="spconv")
        assert difference(out, sparse_conv(*tensors, table, backend="reference")) < 1e-6
    empty = neighbor_table(random_grid((0,), 8))
    assert len(sparse_conv(*operands(empty), empty, backend="spconv")) == 0


@pytest.fixture
def pretended_torchsparse(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A stand-in with torchsparse's conventions, evaluated cell by cell; returns the list of the caches it was given."""
    seen: list[Any] = []

    class SparseTensor(SimpleNamespace):
        def __init__(self, feats: Tensor, coords: Tensor, stride: int, spatial_range: tuple[int, ...]) -> None:
            super().__init__(feats=feats, coords=coords, stride=stride, spatial_range=spatial_range, _caches=None)

    def conv3d(tensor: Any, weight: Tensor, kernel_size: Any, bias: Tensor, stride: int, training: bool) -> Any:
        seen.append((tensor._caches, training))
        x, y, z = kernel_size
        rows = {tuple(cell): row for row, cell in enumerate(tensor.coords.tolist())}
        out = bias.repeat(len(rows), 1)
        for cell, row in rows.items():
            for k in range(x * y * z):  # x fastest
                i, j, m = k % x - x // 2, k // x % y - y // 2, k // (x * y) - z // 2
                other = rows.get((cell[0], cell[1] + i, cell[2] + j, cell[3] + m))
                if other is not None:
                    out[row] += tensor.feats[other] @ weight[k]
        result = SparseTensor(out, tensor.coords, 1, tensor.spatial_range)
        result._caches = tensor._caches or object()
        return result

    package, functional = ModuleType("torchsparse"), ModuleType("torchsparse.nn")
    package.SparseTensor = SparseTensor  # pyright: ignore[reportAttributeAccessIssue]
    functional.functional = SimpleNamespace(conv3d=conv3d)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchsparse", package)
    monkeypatch.setitem(sys.modules, "torchsparse.nn", functional)
    return seen


@pytest.mark.parametrize("kernel_size", [3, (3, 1, 5)])
def test_torchsparse_is_handed_its_own_conventions(kernel_size: Any, pretended_torchsparse: list[Any]) -> None:
    from voxgen.ops.conv._torchsparse import conv

    table = neighbor_table(random_grid((30, 0, 20), 7), kernel_size=kernel_size)
    feats, weight, bias = operands(table)
    expected = sparse_conv(feats, weight, bias, table, backend="reference")
    for _ in range(2):
        assert difference(conv(feats, weight, bias, table), expected) < 1e-6
    conv(feats, weight.requires_grad_(), bias, table)
    (first, _), (again, _), (training, flag) = pretended_torchsparse
    assert first is None
    assert again is not None  # the map is made once
    assert training is None  # and once more for gradients
    assert flag
