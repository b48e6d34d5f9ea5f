"""The training example of the structure flow: its data, one short run, interrupted and whole, and an object that it learns by heart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the example needs voxgen[train]")
pytest.importorskip("tensorboard", reason="the example needs voxgen[train]")

import train_structure_flow as example
from interruption import interrupted
from training.flow_module import FlowTraining
from training.latents import LatentBatch, LatentDataset, denormalized, normalized

from voxgen.flow import RectifiedFlow
from voxgen.models import LatentNormalization, StructureFlow, load_pretrained, save_pretrained
from voxgen.models.image_condition import SmallImageEncoder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that makes its own data and autoencoder."""
    out = tmp_path_factory.mktemp("structure") / "whole"
    example.main(["--smallest", "--steps", "6", "--checkpoint-every", "3", "--out", str(out)])
    return out


def test_a_run_writes_what_a_pipeline_needs(first: Path) -> None:
    flow, encoder = load_pretrained(first / "flow.safetensors"), load_pretrained(first / "image_encoder.safetensors")
    assert isinstance(flow, StructureFlow)
    assert isinstance(encoder, SmallImageEncoder)
    tokens = encoder.tokens(torch.rand(2, 3, 32, 32))
    assert flow(torch.zeros(2, 4, 4, 4, 4), torch.full((2,), 500.0), tokens).shape == (2, 4, 4, 4, 4)
    assert json.loads((first / "normalization.json").read_text()) == {"mean": [0] * 4, "std": [1] * 4}  # the autoencoder scales by itself
    result = json.loads((first / "result.json").read_text())
    assert result["steps"] == 6
    assert {"loss", "loss_t0.1", "loss_t0.9", "loss_without"} <= set(result)
    assert (first / "samples.png").stat().st_size > 5_000


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(first: Path, tmp_path: Path) -> None:
    given = ["--data", str(first / "data"), "--vae", str(first / "structure-vae.safetensors")]
    arguments = ["--smallest", *given, "--steps", "6", "--checkpoint-every", "3", "--out", str(tmp_path)]
    interrupted(example.main, arguments, after=5)
    example.main([*arguments, "--resume"])
    lines = [(folder / "losses.jsonl").read_text().splitlines() for folder in (first, tmp_path)]
    assert len(lines[0]) == 6
    assert lines[0] == lines[1]  # every loss of every step, to the last bit: also where the data came from another run
    flows = [load_pretrained(folder / "flow.safetensors").state_dict() for folder in (first, tmp_path)]
    assert all(torch.equal(value, flows[1][name]) for name, value in flows[0].items())
    with pytest.raises(SystemExit, match="times"):
        example.main([*arguments, "--resume", "--times", "uniform"])


def test_what_is_missing_is_asked_for(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"--vae is needed.*train_structure_vae"):
        example.main(["--data", str(first / "data"), "--out", str(tmp_path)])
    save_pretrained(SmallImageEncoder(image_size=32, num_blocks=0), tmp_path / "encoder.safetensors")
    with pytest.raises(SystemExit, match="holds a SmallImageEncoder, for whose latents there is no flow"):
        example.main(["--vae", str(tmp_path / "encoder.safetensors"), "--out", str(tmp_path), "--data", str(first / "data")])
    with pytest.raises(SystemExit, match="holds a StructureVAE, not an image encoder"):
        example.main(["--smallest", "--image-encoder", str(first / "structure-vae.safetensors"), "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        example.main(["--smallest", "--drop", "2", "--out", str(tmp_path)])
    assert "--drop must lie in [0, 1]" in capsys.readouterr().err


def objects() -> LatentDataset:
    """Two objects with a picture each: black, and white."""
    chance = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 3, 2, 2, 2, generator=chance)
    pictures = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None, None].expand(2, 1, 3, 16, 16)
    return LatentDataset(list(latents), pictures, [0, 1], ["black", "white"])


def training(encoder: SmallImageEncoder, drop: float = 0.1) -> FlowTraining:
    torch.manual_seed(0)
    flow = StructureFlow(2, 3, 32, encoder.channels, 3, num_blocks=2, num_heads=2, pe_mode="rope", initialization="scaled")
    return FlowTraining(flow, encoder, path=RectifiedFlow(), times="uniform", drop=drop)


def test_two_objects_are_learned_by_heart_and_told_apart_by_their_pictures() -> None:
    encoder, data = SmallImageEncoder(16, 16, 16, halvings=2, num_blocks=1, num_heads=2), objects()
    module = training(encoder)
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    chance = torch.Generator().manual_seed(1)
    batch, losses = LatentBatch.of([data[0, 0], data[1, 0]] * 4), []
    for _ in range(200):
        loss = module(batch, chance).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.65 * sum(losses[:20])
    swapped = LatentBatch(batch.latent, batch.images.flip(0))
    with torch.no_grad():
        own, other = (
            module.loss(b, module.tokens(b), torch.full((8,), 0.9), torch.Generator().manual_seed(2)).total for b in (batch, swapped)
        )
    assert float(other) > 1.5 * float(own)


def test_a_frozen_encoder_is_no_part_of_what_trains() -> None:
    encoder = SmallImageEncoder(16, 16, 16, halvings=2, num_blocks=1, num_heads=2).eval().requires_grad_(False)
    module = training(encoder)
    assert module.encoder is None
    assert not any(name.startswith("encoder") for name in module.state_dict())
    assert module.conditioner is encoder
    module(LatentBatch.of([objects()[0, 0]]), torch.Generator().manual_seed(0)).total.backward()
    assert all(p.grad is None for p in encoder.parameters())


def test_pictures_follow_the_draw_and_latents_their_normalisation() -> None:
    data = objects()
    draws = {data.draw(torch.Generator().manual_seed(seed)) for seed in range(20)}
    assert draws == {0}
    assert data.sizes == [8, 8]
    assert len(LatentBatch.of([data[0, 0], data[1, 0]])) == 16
    normalization = LatentNormalization((1.0, 2.0, 3.0), (2.0, 1.0, 0.5))
    latent = data.latents[0]
    there = normalized(latent, normalization)
    assert isinstance(there, torch.Tensor)
    torch.testing.assert_close(denormalized(there, normalization), latent)
    torch.testing.assert_close(there[2], (latent[2] - 3) / 0.5)
