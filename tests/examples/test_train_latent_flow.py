"""The training examples of sparse flows: recipes and attentions, interrupted and whole, latents that are kept, materials on shapes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the example needs voxgen[train]")
pytest.importorskip("tensorboard", reason="the example needs voxgen[train]")

import train_latent_flow as example
import train_material_flow as materials
from interruption import interrupted
from training import flow_source
from training.arguments import parse
from training.encodings import encoding_of
from training.flow import FlowRecipe
from training.flow_module import FlowTraining
from training.flow_recipes import ATTENTION, LATENT, TINY, with_convolutions
from training.flow_source import Wanted, gathered, latents_of
from training.flow_vaes import autoencoder, wanted_of
from training.latents import LatentBatch, LatentDataset, measured_over

from voxgen.core import SparseTensor
from voxgen.data import ShardDataset
from voxgen.models import LatentFlow, PatchedLatentFlow, SSDiT, build, load_pretrained

SHORT = ["--smallest", "--steps", "3", "--checkpoint-every", "2"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that makes its own data and autoencoder, by the recipe that is the default."""
    out = tmp_path_factory.mktemp("latent") / "whole"
    example.main([*SHORT, "--out", str(out)])
    return out


def given(first: Path) -> list[str]:
    return ["--data", str(first / "data"), "--vae", str(first / "trellis2-shape-vae.safetensors"), "--cache", str(first)]


def test_a_run_writes_what_a_pipeline_needs(first: Path) -> None:
    flow = load_pretrained(first / "flow.safetensors")
    assert isinstance(flow, LatentFlow)
    assert (flow.in_channels, flow.out_channels, flow.cond_channels) == (4, 4, 16)
    normalization = json.loads((first / "normalization.json").read_text())
    assert len(normalization["mean"]) == len(normalization["std"]) == 4
    assert (first / "image_encoder.safetensors").exists()
    assert (first / "samples.png").stat().st_size > 5_000


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(first: Path, tmp_path: Path) -> None:
    arguments = [*SHORT, *given(first), "--out", str(tmp_path)]
    interrupted(example.main, arguments, after=2)
    example.main([*arguments, "--resume"])
    lines = [(folder / "losses.jsonl").read_text().splitlines() for folder in (first, tmp_path)]
    assert len(lines[0]) == 3
    assert lines[0] == lines[1]  # every loss of every step, to the last bit


