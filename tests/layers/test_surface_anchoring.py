"""The surface-anchoring upsampler: what decides, the threshold, what is never made, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from voxgen.core import SparseTensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import ChildPredictor, OctantUpsample, ResidualUpsample, SurfaceAnchoringUpsampler
from voxgen.losses import mask_bce
from voxgen.ops.candidates import level_structures
from voxgen.ops.resample import Structure
from voxgen.ops.surface_cells import surface_channels, surface_grid
from voxgen.testing import shapes
from voxgen.testing.grids import random_grid

WIDTH = 16


def tensor(*counts: int, channels: int = WIDTH) -> SparseTensor:
    grid = random_grid(counts, 12)
    return SparseTensor(grid, torch.randn(len(grid), channels))


def layer_of(channels: int = WIDTH, out_channels: int = 8, **options: Any) -> SurfaceAnchoringUpsampler:
    layer = SurfaceAnchoringUpsampler(channels, out_channels, **options)
    with torch.no_grad():
        layer.predict.hidden.weight.normal_(0, 1)
        layer.predict.logits.weight.normal_(0, 1)
        layer.predict.logits.bias.fill_(-1.0)
    return layer


def test_the_true_structure_gives_exactly_the_true_cells_of_every_level() -> None:
    finest = surface_grid(shapes.rotated(shapes.torus()), 64)
    steps = level_structures(finest, 2)
    h = SparseTensor(steps[0].parents, torch.randn(len(steps[0].parents), WIDTH))
    for step in steps:
        out = layer_of(h.channels)(h, structure=step, source="gt")
        assert torch.equal(out.structure.mask(), step.mask())
        h = out.x
    assert h.grid.same_cells(finest)


def test_what_decides() -> None:
    x = tensor(30, 0, 12)
    layer = layer_of()
    with torch.no_grad():
        layer.predict.logits.bias -= layer.predict(x).amax(1).median()  # half of the cells have no logit above 0
    own = layer(x)
    keep = own.logits > 0
    assert torch.equal(own.structure.mask(), keep | (own.logits == own.logits.amax(1, keepdim=True)))
    assert int((~keep).all(1).sum()) > 0, "no cell was saved by its largest logit: the test shows nothing"
    assert int(own.structure.mask().sum(1).min()) >= 1
    same: list[dict[str, Any]] = [
        {"source": "predicted"},
        {"mask": own.logits},
        {"mask": own.structure.mask()},
        {"structure": own.structure},
    ]
    for given in same:
        other = layer(x, **given)
        assert torch.equal(other.x.coords, own.x.coords)
        assert torch.equal(other.x.feats, own.x.feats)
        assert torch.equal(other.logits, own.logits)
    assert len(layer(x, source="all").x) == 8 * len(x)
    none = torch.zeros(len(x), 8, dtype=torch.bool)
    none[0, 3] = True
    assert len(layer(x, mask=none).x) == 1  # booleans are taken as they are


def test_union_keeps_every_true_child_and_predicted_ones() -> None:
    x = tensor(30, 0, 12)
    layer, truth = layer_of(), Structure.of_mask(x.grid, torch.rand(len(x), 8) < 0.4)
    predicted = layer(x).structure.mask()
    both = layer(x, structure=truth, union=1.0).structure.mask()
    assert torch.equal(both, truth.mask() | predicted)
    assert torch.equal(layer(x, structure=truth, union=0.0).structure.mask(), truth.mask())
    generator = torch.Generator().manual_seed(1)
    counts = [len(layer(x, structure=truth, union=0.3, generator=generator).x) for _ in range(60)]
    taken = sum(count > int(truth.mask().sum()) for count in counts)
    assert 6 <= taken <= 32  # 18 expected, standard deviation 3.5


def test_features_are_the_parents_and_the_octants() -> None:
    x = tensor(9)
    layer = OctantUpsample(WIDTH, WIDTH)  # new: its second convolution is zero
    structure = Structure.of_mask(x.grid)
    out = layer(x, structure)
    expected = x.feats[structure.parent.long()] + layer.position[structure.slot.long()]
    assert torch.equal(out.feats, expected)
    assert len(out.feats.unique(dim=0)) == len(out)  # no two children alike


class Recorder(TorchDispatchMode):
    """Sizes of all float tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.shapes.append(tuple(value.shape))
        return result


@pytest.mark.parametrize("training", [True, False])
def test_no_tensor_has_features_for_a_dropped_child(training: bool) -> None:
    x = tensor(200, 0, 100, channels=32)
    layer = SurfaceAnchoringUpsampler(32, 24)
    structure = Structure.of_mask(x.grid, torch.rand(len(x), 8) < 0.25)
    kept = len(structure.children)
    with torch.set_grad_enabled(training), Recorder() as recorded:
        result = layer(x.with_feats(x.feats.clone().requires_grad_(training)), structure=structure)
        if training:
            (result.x.feats.sum() + result.logits.sum()).backward()
    assert kept < 3 * len(x)
    rows = {s[0] for s in recorded.shapes if len(s) >= 2 and s[0] > 64}  # weights have fewer
    assert rows == {len(x), kept}
    assert max(math.prod(s) for s in recorded.shapes if s and s[0] in rows) <= max(len(x), kept) * 32  # 8N·C would be 3 times that


