"""Layers of voxgen inside networks that pass foreign tensors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from foreign_tensors import OldTorchsparseLike, SpconvLike, TorchsparseLike, TrellisLike, rows
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.errors import DtypeError, RangeError
from voxgen.interop import DropInLayer, GridCache
from voxgen.layers import SparseConv3d, SparseConvNeXtBlock
from voxgen.testing.compare import difference


def dense_answer(conv: SparseConv3d, feats: Tensor, coords: Tensor) -> Tensor:
    """Rows of the dense convolution of the volume."""
    b, x, y, z = coords.long().unbind(1)
    volume = feats.new_zeros(3, 8, 8, 8, feats.shape[1]).index_put((b, x, y, z), feats).permute(0, 4, 1, 2, 3)
    weight = conv.weight.reshape(3, 3, 3, *conv.weight.shape[1:]).permute(4, 3, 0, 1, 2)
    return nn.functional.conv3d(volume, weight, conv.bias, padding=1).permute(0, 2, 3, 4, 1)[b, x, y, z]


def foreign(library: str, feats: Tensor, coords: Tensor) -> Any:
    if library == "trellis":
        return TrellisLike(feats, coords)
    if library == "torchsparse":
        return TorchsparseLike(feats, coords)
    if library == "torchsparse-2.0":
        return OldTorchsparseLike(feats, torch.cat((coords[:, 1:], coords[:, :1]), 1))
    indices = coords if library == "spconv" else coords[:, [0, 3, 2, 1]]
    return SpconvLike(feats, indices, [8, 8, 8], 3)


@pytest.mark.parametrize("library", ["trellis", "torchsparse", "torchsparse-2.0", "spconv", "spconv-zyx"])
def test_a_convolution_gives_what_the_dense_one_gives(library: Any) -> None:
    feats, coords = rows()
    conv = SparseConv3d(4, 6)
    x = foreign(library, feats, coords)
    y = DropInLayer(conv, library)(x)
    assert type(y) is type(x)
    found = y.features if library.startswith("spconv") else y.feats
    expected = dense_answer(conv, feats, coords)
    assert difference(found, expected) < 1e-5
    upstream = torch.randn_like(expected)
    wanted = [feats, *conv.parameters()]
    for a, e in zip(torch.autograd.grad(found, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True):
        assert difference(a, e) < 1e-5


class Counting(nn.Module):
    """Remembers the grids it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def forward(self, x: SparseTensor) -> SparseTensor:
        self.seen.append(x.grid)
        return x


def test_layers_with_one_cache_share_the_grid() -> None:
    feats, coords = rows()
    cache, seen = GridCache(), Counting()
    layers = [DropInLayer(seen, cache=cache) for _ in range(3)]
    x = TrellisLike(feats, coords)
    for layer in layers:
        x = layer(x)
    layers[0](TrellisLike(feats, coords.clone()))  # equal cells, another tensor
    assert len({id(g) for g in seen.seen}) == 1
    assert len(cache) == 1
    cache.clear()
    layers[0](x)
    assert seen.seen[-1] is not seen.seen[0]


def test_cells_that_change_in_place_are_seen() -> None:
    feats, coords = rows()
    layer = DropInLayer(SparseConv3d(4, 4))
    layer(TrellisLike(feats, coords))
    coords[:, 1:] = coords[:, 1:].flip(1).clone()
    assert torch.equal(layer(TrellisLike(feats, coords)).feats, DropInLayer(layer.layer)(TrellisLike(feats, coords)).feats)


def test_the_cache_changes_no_result_and_forgets_the_oldest() -> None:
    cache = GridCache(2)
    conv = SparseConv3d(4, 4)
    layer = DropInLayer(conv, cache=cache)
    inputs = [TrellisLike(*rows((n, 5))) for n in (10, 20, 30)]
    for x in [*inputs, *inputs]:
        assert torch.equal(layer(x).feats, DropInLayer(conv, cache=GridCache(0))(x).feats)
        assert len(cache) <= 2


def test_resolution_and_batch_size_are_told_apart() -> None:
    cache, seen = GridCache(), Counting()
    x = TrellisLike(*rows())
    for resolution, batch_size in ((None, None), (8, None), (16, None), (None, 7)):
        DropInLayer(seen, cache=cache, resolution=resolution, batch_size=batch_size)(x)
    found = [(g.resolution, g.batch_size) for g in seen.seen]
    assert found[1:3] == [((8, 8, 8), 3), ((16, 16, 16), 3)]
    assert found[3][1] == 7
    assert len(cache) == 4


def test_what_was_made_during_inference_serves_training() -> None:
    feats, coords = rows()
    layer = DropInLayer(SparseConvNeXtBlock(4))
    with torch.inference_mode():
        layer(TrellisLike(feats, coords))
    layer(TrellisLike(feats, coords)).feats.sum().backward()
    assert feats.grad is not None


def test_copies_start_with_an_empty_cache_that_they_share_as_before() -> None:
    cache = GridCache(3)
    network = nn.Sequential(DropInLayer(SparseConv3d(4, 4), cache=cache), DropInLayer(SparseConv3d(4, 4), cache=cache))
    network(TrellisLike(*rows()))
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        copies: list[Any] = [layer.cache for layer in copied]
        assert copies[0] is copies[1]
        assert (copies[0].size, len(copies[0])) == (3, 0)
    assert list(network.state_dict()) == ["0.layer.weight", "0.layer.bias", "1.layer.weight", "1.layer.bias"]


def test_empty_tensors() -> None:
    y = DropInLayer(SparseConv3d(4, 6))(TrellisLike(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int32)))
    assert y.feats.shape == (0, 6)


class ToTuple(nn.Module):
    def forward(self, x: SparseTensor) -> tuple[SparseTensor, int]:
        return x, 1


def test_wrong_layers_and_input() -> None:
    x = TrellisLike(*rows())
    with pytest.raises(RangeError, match=r"must keep the cells; it made \d+ of 50"):
        DropInLayer(SparseConv3d(4, 4, 2, stride=2))(x)
    with pytest.raises(DtypeError, match="must return a SparseTensor"):
        DropInLayer(ToTuple())(x)
    with pytest.raises(RangeError, match="library must be one of 'trellis'"):
        DropInLayer(SparseConv3d(4, 4), "minkowski")  # pyright: ignore
    with pytest.raises(DtypeError, match=r"coords must be .* int32"):
        DropInLayer(SparseConv3d(4, 4))(TrellisLike(x.feats, x.coords.long()))
