"""Early pruning: what it computes, and what it never computes."""

from __future__ import annotations

import math

import pytest
import torch
from layer_cases import WIDTH, made, tensor  # pyright: ignore[reportMissingImports]
from recorded import Recorder
from torch import nn
from torch.nn import functional as F

from voxgen.core import SparseTensor
from voxgen.core.errors import EmptyResultWarning, ShapeError
from voxgen.layers import (
    EarlyPruningUpsampler,
    NearestUpsample,
    ResidualDownsample,
    SparseConvNeXtBlock,
)
from voxgen.ops.resample import Structure
from voxgen.testing.compare import TOLERANCE, assert_same

FLOAT = TOLERANCE[torch.float32]


@pytest.mark.parametrize("upsample", [None, NearestUpsample(WIDTH, 24)])
@pytest.mark.parametrize("training", [True, False])
def test_no_tensor_has_a_row_for_a_dropped_child(upsample: nn.Module | None, training: bool) -> None:
    x = tensor(60, 0, 40)
    layer = EarlyPruningUpsampler(WIDTH, 24, upsample)
    with torch.no_grad():
        layer.predict.weight.normal_(0, 0.25)
        layer.predict.bias.fill_(-0.6)  # a quarter of the children
    with torch.set_grad_enabled(training), Recorder() as recorded:
        result = layer(x.with_feats(x.feats.clone().requires_grad_(training)))
        if training:
            result.x.feats.sum().backward()
    kept = len(result.x)
    assert len(x) < kept < 3 * len(x)  # of eight times as many
    rows = {s[0] for s in recorded.shapes if len(s) >= 2 and s[0] > 64}  # weights have 27 or fewer
    assert rows == {len(x), kept}
    if not training:  # in inference not even channels of dropped children are made
        assert max(math.prod(s) for s in recorded.shapes if s and s[0] in rows) <= kept * 24


def test_what_decides_which_children_there_are() -> None:
    x = tensor(30, 0, 12)
    layer = made("early-pruning")
    predicted = layer(x)
    assert_same(predicted.logits, F.linear(x.feats, layer.predict.weight, layer.predict.bias), "logits", FLOAT)
    assert torch.equal(predicted.structure.mask(), predicted.logits > 0)
    assert predicted.x.grid is predicted.structure.children
    assert predicted.structure.parents is x.grid
    for given in ({"mask": predicted.logits}, {"mask": predicted.logits > 0}, {"structure": predicted.structure}):
        other = layer(x, **given)
        assert torch.equal(other.x.coords, predicted.x.coords)
        assert torch.equal(other.x.feats, predicted.x.feats)
        assert torch.equal(other.logits, predicted.logits)
    layer.threshold = 0.5
    assert torch.equal(layer(x).structure.mask(), predicted.logits > 0.5)
    assert torch.equal(layer(x, mask=predicted.logits).structure.mask(), predicted.logits > 0.5)
    every = layer(x, mask=torch.ones(len(x), 8, dtype=torch.bool))
    assert len(every.x) == 8 * len(x)


def test_the_decision_has_no_gradient_and_logits_and_features_have() -> None:
    x = tensor(20)
    layer = made("early-pruning")
    layer(x).x.feats.sum().backward()
    assert layer.predict.weight.grad is None
    assert layer.upsample.conv1.weight.grad is not None
    layer(x).logits.sum().backward()
    assert layer.predict.weight.grad is not None


def test_a_mask_that_keeps_nothing() -> None:
    x = tensor(20, 0, 5)
    layer = made("early-pruning")
    none = torch.zeros(len(x), 8, dtype=torch.bool)
    with pytest.warns(EmptyResultWarning, match="keeps no child"):
        result = layer(x, mask=none)
    assert tuple(result.x.feats.shape) == (0, 8)
    assert result.x.grid.batch_size == 3
    assert result.x.grid.resolution == (24, 24, 24)
    later = EarlyPruningUpsampler(8, 8)(SparseConvNeXtBlock(8)(result.x))  # nothing to warn of: there was nothing
    assert len(later.x) == 0
    down, _ = ResidualDownsample(8, 16)(later.x)
    assert (len(down), down.grid.resolution) == (0, (24, 24, 24))
    (later.x.feats.sum() + result.logits.sum()).backward()
    with torch.no_grad():
        layer.predict.bias.fill_(-1e9)
    with pytest.warns(EmptyResultWarning):
        assert len(layer(x).x) == 0


def test_a_cell_whose_logits_are_nan_has_no_children() -> None:
    x = tensor(20)
    x.feats[3] = float("nan")
    result = made("early-pruning")(x)
    assert bool(result.logits[3].isnan().all())
    assert 3 not in result.structure.parent.tolist()


def test_a_module_of_the_users_own() -> None:
    class Lean(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, width)

        def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
            return SparseTensor(structure.children, self.linear(x.feats)[structure.parent])

    x = tensor(20)
    assert EarlyPruningUpsampler(WIDTH, 5, Lean(5))(x).x.channels == 5
    with pytest.raises(ShapeError, match=r"upsample must give a SparseTensor of 7 channels on the .* cells"):
        EarlyPruningUpsampler(WIDTH, 7, Lean(5))(x)
    with pytest.raises(ShapeError, match="upsample must give"):
        EarlyPruningUpsampler(WIDTH, WIDTH, _FirstArgument())(x)


class _FirstArgument(nn.Module):
    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        return x
