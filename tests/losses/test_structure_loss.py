"""Losses of the structure VAE: the original's numbers and gradients, what the terms are, bad input."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.losses import LossTerms, StructureVAELoss, structure, structure_bce, structure_dice, structure_l1
from voxgen.models import build
from voxgen.models.structure import DensePosterior, StructureDecoder, StructureEncoder

TOLERANCE = 1e-4  # of the largest value, as the golden says: the original sums in another order
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "trellis2_losses.json").read_text())


def network(name: str, kind: type[Any]) -> Any:
    spec = GOLDEN["networks"][name]
    module = kind(**spec["constructor"])
    module.load_state_dict({n: torch.from_numpy(recipe.weight(n, tuple(shape), spec["seed"])) for n, shape in spec["tensors"]})
    return module


def given(name: str) -> Tensor:
    return torch.from_numpy(recipe.normal(name, tuple(GOLDEN["inputs"][name]["shape"]), GOLDEN["seed"]))


def case(weights: dict[str, float]) -> tuple[LossTerms, dict[str, nn.Module]]:
    encoder, decoder = network("structure_encoder", StructureEncoder), network("structure_decoder", StructureDecoder)
    occupancy = given("occupancy") > 0.8
    posterior: DensePosterior = encoder(occupancy.float())
    logits = decoder(posterior.sample(noise=given("structure_posterior")))
    loss = StructureVAELoss(**{"dice": 0.0, **weights}, kl=1e-3)
    terms = loss(logits=logits, occupancy=occupancy, mean=posterior.mean, logvar=posterior.logvar)
    return terms, {"structure_encoder": encoder, "structure_decoder": decoder}


@pytest.mark.parametrize("term", ["bce", "l1", "dice"])
def test_losses_and_gradients_of_the_original(term: str) -> None:
    terms, networks = case({term: 1.0})
    expected = GOLDEN["losses"][f"structure_vae_{term}"]
    numbers = terms.numbers()
    assert numbers["total"] == pytest.approx(expected["loss"], rel=TOLERANCE)
    assert numbers[term] == pytest.approx(expected[term], rel=TOLERANCE)
    assert numbers["kl"] == pytest.approx(expected["kl"], rel=TOLERANCE)
    terms.total.backward()
    sums = GOLDEN["gradients_sum_abssum"][f"structure_vae_{term}"]
    found = {f"{name}/{key}": p.grad for name, module in networks.items() for key, p in module.named_parameters()}
    assert set(found) == set(sums)
    for name, (total, absolute) in sums.items():
        gradient = found[name]
        assert gradient is not None
        # a sum of many signs cancels, so both are judged by the sum of absolute values
        assert float(gradient.double().abs().sum()) == pytest.approx(absolute, rel=TOLERANCE, abs=1e-7), name
        assert float(gradient.double().sum()) == pytest.approx(total, abs=TOLERANCE * absolute + 1e-7), name


def cube(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return logits, torch.rand(*shape, generator=generator) > 0.7


def test_the_terms_are_their_formulas() -> None:
    logits, truth = cube(2, 1, 3, 4, 5)
    p, y = 1 / (1 + torch.exp(-logits)), truth.double()
    torch.testing.assert_close(structure_bce(logits, truth), -(y * p.log() + (1 - y) * (1 - p).log()).mean())
    torch.testing.assert_close(structure_l1(logits, truth), (p - y).abs().mean())
    torch.testing.assert_close(structure_dice(logits, truth), 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))


def test_dice_takes_the_batch_as_one_set() -> None:
    logits, truth = cube(2, 1, 4, 4, 4)
    truth[1] = False
    apart = (structure_dice(logits[:1], truth[:1]) + structure_dice(logits[1:], truth[1:])) / 2
    assert float(structure_dice(logits, truth) - apart) != pytest.approx(0, abs=1e-3)
    joined = structure_dice(logits.reshape(1, 1, 8, 4, 4), truth.reshape(1, 1, 8, 4, 4))
    torch.testing.assert_close(structure_dice(logits, truth), joined)


def test_dice_of_right_and_wrong_answers() -> None:
    truth = cube(1, 1, 8, 8, 8)[1]
    sure = 80.0 * (2 * truth.float() - 1)
    assert float(structure_dice(sure, truth)) == pytest.approx(0, abs=1e-6)
    assert float(structure_dice(-sure, truth)) == pytest.approx(1, abs=0.01)  # + 1 in numerator and denominator
    nothing = torch.zeros_like(truth)
    assert float(structure_dice(torch.full_like(sure, -80.0), nothing)) == pytest.approx(0, abs=1e-6)  # where a ratio would be 0 / 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_added_up_in_float32(dtype: torch.dtype) -> None:
    truth = torch.ones(2, 1, 48, 48, 48, dtype=torch.bool)  # more cells than float16 can count
    logits = torch.full(truth.shape, 2.0, dtype=dtype, requires_grad=True)
    for term in (structure_bce, structure_l1, structure_dice):
        value = term(logits, truth)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, term(logits.detach().float(), truth))
        (gradient,) = torch.autograd.grad(value, logits)
        assert gradient.isfinite().all()


def test_gradients_are_those_of_differences() -> None:
    logits, truth = cube(1, 1, 2, 3, 2)
    for term in (structure_bce, structure_dice, structure_l1):
        assert torch.autograd.gradcheck(lambda x, term=term: term(x, truth), logits.clone().requires_grad_())


def test_empty_batches_give_zero() -> None:
    logits, truth = torch.zeros(0, 1, 4, 4, 4, requires_grad=True), torch.zeros(0, 1, 4, 4, 4, dtype=torch.bool)
    for term in (structure_bce, structure_l1, structure_dice):
        assert float(term(logits, truth).detach()) == 0


def test_published_choices_and_sums() -> None:
    assert (StructureVAELoss().dice, StructureVAELoss().kl, StructureVAELoss().bce) == (1.0, 1e-3, 0.0)
    logits, truth = cube(1, 1, 4, 4, 4)
    z = torch.ones(1, 2, 2, 2, 2)
    terms = StructureVAELoss(bce=2.0, l1=0.0, dice=0.5, kl=0.1)(logits=logits, occupancy=truth, mean=z, logvar=0 * z)
    assert float(terms.terms["kl"]) == pytest.approx(0.5)
    expected = 2 * structure_bce(logits, truth) + 0.5 * structure_dice(logits, truth) + 0.05
    assert float(terms.total.detach()) == pytest.approx(float(expected))


def test_bad_input() -> None:
    logits, truth = cube(1, 1, 4, 4, 4)
    z = torch.zeros(1, 2, 2, 2, 2)
    with pytest.raises(DtypeError, match="occupancy"):
        structure_dice(logits, truth.float())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="logits"):
        structure_bce(logits[0], truth[0])
    with pytest.raises(ShapeError, match="occupancy"):
        structure_l1(logits, truth[..., :2])
    with pytest.raises(RangeError, match="kl must be a finite weight"):
        StructureVAELoss(kl=-1.0)
    with pytest.raises(RangeError, match="at least one of the terms"):
        StructureVAELoss(0, 0, 0, 0)(logits=logits, occupancy=truth, mean=z, logvar=z)
    with pytest.raises(ShapeError, match=r"StructureVAELoss: mean"):
        StructureVAELoss()(logits=logits, occupancy=truth, mean=z[0], logvar=z[0])


@pytest.mark.parametrize("item", [structure_bce, structure_l1, structure_dice, StructureVAELoss], ids=lambda item: item.__name__)
def test_examples(item: Any) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs={"torch": torch, "build": build, **vars(structure)})
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
