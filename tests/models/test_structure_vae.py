"""StructureVAE: the originals' numbers, its properties, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from structure_golden import TOLERANCE, original, trellis, weights
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import set_torso_dtype
from voxgen.models import build
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.structure import (
    DensePosterior,
    StructureDecoder,
    StructureEncoder,
    StructureVAE,
    occupied_cells,
)
from voxgen.models.structure.blocks import DenseDownsample, pixel_shuffle_3d
from voxgen.testing.compare import assert_same


@pytest.fixture(scope="module")
def dense_vae() -> tuple[Golden, StructureVAE]:
    return original("direct3d-s2/dense-vae", "direct3d_s2_dense_vae", StructureVAE)


def occupancy(golden: Golden) -> Tensor:
    values = torch.zeros(2, 1, 16, 16, 16, dtype=torch.bool)
    b, x, y, z = golden.arrays["in/coords"].long().unbind(1)
    values[b, 0, x, y, z] = True
    return values


def test_autoencoder_of_direct3d_s2(dense_vae: tuple[Golden, StructureVAE]) -> None:
    golden, vae = dense_vae
    with torch.no_grad():
        posterior = vae.encode(occupancy(golden))
        logits = vae.decode(golden.normal("z"))
    assert_same(posterior.mean, golden.arrays["out/mean"], "mean", golden.tolerance)
    assert_same(posterior.logvar, golden.arrays["out/logvar"], "logvar", golden.tolerance)
    assert_same(logits, golden.arrays["out/logits"], "logits", golden.tolerance)
    cells = occupied_cells(logits)
    for i in range(2):
        assert torch.equal(cells.sample(i).coords, golden.arrays[f"out/index_{i}"].int())
    assert cells.offsets.tolist() == [0, 2509, 4976]


def test_autoencoder_of_trellis2() -> None:
    about, arrays = trellis("trellis2_structure_vae")
    described = about["networks"]
    encoder = StructureEncoder(**described["encoder"]["constructor"])
    encoder.load_state_dict(weights(described["encoder"]["tensors"], described["encoder"]["seed"]))
    decoder = StructureDecoder(**described["decoder"]["constructor"])
    decoder.load_state_dict(weights(described["decoder"]["tensors"], described["decoder"]["seed"]))
    z = torch.from_numpy(recipe.normal("structure_latent", tuple(about["inputs"]["structure_latent"]["shape"]), about["seed"]))
    with torch.no_grad():
        posterior = encoder(arrays["occupancy"].float())
        assert_same(posterior.mean, arrays["mean"], "mean", TOLERANCE)
        assert_same(posterior.logvar, arrays["logvar"], "logvar", TOLERANCE)
        assert_same(decoder(z), arrays["logits"], "logits", TOLERANCE)


def test_autoencoder_in_the_released_precision(dense_vae: tuple[Golden, StructureVAE]) -> None:
    golden, full = dense_vae
    half = build("direct3d-s2/dense-vae", **{**golden.configuration, "use_fp16": True})
    assert isinstance(half, StructureVAE)
    load_direct3d_s2(half, golden.weights())
    assert half.encoder.input_layer.weight.dtype == torch.float32
    assert half.decoder.input_layer.weight.dtype == torch.float16
    with torch.no_grad():
        mean, expected = half.encode(occupancy(golden)).mean, full.encode(occupancy(golden)).mean
        logits, wanted = half.decode(golden.normal("z").half()), full.decode(golden.normal("z"))
    assert logits.dtype == torch.float16
    assert float((mean - expected).norm() / expected.norm()) < 3e-3  # roundings of 2^-11 through about ten blocks
    assert float((logits.float() - wanted).norm() / wanted.norm()) < 3e-3


def test_volumes_of_any_size_and_batch(dense_vae: tuple[Golden, StructureVAE]) -> None:
    _, vae = dense_vae
    volume = torch.rand(3, 1, 8, 12, 4) > 0.7
    with torch.no_grad():
        posterior = vae.encode(volume)
        assert posterior.mean.shape == (3, 4, 2, 3, 1)
        assert_same(vae.encode(volume[1:2]).mean[0], posterior.mean[1], "alone")
        assert vae.decode(posterior.mean).shape == volume.shape
        assert vae.encode(volume[:0]).mean.shape == (0, 4, 2, 3, 1)
        assert_same(vae.encode(volume.double()).mean, posterior.mean.double(), "float64 in and out", 1e-6)


def small_vae(**options: Any) -> StructureVAE:
    fields = {"model_channels_encoder": [8, 16], "model_channels_decoder": [16, 8], "use_fp16": False, "embed_dim": 2}
    fields |= {f"num_res_blocks{place}_{part}": 1 for place in ("", "_middle") for part in ("encoder", "decoder")}
    vae = build("direct3d-s2/dense-vae", **fields, **options)
    assert isinstance(vae, StructureVAE)
    return vae


def box() -> Tensor:
    volume = torch.zeros(1, 1, 8, 8, 8, dtype=torch.bool)
    volume[..., 2:6, 1:5, 3:7] = True
    return volume


def test_training_of_the_autoencoder() -> None:
    vae = small_vae()
    optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        logits, _ = vae(box(), noise=torch.zeros(1, 2, 4, 4, 4))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, box().float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_training_pass_decodes_its_sample() -> None:
    vae = small_vae(latents_scale=2.0, latents_shift=0.5)
    noise = torch.randn(1, 2, 4, 4, 4)
    logits, posterior = vae(box(), noise=noise)
    assert_same(logits, vae.decoder(posterior.sample(noise=noise)), "of the posterior's own space", 1e-5)
    assert_same(vae.decode(torch.ones_like(noise)), vae.decoder(torch.ones_like(noise)), "1 / 2 + 0.5 = 1")


def test_checkpointing_of_the_autoencoder_changes_no_gradient() -> None:
    gradients = []
    for checkpoint in (False, True):
        torch.manual_seed(3)
        vae = small_vae(use_checkpoint=checkpoint)
        vae(box(), noise=torch.zeros(1, 2, 4, 4, 4))[0].square().sum().backward()
        gradients.append({name: p.grad for name, p in vae.named_parameters()})
    for name, expected in gradients[0].items():
        assert expected is not None, name
        assert_same(gradients[1][name], expected, name)


def test_posterior_samples() -> None:
    posterior = DensePosterior(torch.full((1, 2, 2, 2, 2), 3.0), torch.full((1, 2, 2, 2, 2), 2.0))
    noise = torch.randn(1, 2, 2, 2, 2)
    assert_same(posterior.sample(noise=noise), 3 + torch.e * noise, "sample")
    again = [posterior.sample(torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*again)
    with pytest.raises(RangeError, match="not both"):
        posterior.sample(torch.Generator(), noise)
    with pytest.raises(ShapeError, match="noise must be"):
        posterior.sample(noise=noise[0])
    with pytest.raises(ShapeError, match="logvar must be"):
        DensePosterior(noise, noise[:, :1])


def test_occupied_cells_at_the_threshold() -> None:
    logits = torch.full((3, 1, 2, 2, 2), -9.0)
    logits[0, 0, 1, 0, 1] = 0.0
    logits[2, 0, 0, 1, 0] = float("nan")
    logits[2, 0, 0, 0, 1] = -2.0
    assert occupied_cells(logits).coords.tolist() == [[0, 1, 0, 1]]
    low = occupied_cells(logits, 0.1)
    assert low.coords.tolist() == [[0, 1, 0, 1], [2, 0, 0, 1]]
    assert low.batch_size == 3
    with pytest.raises(RangeError, match="probability"):
        occupied_cells(logits, 1.5)
    with pytest.raises(ShapeError, match="logits must be"):
        occupied_cells(logits[:, 0])


def test_children_of_the_pixel_shuffle() -> None:
    x = torch.arange(16.0).view(1, 16, 1, 1, 1)
    y = pixel_shuffle_3d(x)
    assert y.shape == (1, 2, 2, 2, 2)
    for i in range(2):
        for a, b, c in np.ndindex(2, 2, 2):
            assert y[0, i, a, b, c] == 8 * i + 4 * a + 2 * b + c
    with pytest.raises(ShapeError, match="8 c"):
        pixel_shuffle_3d(x[:, :12])


def test_autoencoder_in_bad_form(dense_vae: tuple[Golden, StructureVAE]) -> None:
    _, vae = dense_vae
    with pytest.raises(ShapeError, match="multiples of 4"):
        vae.encode(torch.zeros(1, 1, 8, 8, 6))
    with pytest.raises(ShapeError, match="occupancy must be"):
        vae.encode(torch.zeros(1, 2, 8, 8, 8))
    with pytest.raises(DtypeError, match="bool"):
        vae.encode(torch.zeros(1, 1, 8, 8, 8, dtype=torch.int64))
    with pytest.raises(ShapeError, match="z must be"):
        vae.decode(torch.zeros(1, 3, 4, 4, 4))
    with pytest.raises(ShapeError, match="even"):
        DenseDownsample(2, 2)(torch.zeros(1, 2, 4, 3, 4))
    with pytest.raises(RangeError, match="at least one level"):
        StructureEncoder(1, 4, [], 2)
    with pytest.raises(DtypeError, match="list of whole numbers"):
        StructureDecoder(1, 4, 8, 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="latents_scale"):
        build("direct3d-s2/dense-vae", device="meta", latents_scale=0.0)


def test_a_torso_of_another_precision_after_the_fact(dense_vae: tuple[Golden, StructureVAE]) -> None:
    golden, _ = dense_vae
    vae = build("direct3d-s2/dense-vae", **golden.configuration)
    load_direct3d_s2(vae, golden.weights())
    whole = vae.double().encode(occupancy(golden).double()).mean  # pyright: ignore
    assert_same(whole, golden.arrays["out/mean"].double(), "float64", golden.tolerance)
    assert set_torso_dtype(vae, torch.bfloat16).decode(golden.normal("z")).dtype == torch.float32  # pyright: ignore