def test_latents_are_kept_and_belong_to_their_autoencoder(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = first / "trellis2-shape-vae.safetensors"
    vae = load_pretrained(path)
    data = ShardDataset(first / "data", ["ovoxel"])
    wanted = Wanted("latents", path, encoding_of(vae, path, 32))
    found = latents_of(data, wanted, first, show=False)
    again = wanted.encoding.encode(data.read(0, "ovoxel"))
    assert isinstance(again, SparseTensor)
    assert isinstance(found[0], SparseTensor)
    assert found[0].grid.same_cells(again.grid)
    assert torch.equal(found[0].feats, again.feats)
    with monkeypatch.context() as patch:
        patch.setattr(flow_source, "_packed", None)
        latents_of(data, wanted, first, show=False)  # nothing is made again
        other = first / "other.safetensors"
        other.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(TypeError):
            latents_of(data, Wanted("latents", other, wanted.encoding), first, show=False)
    normalization = measured_over(found)
    assert normalization.channels == 4
    rows = torch.cat([latent.feats for latent in found if isinstance(latent, SparseTensor)])
    torch.testing.assert_close(torch.tensor(normalization.mean), rows.mean(0), atol=1e-5, rtol=1e-4)


def test_held_out_assets_are_those_of_the_autoencoder_and_large_ones_are_left_out(first: Path) -> None:
    arguments = parse(example.TASK, [*SHORT, *given(first), "--out", str(first)])
    path, vae = autoencoder(arguments.vae, "trellis2-shape", arguments)
    wanted = wanted_of(path, vae, None, arguments)
    training, held_out = gathered(arguments, wanted, drawing=None, show=False)
    seen, unseen = ShardDataset(first / "data", ["ovoxel"]).split(2)
    assert list(training.names) == list(seen.names)
    assert list(held_out.data.names) == list(unseen.names)
    assert 0 < min(training.sizes) < max(training.sizes)
    arguments.max_tokens = max(training.sizes) - 1
    fewer, _ = gathered(arguments, wanted, drawing=None, show=False)
    assert len(fewer) < len(training)
    assert max(fewer.sizes) <= arguments.max_tokens
    arguments.max_tokens = 1
    with pytest.raises(SystemExit, match="0 assets to train on"):
        gathered(arguments, wanted, drawing=None, show=False)


KINDS = {
    "trellis2-shape": LatentFlow,
    "trellis2-material": LatentFlow,
    "direct3d-s2": SSDiT,
    "focusing": LatentFlow,
    "sparse-up": PatchedLatentFlow,
}


def learn(flow: nn.Module, first: Path) -> tuple[float, float]:
    """The losses of the first and the last of some steps on one object with one noise."""
    torch.manual_seed(0)
    (found,) = sorted(first.glob("latents-*.pt"))[:1]
    latent = flow_source._unpacked(torch.load(found, weights_only=True))[0]
    assert isinstance(latent, SparseTensor)
    normalization = measured_over([latent])
    images = torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8)
    data = LatentDataset([normalization.normalize(latent)], images, [0], ["one"])
    encoder = build("voxgen/image-encoder-small", image_size=32, model_channels=16, channels=16, num_blocks=0, num_heads=2)
    module = FlowTraining(flow, encoder, path=LATENT["trellis2-shape"].path, times="uniform", drop=0.0)  # pyright: ignore[reportArgumentType]
    optimizer, losses = torch.optim.AdamW(module.parameters(), 5e-3), []
    for _ in range(30):
        loss = module(LatentBatch.of([data[0, 0]]), torch.Generator().manual_seed(0)).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses[0], losses[-1]


@pytest.mark.parametrize("name", sorted(LATENT))
def test_the_flow_of_each_recipe_learns(name: str, first: Path) -> None:
    fields = {"in_channels": 4, "out_channels": 4, "cond_channels": 16, **LATENT[name].fields, **TINY}
    flow = build(LATENT[name].network, **fields)
    assert type(flow) is KINDS[name]
    before, after = learn(flow, first)
    assert after < 0.85 * before


@pytest.mark.parametrize("change", [*ATTENTION.values(), with_convolutions], ids=[*ATTENTION, "convolutions"])
def test_each_network_learns(change: Callable[[FlowRecipe], FlowRecipe], first: Path) -> None:
    recipe = change(LATENT["trellis2-shape"])
    before, after = learn(
        build(recipe.network, **{"in_channels": 4, "out_channels": 4, "cond_channels": 16, **recipe.fields, **TINY}), first
    )
    assert after < 0.85 * before


def test_materials_lie_on_the_cells_of_their_shapes(first: Path, tmp_path: Path) -> None:
    shape = ["--data", str(first / "data"), "--shape-vae", str(first / "trellis2-shape-vae.safetensors"), "--cache", str(first)]
    materials.main([*SHORT, *shape, "--convolutions", "--out", str(tmp_path)])
    flow = load_pretrained(tmp_path / "flow.safetensors")
    assert isinstance(flow, PatchedLatentFlow)
    assert (flow.in_channels, flow.out_channels) == (8, 4)  # noise, and the latent of the shape behind it
    normalizations = [
        json.loads((folder / name).read_text()) for folder, name in ((first, "normalization.json"), (tmp_path, "shape_normalization.json"))
    ]
    assert normalizations[0] == normalizations[1]  # as the flow of the same shapes makes them
    assert not (first / "shape_normalization.json").exists()
    assert (tmp_path / "samples.png").stat().st_size > 5_000
    with pytest.raises(SystemExit, match="--shape-vae is needed"):
        materials.main(["--vae", str(tmp_path / "trellis2-material-vae.safetensors"), "--out", str(tmp_path)])
