"""Terms of losses: against sums written out, published numbers, and at the ends of their ranges."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from voxgen import losses
from voxgen.core.batching import offsets_from_counts
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.metrics import ssim

GOLDEN = Path(__file__).parents[1] / "golden"


def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    spec = importlib.util.spec_from_file_location("recipe", GOLDEN / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return torch.from_numpy(recipe.normal(name, shape, 0))


def published(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def bce_by_hand(logits: Tensor, target: Tensor) -> list[list[float]]:
    return [
        [softplus(x) - x * float(t) for x, t in zip(row, flags, strict=True)] for row, flags in zip(logits.tolist(), target, strict=True)
    ]


def test_subdivision_bce_is_one_mean_a_level() -> None:
    sizes = (3, 7)
    logits = [torch.randn(n, 8, dtype=torch.float64) * 5 for n in sizes]
    targets = [torch.rand(n, 8) > 0.5 for n in sizes]
    found = losses.subdivision_bce(logits, targets)
    expected = [sum(map(sum, bce_by_hand(x, t))) / x.numel() for x, t in zip(logits, targets, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert losses.subdivision_bce([], []).shape == (0,)


def test_crossing_bce_of_sure_logits() -> None:
    flags = torch.tensor([[True, False, True]])
    logits = torch.tensor([[200.0, -200.0, -200.0]], requires_grad=True)
    loss = losses.crossing_bce(logits, flags)
    assert float(loss.detach()) == pytest.approx(200 / 3)  # two right ones cost nothing, the wrong one its logit
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0, -1 / 3]]))


def test_dual_vertex_mse_and_materials() -> None:
    a = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.5, 0.5]])
    b = torch.zeros(2, 3)
    assert float(losses.dual_vertex_mse(a, b)) == pytest.approx(5.75 / 6)
    assert float(losses.material_l2(a, b)) == pytest.approx(5.75 / 6)
    assert float(losses.material_l1(a, b)) == pytest.approx(4.5 / 6)


def test_kl_divergence_is_that_of_torch() -> None:
    mean, logvar = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    posterior = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).mean()
    torch.testing.assert_close(losses.kl_divergence(mean, logvar), expected)
    assert float(losses.kl_divergence(torch.zeros(3, 4), torch.zeros(3, 4))) == 0
    tiny = losses.kl_divergence(torch.zeros(1, 1), torch.full((1, 1), 1e-3))  # v² / 4, which e^v − v − 1 loses in float32
    assert float(tiny) == pytest.approx(2.5e-7, rel=1e-3)


def test_kl_divergence_of_the_gaussian_trainer() -> None:
    facts = published("trellis_gs_losses")
    mean, logvar = normal("mu", (50, 8)), 0.5 * normal("logvar", (50, 8))
    assert float(losses.kl_divergence(mean, logvar)) == pytest.approx(facts["kl"], rel=1e-5)


def each_term() -> dict:
    """Every term as a function of one (n, 3) prediction and offsets."""
    return {
        "subdivision_bce": lambda x, o: losses.subdivision_bce([x], [torch.ones_like(x) > 0], None if o is None else [o]).sum(),
        "crossing_bce": lambda x, o: losses.crossing_bce(x, torch.ones_like(x) > 0, o),
        "dual_vertex_mse": lambda x, o: losses.dual_vertex_mse(x, torch.zeros_like(x), o),
        "material_l1": lambda x, o: losses.material_l1(x, torch.zeros_like(x), o),
        "material_l2": lambda x, o: losses.material_l2(x, torch.zeros_like(x), o),
        "kl_divergence": lambda x, o: losses.kl_divergence(x, 0.5 * x, o),
    }


@pytest.mark.parametrize("name", each_term())
def test_each_sample_counts_the_same(name: str) -> None:
    term = each_term()[name]
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    bounds = offsets_from_counts([2, 0, 6, 1, 0])
    found = term(x, bounds)
    alone = [term(x[a:b], None) for a, b in ((0, 2), (2, 8), (8, 9))]
    torch.testing.assert_close(found, sum(alone) / 3)
    one, other = torch.autograd.grad(found, x)[0], torch.autograd.grad(torch.stack(alone).mean(), x)[0]
    torch.testing.assert_close(one, other)
    assert not torch.isclose(found, term(x, None))
    torch.testing.assert_close(term(x, offsets_from_counts([9])), term(x, None))


@pytest.mark.parametrize("bounds", [None, offsets_from_counts([0, 0]), offsets_from_counts([])])
@pytest.mark.parametrize("name", each_term())
def test_nothing_to_average_is_zero_with_a_gradient(name: str, bounds: Tensor | None) -> None:
    weight = torch.ones(3, requires_grad=True)
    loss = each_term()[name](torch.zeros(0, 3) * weight, bounds)
    loss.backward()
    assert float(loss.detach()) == 0
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", each_term())
def test_half_inputs_are_averaged_in_single(name: str, dtype: torch.dtype) -> None:
    x = (torch.randn(40, 3) * 40).to(dtype).requires_grad_()  # squares sum to more than float16 holds
    if name == "kl_divergence":
        x = (torch.randn(40, 3) * 4).to(dtype).requires_grad_()
    loss = each_term()[name](x, None)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, each_term()[name](x.detach().float(), None), rtol=1e-6, atol=0)
    loss.backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("name", each_term())
def test_what_is_not_finite_shows(name: str) -> None:
    x = torch.zeros(4, 3)
    x[1, 1] = math.nan
    assert bool(each_term()[name](x, None).isnan())


def test_wrong_input_is_named() -> None:
    x, flags = torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.bool)
    with pytest.raises(DtypeError, match=r"crossing_bce: crossings .*bool.*logits > 0"):
        losses.crossing_bce(x, flags.float())
    with pytest.raises(ShapeError, match=r"crossing_bce: crossings"):
        losses.crossing_bce(x, flags[:3])
    with pytest.raises(ShapeError, match=r"subdivision_bce: one target .* logits of 1 levels, targets of 2"):
        losses.subdivision_bce([torch.zeros(4, 8)], [torch.zeros(4, 8, dtype=torch.bool)] * 2)
    with pytest.raises(DtypeError, match=r"dual_vertex_mse: dual_vertices"):
        losses.dual_vertex_mse(flags, x)
    with pytest.raises(ShapeError, match=r"material_l1: prediction and target must have one shape"):
        losses.material_l1(x, torch.zeros(4, 6))
    with pytest.raises(RangeError, match=r"kl_divergence: offsets must end at the number of rows, 4; got 3.*another level"):
        losses.kl_divergence(x, x, offsets_from_counts([1, 2]))
    with pytest.raises(RangeError, match=r"image_smooth_l1: beta"):
        losses.image_smooth_l1(x[None, None], x[None, None], beta=0)


def test_image_terms_are_those_of_trellis2() -> None:
    facts = published("trellis2_losses")["losses"]["image"]
    a, b = (normal(f"image_{k}", (2, 3, 24, 20)).sigmoid() for k in "ab")
    mix = 0.7 * a + 0.3 * b
    assert 1 - float(losses.ssim_loss(a, b)) == pytest.approx(facts["ssim(a, b)"], rel=1e-5)
    assert 1 - float(losses.ssim_loss(a, mix)) == pytest.approx(facts["ssim(a, 0.7 a + 0.3 b)"], rel=1e-5)
    assert ssim(a, mix, padding="zero").tolist() == pytest.approx(facts["ssim per image"], rel=1e-5)
    assert float(losses.image_l1(a, b)) == pytest.approx(facts["l1(a, b)"], rel=1e-5)
    assert float(losses.image_l2(a, b)) == pytest.approx(facts["l2(a, b)"], rel=1e-5)
    assert float(losses.image_smooth_l1(a, b, beta=0.1)) == pytest.approx(facts["smooth_l1(a, b, beta=0.1)"], rel=1e-5)


def test_image_terms_are_those_of_the_mesh_and_gaussian_trainers() -> None:
    facts = published("focusing_trellis_losses")["facts"]
    mask = normal("mask", (2, 1, 48, 48))[:, 0] > -0.5
    first, second = (normal(k, (2, 3, 48, 48)).sigmoid() for k in ("first", "second"))
    assert float(losses.image_l1(first, second, mask=mask)) == pytest.approx(facts["l1"], rel=1e-5)
    assert 1 - float(losses.ssim_loss(first, second, mask=mask)) == pytest.approx(facts["ssim"], rel=1e-5)
    smooth = losses.image_smooth_l1(first, second, beta=facts["smooth_l1_beta"], mask=mask)
    assert float(smooth) == pytest.approx(facts["smooth_l1"], rel=1e-5)

    facts = published("trellis_gs_losses")
    render, noise = normal("render", (2, 3, 24, 20)), normal("noise", (2, 3, 24, 20))
    a, b = render.sigmoid(), (render + 0.3 * noise).sigmoid()
    assert float(losses.image_l1(a, b)) == pytest.approx(facts["l1"], rel=1e-5)
    assert 1 - float(losses.ssim_loss(a, b)) == pytest.approx(facts["ssim"], rel=1e-5)


def test_what_the_mask_hides_does_not_matter() -> None:
    a, b = torch.rand(1, 1, 12, 12), torch.rand(1, 1, 12, 12)
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, :6] = True
    dirty = torch.where(mask[:, None], a, math.inf).requires_grad_()
    for term in (losses.image_l1, losses.image_l2, losses.ssim_loss):
        found = term(dirty, b, mask=mask)
        torch.testing.assert_close(found, term(a * mask[:, None], b * mask[:, None]))
        (gradient,) = torch.autograd.grad(found, dirty)
        assert bool(gradient.isfinite().all())
        assert float(gradient[0, 0, 6:].abs().max()) == 0


def test_ssim_loss_under_autocast_and_with_half_pictures() -> None:
    a = torch.rand(1, 3, 20, 20)
    b = (a + 0.01 * torch.randn_like(a)).clamp(0, 1)
    expected = losses.ssim_loss(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(losses.ssim_loss(a, b), expected)
    half = losses.ssim_loss(a.half(), b.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=1e-3, rtol=0)  # the pictures themselves are rounded
    assert float(losses.ssim_loss(a, a)) == pytest.approx(0, abs=1e-6)


def test_no_views_cost_nothing() -> None:
    empty = torch.zeros(0, 3, 8, 8, requires_grad=True)
    for loss in (losses.image_l1(empty, empty), losses.ssim_loss(empty, empty), losses.perceptual_loss(empty, empty, lambda a, b: a - b)):
        assert float(loss.detach()) == 0
        loss.backward()


def test_perceptual_loss_scales_to_both_signs() -> None:
    seen: list[Tensor] = []

    def network(a: Tensor, b: Tensor) -> Tensor:
        seen.extend((a, b))
        return (a - b).abs().mean((1, 2, 3), keepdim=True)

    a, b = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    assert float(losses.perceptual_loss(a, b, network)) == 2
    assert [float(x.mean()) for x in seen] == [-1, 1]
    with pytest.raises(ShapeError, match=r"perceptual_loss: image must be \(v, 3, h, w\)"):
        losses.perceptual_loss(a[:, :1], b[:, :1], network)
    with pytest.raises(DtypeError, match=r"perceptual_loss: network"):
        losses.perceptual_loss(a, b, lambda x, y: 1.0)  # pyright: ignore[reportArgumentType]
