"""Losses of TRELLIS.2's autoencoders and the gradient of every parameter, on every engine of a CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import voxgen
from models.trellis2_golden import Golden, grid, sorted_rows  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.layers import read_dual_grid
from voxgen.losses import LossTerms, MaterialVAELoss, ShapeVAELoss, kl_divergence, material_l2
from voxgen.models import SCDecoder, SCEncoder, ShapeContent
from voxgen.models.checkpoints import to_trellis2
from voxgen.representations import OVoxel

TOLERANCE = 1e-4  # of the largest value, as the golden says: the original sums in another order


@pytest.fixture(params=["numba", "torch", "reference"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with voxgen.use_backend(request.param):
        yield request.param


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("trellis2_losses")


def cells(golden: Golden) -> VoxelGrid:
    return grid(golden["coords"], 32)


def shape_case(golden: Golden) -> tuple[LossTerms, dict[str, nn.Module]]:
    encoder, decoder = golden.build("shape_encoder"), golden.build("shape_decoder")
    assert isinstance(encoder, SCEncoder)
    assert isinstance(decoder, SCDecoder)
    flags = sorted_rows(golden["coords"], golden["intersected"].float()) > 0
    target = OVoxel(cells(golden), sorted_rows(golden["coords"], golden["vertices"]), flags)
    encoded = encoder(ShapeContent().read(target))
    out = decoder(encoded.posterior.sample(noise=golden.normal("shape_posterior")), structure=encoded.structures)
    head = read_dual_grid(out.head.feats)
    terms = ShapeVAELoss()(
        crossing_logits=head.crossing_logits,
        dual_vertices=head.dual_vertices,
        subdivision_logits=[level.feats for level in out.logits],
        mean=encoded.posterior.mean.feats,
        logvar=encoded.posterior.logvar,
        crossings=flags,
        target_vertices=target.dual_vertices,
        subdivisions=[structure.mask() for structure in encoded.structures],
    )
    return terms, {"shape_encoder": encoder, "shape_decoder": decoder}


def material_case(golden: Golden, kind: str) -> tuple[LossTerms, dict[str, nn.Module]]:
    encoder, decoder = golden.build("material_encoder"), golden.build("material_decoder")
    target = SparseTensor(cells(golden), sorted_rows(golden["coords"], golden.normal("material").tanh()))
    encoded = encoder(target)
    posterior = encoded.posterior
    out = decoder(posterior.sample(noise=golden.normal("material_posterior")), structure=encoded.structures)
    if kind == "l1":
        terms = MaterialVAELoss()(prediction=out.head, target=target.feats, mean=posterior.mean.feats, logvar=posterior.logvar)
    else:  # an option of the original's trainer
        parts = {"l2": material_l2(out.head.feats, target.feats), "kl": kl_divergence(posterior.mean.feats, posterior.logvar)}
        terms = LossTerms(parts["l2"] + 1e-6 * parts["kl"], parts)
    return terms, {"material_encoder": encoder, "material_decoder": decoder}


def gradients(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    """By published names: a copy of each network carries the gradients as its weights through the export."""
    found = {}
    for network, module in networks.items():
        carrier = copy.deepcopy(module)
        with torch.no_grad():
            for name, parameter in carrier.named_parameters():
                gradient = module.get_parameter(name).grad
                parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
        found |= {f"{network}/{name}": value for name, value in to_trellis2(carrier).items()}
    return found


NAMES = {
    "shape_vae": {
        "direct/intersected": "crossing",
        "direct/vertice": "dual_vertex",
        "bce_sub0": "subdivision_0",
        "bce_sub1": "subdivision_1",
        "kl": "kl",
        "loss": "total",
    },
    "material_vae_l1": {"l1": "l1", "kl": "kl", "loss": "total"},
    "material_vae_l2": {"l2": "l2", "kl": "kl", "loss": "total"},
}


@pytest.mark.parametrize("case", NAMES)
def test_losses_and_gradients_of_the_original(engine: str, golden: Golden, case: str) -> None:
    terms, networks = shape_case(golden) if case == "shape_vae" else material_case(golden, case.rsplit("_", 1)[1])
    numbers = terms.numbers()
    for theirs, ours in NAMES[case].items():
        assert numbers[ours] == pytest.approx(golden.info["losses"][case][theirs], rel=TOLERANCE), theirs
    terms.total.backward()
    found = gradients(networks)
    expected = golden.info["gradients_sum_abssum"][case]
    assert set(found) == set(expected)
    for name, (total, absolute) in expected.items():
        # a sum of many signs cancels, so both are judged by the sum of absolute values
        assert float(found[name].double().abs().sum()) == pytest.approx(absolute, rel=TOLERANCE, abs=1e-7), name
        assert float(found[name].double().sum()) == pytest.approx(total, abs=TOLERANCE * absolute + 1e-7), name