def test_threshold_is_calibrated_by_recall_and_travels_with_the_weights() -> None:
    predictor = ChildPredictor(WIDTH)
    logits, targets = torch.randn(400, 8), torch.rand(400, 8) < 0.5
    logits = logits + targets
    for recall in (0.9, 0.99, 1.0):
        threshold = predictor.calibrate(logits, targets, recall)
        above = logits > predictor.threshold
        reached = int((above & targets).sum()) / int(targets.sum())
        assert recall <= reached < recall + 2 / int(targets.sum())  # the highest threshold, up to one child
        assert threshold == float(predictor.threshold)
    other = ChildPredictor(WIDTH)
    other.load_state_dict(predictor.state_dict(), strict=True)
    assert torch.equal(other.threshold, predictor.threshold)
    assert torch.equal(other.keep(logits), predictor.keep(logits))


def test_long_inputs_go_in_pieces_with_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = tensor(100, 30)
    predictor = ChildPredictor(WIDTH, 24, context=False)
    whole = predictor(x).detach()
    monkeypatch.setattr("voxgen.layers._child_predictor.CHUNK", 7)
    with torch.no_grad():
        assert torch.allclose(predictor(x), whole, atol=1e-6)  # float32 products in pieces round elsewhere


def test_empty_and_single_cells() -> None:
    layer = layer_of()
    for counts in ((0,), (0, 0, 0), (1,), (0, 1, 0)):
        x = tensor(*counts)
        out = layer(x)
        assert out.logits.shape == (len(x), 8)
        assert out.x.grid.batch_size == len(counts)
        assert len(out.x) >= len(x)


def test_learns_a_mask_from_where_the_surface_lies() -> None:
    """A tilted plane: with sub-voxel channels the mask is learned in a few steps; always keeping all is 50 % accurate."""
    mesh = shapes.rotated(shapes.torus())
    x = surface_channels(mesh, 16)
    step = level_structures(surface_grid(mesh, 32))[0]
    assert step.parents.same_cells(x.grid)
    predictor = ChildPredictor(x.channels, 48)
    optimiser = torch.optim.Adam(predictor.parameters(), 1e-2)
    for _ in range(80):
        loss = mask_bce([predictor(x)], [step.mask()])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        accuracy = float(((predictor(x) > 0) == step.mask()).float().mean())
    assert accuracy > 0.9


def test_loss_is_the_sum_over_levels_of_means() -> None:
    logits = [torch.zeros(3, 8), torch.zeros(5, 8)]
    targets = [torch.ones(3, 8, dtype=torch.bool), torch.zeros(5, 8, dtype=torch.bool)]
    assert float(mask_bce(logits, targets)) == pytest.approx(2 * math.log(2), rel=1e-6)
    with pytest.raises(RangeError, match="level"):
        mask_bce([], [])


def test_other_modules_fit_in() -> None:
    x = tensor(20)
    out = SurfaceAnchoringUpsampler(WIDTH, 8, upsample=ResidualUpsample(WIDTH, 8))(x)
    assert out.x.channels == 8


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda m, x, s: m(x, structure=s, mask=s.mask()), RangeError, "at most one"),
    (lambda m, x, s: m(x, structure=s, source="predicted"), RangeError, "'gt' needs a structure"),
    (lambda m, x, s: m(x, source="gt"), RangeError, "'gt' needs a structure"),
    (lambda m, x, s: m(x, mask=s.mask(), source="all"), RangeError, "with a mask"),
    (lambda m, x, s: m(x, source="some"), RangeError, "source"),
    (lambda m, x, s: m(x, union=0.5), RangeError, "union"),
    (lambda m, x, s: m(x, structure=s, union=1.5), RangeError, "union"),
    (lambda m, x, s: m(x, structure=Structure.of_mask(s.children)), RangeError, "cells of x"),
    (lambda m, x, s: m(x, mask=torch.zeros(3, 8)), ShapeError, "mask"),
    (lambda m, x, s: m(x, mask=torch.zeros(len(x), 8, dtype=torch.int32)), DtypeError, "mask"),
    (lambda m, x, s: m(x.with_feats(x.feats[:, :4])), ShapeError, "channels"),
    (lambda m, x, s: m(x.to(torch.float64)), DtypeError, "dtype"),
    (lambda m, x, s: m.predict.calibrate(torch.zeros(2, 8), torch.zeros(2, 8, dtype=torch.bool)), RangeError, "true"),
    (lambda m, x, s: m.predict.calibrate(torch.zeros(2, 8), torch.ones(2, 8, dtype=torch.bool), 0.0), RangeError, "recall"),
    (lambda m, x, s: m.predict.calibrate(torch.full((2, 8), math.nan), torch.ones(2, 8, dtype=torch.bool)), RangeError, "finite"),
    (lambda m, x, s: m.predict.calibrate(torch.zeros(2, 8), torch.ones(2, 7, dtype=torch.bool)), ShapeError, "targets"),
    (lambda m, x, s: SurfaceAnchoringUpsampler(0, 8), RangeError, "channels"),
]


@pytest.mark.parametrize(("attempt", "error", "message"), BAD)
def test_bad_input(attempt: Any, error: type[Exception], message: str) -> None:
    x = tensor(10)
    with pytest.raises(error, match=message):
        attempt(layer_of(), x, Structure.of_mask(x.grid, torch.ones(len(x), 8, dtype=torch.bool)))
