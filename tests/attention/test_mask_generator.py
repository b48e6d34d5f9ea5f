"""The mask generator: levels, teacher forcing, scheduled sampling, thresholds, batches, bad input."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch

from voxgen.attention import MaskGenerator, mask_targets
from voxgen.core import SparseTensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.losses import mask_bce
from voxgen.ops.candidates import level_structures
from voxgen.ops.resample import Structure
from voxgen.ops.surface_cells import surface_channels, surface_grid
from voxgen.testing import shapes
from voxgen.testing.grids import random_grid

WIDTH = 6


def generator_of(geometry: int = 0, **options: Any) -> MaskGenerator:
    fields: dict[str, Any] = {"model_channels": 24, "num_blocks": 2, "heads": 4, "window": 4, "widths": (12,)}
    return MaskGenerator(WIDTH, geometry, **{**fields, **options})


def case(*counts: int) -> tuple[SparseTensor, tuple[Structure, ...]]:
    steps = level_structures(random_grid(counts, 32), 2)
    grid = steps[0].parents
    return SparseTensor(grid, torch.randn(len(grid), WIDTH)), steps


def test_teacher_forcing_gives_the_true_cells_and_logits_of_all_their_children() -> None:
    z, steps = case(200, 0, 100)
    found = generator_of()(z, structures=steps)
    assert all(a is b for a, b in zip(found.structures, steps, strict=True))
    assert [tuple(s.shape) for s in found.logits] == [(len(step.parents), 8) for step in steps]
    assert all(torch.equal(a, b.mask()) for a, b in zip(mask_targets(found, steps), steps, strict=True))
    loss = mask_bce(found.logits, mask_targets(found, steps))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2 * 0.69, abs=0.3)  # untrained: about ln 2 a level


def test_prediction_goes_on_from_what_it_keeps() -> None:
    z, _ = case(60, 0, 30)
    net = generator_of()
    found = net(z)
    first, second = found.structures
    assert first.parents is z.grid
    assert second.parents is first.children
    for structure, logits in zip(found.structures, found.logits, strict=True):
        best = torch.nn.functional.one_hot(logits.argmax(1), 8).bool()
        assert torch.equal(structure.mask(), (logits > 0) | best)
    given = net(z, structures=found.structures)  # its own prediction as if it were true: the same logits
    assert all(torch.equal(a, b) for a, b in zip(found.logits, given.logits, strict=True))


def test_scheduled_sampling_keeps_all_true_cells_and_knows_what_is_true() -> None:
    z, steps = case(100, 0, 50)
    found = generator_of()(z, structures=steps, union=1.0)
    truth = mask_targets(found, steps)
    for made, step, mask in zip(found.structures, steps, truth, strict=True):
        assert bool((made.children.rows_of(step.children.coords) >= 0).all())
        assert int(mask.sum()) == len(step.children)
        children = Structure.of_mask(made.parents, mask).children
        assert torch.equal(children.coords, step.children.coords)
    assert len(found.structures[1].children) > len(steps[1].children)
    again = generator_of()(z, structures=steps, union=0.0)
    assert again.structures[1] is steps[1]


def test_thresholds_are_calibrated_level_by_level_and_saved() -> None:
    z, steps = case(150, 80)
    net = generator_of()
    with torch.no_grad():
        prediction = net(z, structures=steps)
        thresholds = net.calibrate(prediction, steps, recall=0.9)
    for logits, step, threshold in zip(prediction.logits, steps, thresholds, strict=True):
        mask = step.mask()
        assert int((logits[mask] > threshold).sum()) >= 0.9 * int(mask.sum())
    other = generator_of()
    other.load_state_dict(net.state_dict())
    assert [float(p.threshold) for p in other.predict] == list(thresholds)


def test_learns_two_levels_from_the_numbers_of_the_surface() -> None:
    mesh = shapes.rotated(shapes.torus())
    x = surface_channels(mesh, 16)
    steps = level_structures(surface_grid(mesh, 64), 2)
    assert steps[0].parents.same_cells(x.grid)
    net = generator_of(15, num_blocks=1, model_channels=48, widths=(32,))
    z = x.with_feats(torch.zeros(len(x), WIDTH))
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(60):
        loss = mask_bce(net(z, x.feats, structures=steps).logits, [s.mask() for s in steps])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = net(z, x.feats, structures=steps)
    accuracy = [float(((s > 0) == step.mask()).float().mean()) for s, step in zip(found.logits, steps, strict=True)]
    assert accuracy[0] > 0.88
    assert accuracy[1] > 0.75


def test_samples_do_not_meet_and_may_be_empty() -> None:
    net = generator_of().eval()
    z, _ = case(60, 0, 30)
    with torch.no_grad():
        whole = net(z)
        alone = [net(part) for part in z.unbind()]
    parts = whole.structures[-1].children
    for sample, one in enumerate(alone):
        assert torch.equal(parts.sample(sample).coords, one.structures[-1].children.coords)
    empty = net(SparseTensor(random_grid((0, 0), 8), torch.zeros(0, WIDTH)))
    assert len(empty.structures[-1].children) == 0


def test_example() -> None:
    names: dict[str, Any] = {"MaskGenerator": MaskGenerator, "SparseTensor": SparseTensor, "torch": torch}
    names["structure"] = Structure.of_children(random_grid((20, 0, 9), 12))
    (test,) = doctest.DocTestFinder(recurse=False).find(MaskGenerator, globs=names)
    report: list[str] = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda n, z, s: n(z, torch.zeros(len(z), 3)), RangeError, "if and only if"),
    (lambda n, z, s: n(z, structures=s[:1]), ShapeError, "one for each of 2 levels"),
    (lambda n, z, s: n(z, structures=s[::-1]), RangeError, "cells of x"),
    (lambda n, z, s: n(z, union=0.5), RangeError, "union"),
    (lambda n, z, s: n(z, structures=s, union=-0.5), RangeError, "union"),
    (lambda n, z, s: n(z.with_feats(z.feats[:, :3])), ShapeError, "6 channels"),
    (lambda n, z, s: generator_of(3)(z), RangeError, "if and only if"),
    (lambda n, z, s: generator_of(3)(z, torch.zeros(len(z), 4)), ShapeError, "geometry"),
    (lambda n, z, s: MaskGenerator(0), RangeError, "latent_channels"),
    (lambda n, z, s: MaskGenerator(4, widths=(0,)), RangeError, "widths"),
]


@pytest.mark.parametrize(("attempt", "error", "message"), BAD)
def test_bad_input(attempt: Any, error: type[Exception], message: str) -> None:
    z, steps = case(20, 10)
    with pytest.raises(error, match=message):
        attempt(generator_of(), z, steps)
