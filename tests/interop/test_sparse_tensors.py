"""Tensors of other libraries come in and go back row by row, with their gradients."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from foreign_tensors import OldTorchsparseLike, SpconvLike, TorchsparseLike, TrellisLike, rows

from voxgen import interop, layers
from voxgen.core import SparseTensor
from voxgen.core.errors import DtypeError, DuplicateError, MissingDependency, RangeError, ShapeError
from voxgen.interop import DropInLayer, from_spconv, from_torchsparse, from_trellis, to_spconv, to_torchsparse, to_trellis


def doubled(x: SparseTensor) -> SparseTensor:
    return x.with_feats(2 * x.feats)


def assert_rows_agree(tensor: SparseTensor, order: torch.Tensor, coords: torch.Tensor, feats: torch.Tensor) -> None:
    assert torch.equal(tensor.coords, coords[order])
    assert torch.equal(tensor.feats, feats[order])


def assert_gradient_is_two(result: torch.Tensor, feats: torch.Tensor) -> None:
    upstream = torch.randn_like(result)
    (grad,) = torch.autograd.grad(result, feats, upstream)
    assert torch.equal(grad, 2 * upstream)


class TestTrellis:
    def test_there_and_back(self) -> None:
        feats, coords = rows()
        x = TrellisLike(feats, coords, scale=(2, 2, 2), cache={"a": 1})
        tensor, order = from_trellis(x)
        assert_rows_agree(tensor, order, coords, feats)
        assert tensor.grid.batch_size == 3
        assert tensor.grid.resolution == tuple((coords.amax(0)[1:] + 1).tolist())
        y = to_trellis(doubled(tensor), like=x, order=order)
        assert isinstance(y, TrellisLike)
        assert y.coords is coords
        assert y.scale == (2, 2, 2)
        assert y.cache is x.cache
        assert torch.equal(y.feats, 2 * feats)
        assert_gradient_is_two(y.feats, feats)

    def test_what_the_caller_says_wins(self) -> None:
        x = TrellisLike(*rows())
        tensor, _ = from_trellis(x, resolution=(8, 16, 32), batch_size=5)
        assert tensor.grid.resolution == (8, 16, 32)
        assert tensor.grid.batch_size == 5

    def test_a_new_tensor(self) -> None:
        tensor, order = from_trellis(TrellisLike(*rows()))
        y = to_trellis(tensor, make=TrellisLike)
        assert torch.equal(y.coords, tensor.coords)
        assert y.coords.data_ptr() != tensor.coords.data_ptr()  # foreign code may write to it
        assert torch.equal(y.feats, tensor.feats)
        in_order = to_trellis(tensor, make=TrellisLike, order=order)
        assert torch.equal(in_order.coords, rows()[1])

    def test_the_grid_shares_no_memory_with_the_foreign_tensor(self) -> None:
        feats, coords = rows()
        coords = coords[from_trellis(TrellisLike(feats, coords)).order].contiguous()
        tensor, order = from_trellis(TrellisLike(feats, coords))
        assert torch.equal(order, torch.arange(len(coords)))
        before = tensor.coords.clone()
        coords += 1
        assert torch.equal(tensor.coords, before)

    def test_empty(self) -> None:
        x = TrellisLike(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int32))
        tensor, order = from_trellis(x)
        assert (len(tensor), tensor.channels, tensor.grid.batch_size) == (0, 4, 0)
        assert from_trellis(x, batch_size=3).tensor.grid.batch_size == 3
        assert len(to_trellis(tensor, like=x, order=order).feats) == 0

    def test_wrong_input(self) -> None:
        feats, coords = rows()
        x = TrellisLike(feats, coords)
        tensor, order = from_trellis(x)
        with pytest.raises(DtypeError, match=r"from_trellis: needs a TRELLIS-style tensor with an attribute 'coords'; got \(3,\)"):
            from_trellis(torch.zeros(3))  # pyright: ignore
        with pytest.raises(DtypeError, match=r"coords must be .* int32.*int64"):
            from_trellis(TrellisLike(feats, coords.long()))
        with pytest.raises(ShapeError, match=r"feats must be \(n, c\)"):
            from_trellis(TrellisLike(feats[:, :, None], coords))
        with pytest.raises(ShapeError, match="equal rows; got 50 and 49"):
            from_trellis(TrellisLike(feats[:49], coords))
        with pytest.raises(DuplicateError, match=r"must be unique; 50 rows repeat"):
            from_trellis(TrellisLike(feats.repeat(2, 1), coords.repeat(2, 1)))
        with pytest.raises(RangeError, match=r"\(x\) must lie in \[0, 2\)"):
            from_trellis(x, resolution=2)
        with pytest.raises(RangeError, match=r"\(batch\) must lie in \[0, 2\)"):
            from_trellis(x, batch_size=2)
        with pytest.raises(RangeError, match="must not be negative"):
            from_trellis(TrellisLike(feats[:1], torch.tensor([[0, -1, -2, -3]], dtype=torch.int32)))
        with pytest.raises(RangeError, match="must have the cells of `like`"):
            to_trellis(tensor, like=x)  # order forgotten
        with pytest.raises(RangeError, match="50 rows against 49"):
            to_trellis(tensor, like=TrellisLike(feats[:49], coords[:49]), order=order)
        with pytest.raises(ShapeError, match=r"order must be \(50,\)"):
            to_trellis(tensor, like=x, order=order[:9])
        with pytest.raises(DtypeError, match="got none"):
            to_trellis(tensor)
        with pytest.raises(DtypeError, match="got both"):
            to_trellis(tensor, like=x, make=TrellisLike)


class TestTorchsparse:
    def test_there_and_back(self) -> None:
        feats, coords = rows()
        x = TorchsparseLike(feats, coords, (2, 2, 2), (4, 8, 9, 10))
        tensor, order = from_torchsparse(x)
        assert_rows_agree(tensor, order, coords, feats)
        assert (tensor.grid.batch_size, tensor.grid.resolution) == (4, (8, 9, 10))
        y = to_torchsparse(doubled(tensor), like=x, order=order)
        assert isinstance(y, TorchsparseLike)
        assert (y.stride, y.spatial_range) == ((2, 2, 2), (4, 8, 9, 10))
        assert y.coords is coords
        assert y._caches is x._caches
        assert_gradient_is_two(y.feats, feats)

    def test_without_a_range_the_box_and_the_largest_sample_count(self) -> None:
        feats, coords = rows()
        tensor, _ = from_torchsparse(TorchsparseLike(feats, coords))
        assert tensor.grid.batch_size == 3
        assert tensor.grid.resolution == tuple((coords.amax(0)[1:] + 1).tolist())

    def test_old_versions_put_the_batch_last_and_count_finest_cells(self) -> None:
        feats, coords = rows()
        x = OldTorchsparseLike(feats, torch.cat((coords[:, 1:] * 4, coords[:, :1]), 1), (4, 4, 4))
        tensor, order = from_torchsparse(x, version="2.0", resolution=8)
        assert_rows_agree(tensor, order, coords, feats)
        y = to_torchsparse(doubled(tensor), version="2.0", like=x, order=order)
        assert isinstance(y, OldTorchsparseLike)
        assert y.kmaps is x.kmaps
        assert_gradient_is_two(y.feats, feats)
        x.coords = x.coords + 1
        with pytest.raises(RangeError, match=r"multiples of the stride, \[4, 4, 4\]"):
            from_torchsparse(x, version="2.0")

    def test_a_new_tensor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tensor, _ = from_torchsparse(TorchsparseLike(*rows(), spatial_range=(4, 8, 8, 8)))
        with pytest.raises(MissingDependency, match="needs torchsparse"):
            to_torchsparse(tensor)
        package = ModuleType("torchsparse")
        package.SparseTensor = TorchsparseLike  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, "torchsparse", package)
        y = to_torchsparse(tensor, stride=2)
        assert (y.stride, y.spatial_range) == ((2, 2, 2), (4, 8, 8, 8))
        assert torch.equal(y.coords, tensor.coords)
        package.SparseTensor = OldTorchsparseLike  # pyright: ignore[reportAttributeAccessIssue]
        y = to_torchsparse(tensor, stride=2, version="2.0")
        assert torch.equal(y.coords[:, :3], 2 * tensor.grid.cells)
        assert torch.equal(y.coords[:, 3], tensor.grid.batch)


class TestSpconv:
    @pytest.mark.parametrize("axes", ["xyz", "zyx"])
    def test_there_and_back(self, axes: Any) -> None:
        feats, coords = rows()
        indices, shape = (coords, [8, 9, 10]) if axes == "xyz" else (coords[:, [0, 3, 2, 1]], [10, 9, 8])
        x = SpconvLike(feats, indices, shape, 4)
        tensor, order = from_spconv(x, axes=axes)
        assert_rows_agree(tensor, order, coords, feats)
        assert (tensor.grid.batch_size, tensor.grid.resolution) == (4, (8, 9, 10))
        y = to_spconv(doubled(tensor), axes=axes, like=x, order=order)
        assert isinstance(y, SpconvLike)
        assert y.indice_dict is x.indice_dict
        assert_gradient_is_two(y.features, feats)

    def test_wrong_input(self) -> None:
        feats, coords = rows()
        with pytest.raises(ShapeError, match=r"three dimensions; its spatial_shape is \[8, 8\]"):
            from_spconv(SpconvLike(feats, coords, [8, 8], 3))
        with pytest.raises(RangeError, match="'xyz', 'zyx'; got str 'zxy'"):
            from_spconv(SpconvLike(feats, coords, [8, 8, 8], 3), axes="zxy")  # pyright: ignore
        x = SpconvLike(feats, coords, [8, 8, 8], 3)
        tensor, order = from_spconv(x)
        with pytest.raises(RangeError, match="must have the cells of `like`"):
            to_spconv(tensor, axes="zyx", like=x, order=order)

    def test_a_missing_library_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
        with pytest.raises(MissingDependency, match="needs spconv"):
            to_spconv(from_trellis(TrellisLike(*rows())).tensor)

    @pytest.mark.parametrize("axes", ["xyz", "zyx"])
    @pytest.mark.filterwarnings("ignore::UserWarning:spconv")
    def test_the_real_library_means_the_same_volume(self, axes: Any) -> None:
        spconv = pytest.importorskip("spconv.pytorch", reason="package spconv is not installed", exc_type=ImportError)
        feats, coords = rows()
        tensor, _ = from_trellis(TrellisLike(feats, coords), resolution=(8, 9, 10), batch_size=4)
        x = to_spconv(tensor, axes=axes)
        assert isinstance(x, spconv.SparseConvTensor)
        volume = x.dense() if axes == "xyz" else x.dense().permute(0, 1, 4, 3, 2)
        assert torch.equal(volume, tensor.dense())
        again, order = from_spconv(x, axes=axes)
        assert again.grid.same_cells(tensor.grid)
        y = to_spconv(doubled(again), axes=axes, like=x, order=order)
        assert isinstance(y, spconv.SparseConvTensor)
        assert torch.equal(y.dense(), 2 * x.dense())


@pytest.mark.parametrize("item", [from_trellis, DropInLayer])
def test_examples_of_docstrings(item: Any) -> None:
    import doctest

    names = {**vars(interop), **vars(layers), "torch": torch, "x": TrellisLike(*rows())}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, item.__name__, globs=names)
    report: list[str] = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)
    assert test.examples


def test_nothing_foreign_is_imported() -> None:
    import subprocess

    code = "import sys, voxgen.interop; assert not {'trimesh', 'spconv', 'torchsparse', 'numba', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
