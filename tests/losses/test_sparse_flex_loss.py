"""The sum that Focusing trains with: what it adds up, its schedule, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.errors import RangeError, ShapeError
from voxgen.losses import RenderTarget, SparseFlexVAELoss, geometric_tsdf, kl_divergence, sparse_total_variation, tsdf_l1
from voxgen.ops.cube_corners import corner_neighbors
from voxgen.representations import SparseFlex
from voxgen.testing.grids import full_grid
from voxgen.testing.shapes import sphere

RESOLUTION = 8


def _inputs(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(RESOLUTION**3, 53, generator=generator, dtype=torch.float64).mul(0.3).requires_grad_()
    field = SparseFlex.predict(full_grid(RESOLUTION), feats)
    latent = torch.randn(2, 10, 4, generator=generator, dtype=torch.float64)
    return {
        "mean": latent[0],
        "logvar": latent[1],
        "corners": field.flex.corners,
        "voxel_size": 1 / RESOLUTION,
        "at_cells": field.at_cells,
        "at_corners": field.at_corners,
        "feats": feats,
        "tsdf": geometric_tsdf(field.flex.positions, sphere(0.3, 2), 3 / RESOLUTION),
        "surface": field.flex.surface(training=True),
        "occupancy_logits": [torch.randn(8, 8, generator=generator), torch.randn(20, 8, generator=generator)],
        "occupancies": [torch.ones(8, 8, dtype=torch.bool), torch.zeros(20, 8, dtype=torch.bool)],
    }


def test_total_is_the_weighted_sum_of_its_terms() -> None:
    inputs, loss = _inputs(), SparseFlexVAELoss()
    result = loss(step=0, **inputs)
    assert list(result.terms) == ["occupancy_0", "occupancy_1", "kl", "flex_consistency", "flex_weights", "tv", "flex_deviation", "tsdf"]
    weights = {"occupancy_0": 1, "occupancy_1": 1, "kl": 1e-6, "flex_consistency": 1, "flex_weights": 0.2, "tv": 1e-3}
    weights |= {"flex_deviation": 0.5, "tsdf": 1}
    assert float(result.total.detach()) == pytest.approx(sum(w * float(result.terms[n].detach()) for n, w in weights.items()), rel=1e-6)
    sdf = inputs["at_corners"][:, 0]
    torch.testing.assert_close(result.terms["tsdf"], tsdf_l1(sdf, inputs["tsdf"], voxel_size=1 / RESOLUTION))
    torch.testing.assert_close(result.terms["kl"], kl_divergence(inputs["mean"], inputs["logvar"]))
    torch.testing.assert_close(
        result.terms["tv"], sparse_total_variation(sdf, corner_neighbors(inputs["corners"]), voxel_size=1 / RESOLUTION)
    )
    torch.testing.assert_close(result.terms["flex_weights"], inputs["feats"][:, 32:52].abs().mean())
    torch.testing.assert_close(
        result.terms["flex_consistency"], (inputs["at_cells"] - inputs["at_corners"][inputs["corners"].index.long()]).square().mean()
    )
    result.total.backward()
    gradient = inputs["feats"].grad
    assert bool(gradient.isfinite().all())
    assert bool((gradient[:, :8] != 0).any())
    assert bool((gradient[:, 32:52] != 0).any())


def test_schedule_of_the_warm_up() -> None:
    inputs, loss = _inputs(), SparseFlexVAELoss(warm_up=100)
    assert "tsdf" in loss(step=99, **inputs).terms
    later = {name: value for name, value in inputs.items() if name != "tsdf"}
    assert "tsdf" not in loss(step=100, **later).terms
    with pytest.raises(RangeError, match="in the first 100 steps tsdf must be given, this is step 99"):
        loss(step=99, **later)
    assert "tsdf" not in SparseFlexVAELoss(warm_up=0)(step=0, **later).terms


@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
def test_zero_initialised_decoder_is_moved_by_the_warm_up_only() -> None:
    inputs = _inputs()
    feats = torch.zeros(RESOLUTION**3, 53, requires_grad=True)
    field = SparseFlex.predict(full_grid(RESOLUTION), feats)
    surface = field.flex.surface(training=True)
    assert len(surface.faces) == 0
    torch.testing.assert_close(field.flex.sdf, torch.full_like(field.flex.sdf, -1 / RESOLUTION))
    inputs |= {"feats": feats, "at_cells": field.at_cells, "at_corners": field.at_corners, "surface": surface}
    inputs["tsdf"] = inputs["tsdf"].float()
    gradients = []
    for step in (0, 10**6):
        (gradient,) = torch.autograd.grad(SparseFlexVAELoss()(step=step, **inputs).total, feats, retain_graph=True)
        assert bool(gradient.isfinite().all())
        gradients.append(gradient)
    assert bool((gradients[0][:, :8] != 0).any())
    assert float(gradients[1].abs().max()) == 0


def test_render_terms_take_part() -> None:
    inputs = _inputs()
    camera = Camera.look_at(torch.tensor([[0.0, 0, 2]]), width=4, height=4)
    target = RenderTarget(camera, torch.zeros(1, dtype=torch.int64), meshes=(sphere(),))
    seen = []

    def render(prediction: object, views: RenderTarget) -> Mapping[str, Tensor]:
        seen.append((prediction, views))
        return {"depth": torch.tensor(0.5), "mask": torch.tensor(0.25)}

    meshes = inputs["surface"].to_meshes()
    result = SparseFlexVAELoss(render=render)(step=0, meshes=meshes, views=target, **inputs)
    plain = SparseFlexVAELoss()(step=0, **inputs)
    assert float((result.total - plain.total).detach()) == pytest.approx(10 * 0.5 + 0.25, rel=1e-5)
    assert seen == [(meshes, target)]
    with pytest.raises(RangeError, match="meshes and views must be given"):
        SparseFlexVAELoss(render=render)(step=0, **inputs)
    with pytest.raises(RangeError, match="render must give terms among"):
        SparseFlexVAELoss(render=lambda _, __: {"color": torch.tensor(0.0)})(step=0, meshes=meshes, views=target, **inputs)


def test_bad_input_is_refused() -> None:
    inputs = _inputs()
    with pytest.raises(RangeError, match="tv must be a finite weight"):
        SparseFlexVAELoss(tv=-1)
    with pytest.raises(RangeError, match="warm_up"):
        SparseFlexVAELoss(warm_up=-1)
    with pytest.raises(RangeError, match="step"):
        SparseFlexVAELoss()(step=-1, **inputs)
    with pytest.raises(ShapeError, match="feats must be"):
        SparseFlexVAELoss()(step=0, **(inputs | {"feats": inputs["feats"][:, :52]}))
    with pytest.raises(ShapeError, match="at_corners must be"):
        SparseFlexVAELoss()(step=0, **(inputs | {"at_corners": inputs["at_corners"][:5]}))
    names = ("occupancy", "kl", "flex_consistency", "flex_deviation", "flex_weights", "tv", "tsdf")
    with pytest.raises(RangeError, match="at least one of the terms"):
        SparseFlexVAELoss(**dict.fromkeys(names, 0.0))(step=0, **inputs)
