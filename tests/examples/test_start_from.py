"""Training an autoencoder goes on from the weights of a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the examples' shared parts need voxgen[train]")

from training.vae import start_from

from voxgen.models import build, save_pretrained

NAME = "voxgen/structure-vae-small"


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    trained, fresh = (build(NAME, model_channels=(8, 8, 8)) for _ in range(2))
    save_pretrained(trained, tmp_path / "vae.safetensors")
    start_from(tmp_path / "vae.safetensors", fresh)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name])


def test_another_network_is_refused(tmp_path: Path) -> None:
    save_pretrained(build(NAME, model_channels=(8, 8, 8)), tmp_path / "vae.safetensors")
    with pytest.raises(SystemExit, match="holds a StructureVAE of other widths"):
        start_from(tmp_path / "vae.safetensors", build(NAME, model_channels=(8, 8, 16)))
    with pytest.raises(SystemExit, match="holds a StructureVAE, not a Linear"):
        start_from(tmp_path / "vae.safetensors", torch.nn.Linear(1, 1))
