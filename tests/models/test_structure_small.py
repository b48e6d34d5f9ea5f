"""Small networks of the structure stage, and files of the dense networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from voxgen.core import SparseTensor
from voxgen.models import SSDiT, StructureFlow, StructureVAE, build, load_pretrained, save_pretrained
from voxgen.models.structure import occupied_cells
from voxgen.testing.grids import random_grid

TINY: dict[str, Any] = {"model_channels": (4, 8), "embed_dim": 3}


def _shaken(module: nn.Module) -> nn.Module:
    """Every weight away from the zeros that a fresh network has."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module


def test_the_small_networks_fit_each_other() -> None:
    vae, flow, sparse = (build(f"voxgen/{name}-small", device="meta") for name in ("structure-vae", "structure-flow", "ss-dit"))
    assert isinstance(vae, StructureVAE)
    assert isinstance(flow, StructureFlow)
    assert isinstance(sparse, SSDiT)
    assert vae.decoder.latent_channels == flow.in_channels == 8
    assert vae.encoder.factor * flow.resolution == 32
    assert flow.cond_channels == sparse.cond_channels
    sizes = [sum(p.numel() for p in module.parameters()) for module in (vae, flow, sparse)]
    assert all(size < 4_000_000 for size in sizes), sizes


def test_the_small_flows_run_on_several_samples() -> None:
    flow = _shaken(build("voxgen/structure-flow-small", model_channels=24, num_heads=2, num_blocks=1, resolution=4, cond_channels=6))
    tokens, t = torch.randn(2, 5, 6), torch.tensor([1000.0, 3.0])
    assert flow(torch.randn(2, 8, 4, 4, 4), t, tokens).shape == (2, 8, 4, 4, 4)
    sparse = _shaken(build("voxgen/ss-dit-small", model_channels=24, num_heads=2, num_blocks=2, cond_channels=6))
    grid = random_grid((30, 12), 8)
    assert sparse(SparseTensor(grid, torch.randn(42, 8)), t, tokens).channels == 8


def test_training_pass_of_the_small_autoencoder() -> None:
    vae = cast(StructureVAE, build("voxgen/structure-vae-small", **TINY, use_checkpoint=True))
    occupancy = torch.rand(2, 1, 8, 8, 8) > 0.8
    logits, posterior = vae(occupancy, generator=torch.Generator().manual_seed(0))
    assert posterior.mean.shape == (2, 3, 4, 4, 4)
    nn.functional.binary_cross_entropy_with_logits(logits, occupancy.float()).backward()
    assert all(p.grad is not None for p in vae.decoder.out_layer.parameters())


@pytest.mark.parametrize("part", ["whole", "encoder", "decoder"])
def test_files(part: str, tmp_path: Path) -> None:
    vae = cast(StructureVAE, _shaken(build("voxgen/structure-vae-small", **TINY, latents_scale=2.0, latents_shift=0.5)))
    saved = vae if part == "whole" else vae.get_submodule(part)
    save_pretrained(saved, tmp_path / "net.safetensors")
    back = load_pretrained(tmp_path / "net.safetensors")
    assert type(back) is type(saved)
    assert cast(Any, back).description() == cast(Any, saved).description()
    for (name, a), (other, b) in zip(saved.state_dict().items(), back.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    if isinstance(back, StructureVAE):
        z = torch.randn(1, 3, 4, 4, 4)
        assert torch.equal(occupied_cells(back.decode(z)).coords, occupied_cells(vae.decode(z)).coords)


def test_files_keep_the_dtypes_of_the_released_decoder(tmp_path: Path) -> None:
    vae = cast(
        StructureVAE,
        build("direct3d-s2/dense-vae", model_channels_encoder=(4, 8), model_channels_decoder=(8, 4), num_res_blocks_encoder=1),
    )
    save_pretrained(vae, tmp_path / "net.safetensors")
    back = load_pretrained(tmp_path / "net.safetensors")
    assert {k: v.dtype for k, v in back.state_dict().items()} == {k: v.dtype for k, v in vae.state_dict().items()}
