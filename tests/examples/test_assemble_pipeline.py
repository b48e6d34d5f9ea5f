"""Trained networks put together: the folders of trainings, generation from them, and what is missing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the examples' shared parts need voxgen[train]")

import assemble_pipeline as example
from training.flow_encoder import encoders_of

from voxgen.io import save_mesh
from voxgen.models import FocusingPipeline, LatentNormalization, SparseUpPipeline, build, save_pretrained
from voxgen.models.image_condition import SmallImageEncoder
from voxgen.models.pipelines import Direct3DS2Pipeline
from voxgen.testing.shapes import torus


def picture(folder: Path) -> str:
    image = Image.new("RGBA", (40, 40))
    image.paste((200, 90, 30, 255), (10, 10, 30, 30))
    image.save(folder / "picture.png")
    return str(folder / "picture.png")


@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")  # fresh weights may leave nothing
def test_focusing_with_fresh_networks(tmp_path: Path) -> None:
    found = example.main(["focusing", "--smallest", "--steps", "2", "--out", str(tmp_path), "--image", picture(tmp_path)])
    assert (tmp_path / "generated.glb").exists()
    assert found["faces"] >= 0
    own = FocusingPipeline.from_folder(tmp_path / "pipeline")
    assert own.system == "trellis2"
    assert isinstance(own.image_encoder, dict)


@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
def test_direct3d_s2_with_fresh_networks(tmp_path: Path) -> None:
    found = example.main(["direct3d-s2", "--smallest", "--steps", "2", "--out", str(tmp_path), "--image", picture(tmp_path)])
    assert (tmp_path / "generated.glb").exists() == (found["faces"] > 0)
    own = Direct3DS2Pipeline.from_folder(tmp_path / "pipeline")
    assert (own.levels, own.image_system, sorted(own.flows)) == ({"coarse": 0.0}, "trellis2", [32])
    assert own.samplers["coarse"].flow.sigma_min == 0
    assert own.vaes[32].normalization is not None


def test_a_mesh_is_textured_with_fresh_networks(tmp_path: Path) -> None:
    save_mesh(torus(), tmp_path / "torus.glb")
    options = ["--mesh", str(tmp_path / "torus.glb"), "--image", picture(tmp_path), "--steps", "2"]
    found = example.main(["sparse-up", "--smallest", "--out", str(tmp_path), *options])
    assert found["gaussians"] > 1000
    assert (tmp_path / "generated.ply").exists()
    assert SparseUpPipeline.from_folder(tmp_path / "pipeline").structure_flow is None


def written(folder: Path, flow: nn.Module, width: int, encoder: nn.Module | None) -> LatentNormalization:
    """As a training of a flow leaves it."""
    folder.mkdir()
    statistics = LatentNormalization(tuple(0.1 * i for i in range(width)), (2.0,) * width)
    save_pretrained(flow, folder / "flow.safetensors")
    (folder / "normalization.json").write_text(json.dumps(asdict(statistics)))
    if encoder is not None:
        save_pretrained(encoder, folder / "image_encoder.safetensors")
    return statistics


def test_files_of_trainings_come_together(tmp_path: Path) -> None:
    encoder = SmallImageEncoder(16, 12, 8, halvings=2, num_blocks=1, num_heads=2)
    tiny: dict[str, Any] = {"model_channels": 16, "num_blocks": 1, "num_heads": 2, "cond_channels": 12}
    structure = written(tmp_path / "structure", build("voxgen/structure-flow-small", resolution=4, **tiny), 8, encoder)
    latents = written(tmp_path / "latents", build("voxgen/focusing-flow-small", resolution=8, **tiny), 8, encoder)
    save_pretrained(build("voxgen/structure-vae-small", model_channels=(8, 8, 8)), tmp_path / "structure_vae.safetensors")
    save_pretrained(build("voxgen/sparse-flex-vae-small", model_channels=64, num_blocks=1), tmp_path / "focusing.safetensors")
    options = ["--structure", str(tmp_path / "structure"), "--latents", str(tmp_path / "latents"), "--out", str(tmp_path / "out")]
    files = ["--structure-vae", str(tmp_path / "structure_vae.safetensors"), "--vae", str(tmp_path / "focusing.safetensors")]
    assert set(example.main(["focusing", *options, *files])) == {"megabytes"}
    own = FocusingPipeline.from_folder(tmp_path / "out" / "pipeline")
    assert (own.normalization, own.structure_normalization) == (latents, structure)
    grid = own.sample_structure(torch.zeros(1, 3, 12), generator=torch.Generator().manual_seed(0))
    assert grid.resolution == (8, 8, 8)


def test_the_encoder_of_flows_that_were_trained_with_a_given_one(tmp_path: Path) -> None:
    own, given = (SmallImageEncoder(16, 12, 8, halvings=2, num_blocks=1, num_heads=2) for _ in range(2))
    save_pretrained(given, tmp_path / "encoder.safetensors")
    with pytest.raises(SystemExit, match="the flow of latent was trained with an image encoder"):
        encoders_of({"structure": own, "latent": None}, None)
    some = encoders_of({"structure": own, "latent": None}, tmp_path / "encoder.safetensors")
    assert isinstance(some, dict)
    assert some["structure"] is own
    for found in (some["latent"], encoders_of({"structure": None, "latent": None}, tmp_path / "encoder.safetensors")):
        assert isinstance(found, SmallImageEncoder)
        for name, value in given.state_dict().items():
            assert torch.equal(value, found.state_dict()[name])


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["focusing"], "--latents is needed"),
        (["focusing", "--latents", "x"], "--structure is needed"),
        (["focusing", "--mesh", "x", "--latents", "x"], "--mesh is for sparse-up"),
    ):
        with pytest.raises(SystemExit):
            example.main([*arguments, "--out", str(tmp_path)])
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit, match="--vae is needed"):
        example.main(["focusing", "--latents", "x", "--structure", "x", "--out", str(tmp_path)])
