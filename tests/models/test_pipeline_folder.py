"""Pipelines in folders: networks, shared ones, settings, samplers, checksums, storage dtypes, and what goes wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from voxgen.core.errors import DeviceError, DtypeError, FileFormatError, RangeError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, HeunSampler, MultistepSampler, RectifiedFlow, Sampler
from voxgen.models import LatentNormalization, build, load_pretrained, save_pretrained
from voxgen.models.image_condition import SmallImageEncoder
from voxgen.models.pipelines.folder import read_pipeline_folder, write_pipeline_folder
from voxgen.models.pipelines.folder_values import normalization_from_json, normalization_to_json, sampler_from_json, sampler_to_json

SETTINGS = {"sizes": [64, 128], "up": "y", "none": None}


def encoder() -> SmallImageEncoder:
    return SmallImageEncoder(16, 8, 8, halvings=1, num_blocks=1, num_heads=2)


def flow(**fields: Any) -> Any:
    options = {"in_channels": 4, "out_channels": 4, "model_channels": 16, "cond_channels": 8, "num_blocks": 1, "num_heads": 2}
    return build("voxgen/latent-flow-small", resolution=4, **{**options, **fields})


def test_folder_comes_back(tmp_path: Path) -> None:
    shared, other = encoder(), flow()
    write_pipeline_folder(tmp_path / "p", "mine", {"flow.64": other, "image.a": shared, "image.b": shared}, SETTINGS)
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == ["flow.64.safetensors", "image.a.safetensors", "pipeline.json"]
    found = read_pipeline_folder(tmp_path / "p", "mine")
    assert (found.kind, found.settings) == ("mine", SETTINGS)
    assert found.networks["image.a"] is found.networks["image.b"]
    assert not found.networks["flow.64"].training
    for name, module in (("image.a", shared), ("flow.64", other)):
        state = found.networks[name].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_checksums_and_missing_files(tmp_path: Path) -> None:
    write_pipeline_folder(tmp_path, "mine", {"a": encoder(), "b": encoder()}, {})
    content = bytearray((tmp_path / "b.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"b\.safetensors is not the file that was written"):
        read_pipeline_folder(tmp_path, "mine")
    assert read_pipeline_folder(tmp_path, "mine", verify=False).networks
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="the network 'b', is missing"):
        read_pipeline_folder(tmp_path, "mine")
    with pytest.raises(FileFormatError, match="a 'other' is needed"):
        read_pipeline_folder(tmp_path, "other")
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_pipeline_folder(tmp_path / "none", "mine")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"voxgen.format": 2}, "newer voxgen"),
        ({"voxgen.pipeline": None}, "not written by voxgen"),
        ({"networks": []}, "must have objects"),
        ({"networks": {"a": {"file": "../a.safetensors", "sha256": ""}}}, "a file in the folder"),
        ({"networks": {"a": "a.safetensors"}}, "a file in the folder"),
    ],
)
def test_bad_manifests(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_pipeline_folder(tmp_path, "mine", {"a": encoder()}, {})
    manifest = json.loads((tmp_path / "pipeline.json").read_text())
    (tmp_path / "pipeline.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(FileFormatError, match=words):
        read_pipeline_folder(tmp_path, "mine")
    for text in ("{", "[]"):
        (tmp_path / "pipeline.json").write_text(text)
        with pytest.raises(FileFormatError, match=r"pipeline\.json"):
            read_pipeline_folder(tmp_path, "mine")


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    first = encoder()
    write_pipeline_folder(tmp_path, "mine", {"a": first}, {})
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    broken = encoder()
    broken.state_dict = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)  # pyright: ignore[reportAttributeAccessIssue]
    for networks, error in (
        ({"a": encoder(), "b": broken}, KeyboardInterrupt),
        ({"a": encoder(), "b": nn.Linear(1, 1)}, DtypeError),
        ({"a": encoder(), "../b": encoder()}, RangeError),
        ({"a": encoder(), "b": encoder().to("meta")}, DeviceError),
    ):
        with pytest.raises(error):
            write_pipeline_folder(tmp_path, "mine", networks, {})
        assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    for settings, error in (({"x": math.nan}, RangeError), ({"x": torch.ones(1)}, DtypeError)):
        with pytest.raises(error, match="settings must be"):
            write_pipeline_folder(tmp_path, "mine", {"a": encoder()}, settings)
    with pytest.raises(FileExistsError):
        write_pipeline_folder(tmp_path, "mine", {"a": encoder()}, {}, overwrite=False)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_weights_stored_as_float16(tmp_path: Path) -> None:
    module = flow(torso_dtype=torch.bfloat16)
    write_pipeline_folder(tmp_path, "mine", {"flow": module}, {}, dtype=torch.float16)
    save_pretrained(module, tmp_path / "full.safetensors")
    again = read_pipeline_folder(tmp_path, "mine").networks["flow"]
    for name, value in module.state_dict().items():
        found = again.state_dict()[name]
        assert found.dtype == value.dtype
        assert torch.equal(found, value.half().to(value.dtype)), name
    wide: Any = load_pretrained(tmp_path / "flow.safetensors", torso_dtype=torch.float32)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert {p.dtype for p in again.parameters()} == {torch.float32, torch.bfloat16}
    with torch.no_grad():
        module.get_parameter("input_layer.weight").fill_(1e6)
    with pytest.raises(RangeError, match="exceed float16, the first is input_layer"):
        save_pretrained(module, tmp_path / "flow.safetensors", dtype=torch.float16)
    with pytest.raises(DtypeError, match="float dtype"):
        save_pretrained(module, tmp_path / "flow.safetensors", dtype=torch.int8)
    with pytest.raises(DtypeError, match="float dtype"):
        load_pretrained(tmp_path / "flow.safetensors", torso_dtype=torch.int8)


@pytest.mark.parametrize(
    "sampler",
    [
        EulerSampler(12, 5.0, guidance=ClassifierFreeGuidance(7.5, (0.6, 1.0), 0.7)),
        EulerSampler(flow=RectifiedFlow(0.0), increment="network"),
        HeunSampler(times=(1.0, 0.5, 0.0)),
        MultistepSampler(4, guidance=ClassifierFreeGuidance(always_both=True)),
    ],
)
def test_samplers_in_plain_values(sampler: Sampler) -> None:
    assert sampler_from_json(json.loads(json.dumps(sampler_to_json(sampler)))) == sampler


def test_other_samplers_and_normalisations() -> None:
    class Other(EulerSampler):
        pass

    with pytest.raises(DtypeError, match=r"one of voxgen\.flow's"):
        sampler_to_json(Other())
    values = sampler_to_json(EulerSampler())
    for wrong in ({}, None, "euler", {**values, "kind": "walk"}, {**values, "steps": 0}, {**values, "more": 1}):
        with pytest.raises(FileFormatError, match="makes no sampler"):
            sampler_from_json(wrong)  # pyright: ignore[reportArgumentType] (files hold anything)
    norm = LatentNormalization((1.0, 2.0), (0.5, 3.0))
    assert normalization_from_json(normalization_to_json(norm)) == norm
    assert normalization_from_json(normalization_to_json(None)) is None
    with pytest.raises(FileFormatError, match="makes no normalisation"):
        normalization_from_json({"mean": [1.0], "std": [0.0]})
    with pytest.raises(FileFormatError, match="'none' makes no normalisation"):
        normalization_from_json("none")  # pyright: ignore[reportArgumentType] (files hold anything)
