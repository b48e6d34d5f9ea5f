"""Pipelines of TRELLIS.2 from and to folders: voxgen's own, and the released layout on tiny networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.trellis2_tiny import GUIDED, WIDTH, flow, patched_flow, picture, tiny  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core.errors import CheckpointError, DtypeError, FileFormatError, RangeError
from voxgen.flow import EulerSampler, RectifiedFlow
from voxgen.models.checkpoints import save_trellis2, to_trellis2
from voxgen.models.checkpoints._safetensors import write_safetensors
from voxgen.models.image_condition import SmallImageEncoder
from voxgen.models.pipelines import Trellis2Pipeline, released_samplers
from voxgen.models.structure import StructureDecoder, StructureEncoder, StructureVAE


def made(pipeline: Trellis2Pipeline) -> Any:
    return pipeline.generate(picture(), generator=torch.Generator().manual_seed(1))


def assert_same_asset(one: Any, other: Any) -> None:
    assert torch.equal(one.ovoxel.coords, other.ovoxel.coords)
    assert torch.equal(one.ovoxel.dual_vertices, other.ovoxel.dual_vertices)
    assert torch.equal(one.ovoxel.materials["base_color"], other.ovoxel.materials["base_color"])


def test_own_folder(tmp_path: Path) -> None:
    pipeline = tiny(image_sizes={16: 32, 32: 32}, up="z", split_weights=False)
    pipeline.save_folder(tmp_path / "p")
    again = Trellis2Pipeline.from_folder(tmp_path / "p")
    for name in ("samplers", "shape_normalization", "material_normalization", "materials", "image_sizes", "up", "split_weights"):
        assert getattr(again, name) == getattr(pipeline, name), name
    assert set(again.shape_flows) == {16, 32}
    assert not any(part.training for part in (again.structure_flow, again.shape_decoder, again.shape_flows[16]))
    assert_same_asset(made(again), made(pipeline))
    lean = Trellis2Pipeline.from_folder(tmp_path / "p", device="cpu", low_memory=True)
    assert_same_asset(made(lean), made(pipeline))


def test_flows_with_convolutions(tmp_path: Path) -> None:
    """Networks of TRELLIS in the stages of TRELLIS.2."""
    pipeline = tiny(shape_flows={16: patched_flow(4)}, material_flows={16: patched_flow(4, 8)})
    asset = made(pipeline)
    assert len(asset.ovoxel) > 0
    assert not torch.equal(asset.ovoxel.dual_vertices, made(tiny(shape_flows={16: flow(4)})).ovoxel.dual_vertices)
    pipeline.save_folder(tmp_path)
    assert_same_asset(made(Trellis2Pipeline.from_folder(tmp_path)), asset)


def test_own_folder_with_an_encoder_a_stage_in_half_precision(tmp_path: Path) -> None:
    encoders = {stage: SmallImageEncoder(32, WIDTH, 16, halvings=2, num_blocks=0, num_heads=2) for stage in ("structure", "shape")}
    inner: Any = tiny().structure_decoder
    vae = StructureVAE(StructureEncoder(1, 4, (8, 8), 1, 1), inner, latents_scale=0.5)
    pipeline = tiny(image_encoder=encoders, structure_decoder=vae, material_flows={}, material_decoder=None, shape_encoder=None)
    pipeline.save_folder(tmp_path, dtype=torch.float16)
    files = {f.name for f in tmp_path.iterdir()}
    assert {"image_encoder.structure.safetensors", "structure_decoder.safetensors", "shape_flows.16.safetensors"} <= files
    assert not any("material" in name for name in files)
    again = Trellis2Pipeline.from_folder(tmp_path)
    assert isinstance(again.structure_decoder, StructureVAE)
    assert again.structure_decoder.latents_scale == 0.5
    for part, other in ((pipeline.shape_flows[16], again.shape_flows[16]), (vae, again.structure_decoder)):
        for name, value in part.state_dict().items():
            assert torch.equal(other.state_dict()[name], value.half().float()), name
    assert len(made(again).ovoxel)
    with pytest.raises(RangeError, match="texturing needs shape_encoder, material_flows"):
        again.texture_mesh(None, picture())  # pyright: ignore[reportArgumentType]


class Foreign(nn.Module):
    """An encoder that has files of its own."""

    image_size, channels = 32, WIDTH

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))[:, None].repeat(1, 1, 4)


def test_encoders_with_files_of_their_own(tmp_path: Path) -> None:
    pipeline = tiny(image_encoder=Foreign())
    with pytest.raises(DtypeError, match="Foreign"):
        pipeline.save_folder(tmp_path)
    assert not list(tmp_path.iterdir())
    pipeline.save_folder(tmp_path, image_encoder=False)
    again = Trellis2Pipeline.from_folder(tmp_path)
    assert again.image_encoder is None
    assert_same_asset(made(Trellis2Pipeline.from_folder(tmp_path, image_encoder=Foreign())), made(pipeline))


def test_settings_that_are_not_its_own(tmp_path: Path) -> None:
    tiny().save_folder(tmp_path)
    manifest = json.loads((tmp_path / "pipeline.json").read_text())

    def check(words: str, **changes: Any) -> None:
        (tmp_path / "pipeline.json").write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(FileFormatError, match=words):
            Trellis2Pipeline.from_folder(tmp_path)

    check("settings", settings={})
    check("settings", settings={**manifest["settings"], "image_sizes": {"large": 64}})
    check("'large' makes no sampler", settings={**manifest["settings"], "samplers": {"structure": "large"}})
    check("settings", networks={**manifest["networks"], "shape_flows.large": manifest["networks"]["shape_flows.16"]})
    check("no network 'structure_flow'", networks={k: v for k, v in manifest["networks"].items() if k != "structure_flow"})
    check("needed here", **{"voxgen.pipeline": "focusing"})
    with pytest.raises(RangeError, match="low_memory needs a device"):
        Trellis2Pipeline.from_folder(tmp_path, low_memory=True)
    (tmp_path / "pipeline.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no pipeline\.json"):
        Trellis2Pipeline.from_folder(tmp_path)


MODELS = {
    "sparse_structure_flow_model": "ss_flow",
    "sparse_structure_decoder": "ss_dec",
    "shape_slat_decoder": "shape_dec",
    "shape_slat_flow_model_16": "shape_flow_16",
    "shape_slat_flow_model_32": "shape_flow_32",
    "tex_slat_decoder": "tex_dec",
    "tex_slat_flow_model_32": "tex_flow_32",
}


def released(folder: Path, pipeline: Trellis2Pipeline, structure: str = "owner/another-release/ckpts/ss_dec") -> None:
    """The layout of the released folder: pipeline.json, texturing_pipeline.json, and pairs in ckpts/."""
    ckpts = folder / "ckpts"
    ckpts.mkdir(parents=True)
    save_trellis2(pipeline.structure_flow, ckpts / "ss_flow", dtype=None)
    save_trellis2(pipeline.shape_decoder, ckpts / "shape_dec", dtype=None)
    save_trellis2(pipeline.material_decoder, ckpts / "tex_dec", dtype=None)  # pyright: ignore[reportArgumentType]
    save_trellis2(pipeline.shape_encoder, ckpts / "shape_enc", dtype=None, published_class="FlexiDualGridVaeEncoder")  # pyright: ignore[reportArgumentType]
    for resolution in (16, 32):
        save_trellis2(pipeline.shape_flows[resolution], ckpts / f"shape_flow_{resolution}", dtype=None)
        save_trellis2(pipeline.material_flows[resolution], ckpts / f"tex_flow_{resolution}", dtype=None)
    decoder = pipeline.structure_decoder
    assert isinstance(decoder, StructureDecoder)
    args = {"out_channels": 1, "latent_channels": 4, "num_res_blocks": 1, "num_res_blocks_middle": 1, "channels": [8, 8]}
    (ckpts / "ss_dec.json").write_text(json.dumps({"name": "SparseStructureDecoder", "args": {**args, "use_fp16": False}}))
    write_safetensors(ckpts / "ss_dec.safetensors", to_trellis2(decoder))

    def sampler(strength: float) -> dict[str, Any]:
        params = {"steps": 2, "guidance_strength": strength, "guidance_rescale": 0.5, "guidance_interval": [0.5, 1.0], "rescale_t": 3.0}
        return {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": 1e-5}, "params": params}

    norm = {name: dataclasses.asdict(getattr(pipeline, f"{name}_normalization")) for name in ("shape", "material")}
    names = {**{key: f"ckpts/{name}" for key, name in MODELS.items()}, "sparse_structure_decoder": structure}
    common = {"shape_slat_normalization": norm["shape"], "tex_slat_normalization": norm["material"]}
    samplers = {"sparse_structure_sampler": sampler(3.0), "shape_slat_sampler": sampler(3.0), "tex_slat_sampler": sampler(1.0)}
    about = {"name": "Trellis2ImageTo3DPipeline", "args": {"models": names, **samplers, **common, "rembg_model": {"name": "BiRefNet"}}}
    (folder / "pipeline.json").write_text(json.dumps(about))
    more = {"shape_slat_encoder": "ckpts/shape_enc", "tex_slat_decoder": "ckpts/tex_dec", "tex_slat_flow_model_16": "ckpts/tex_flow_16"}
    about = {"name": "Trellis2TexturingPipeline", "args": {"models": more, **common}}
    (folder / "texturing_pipeline.json").write_text(json.dumps(about))


def test_released_folder(tmp_path: Path) -> None:
    pipeline = tiny()
    released(tmp_path / "r", pipeline)
    again = Trellis2Pipeline.from_folder(tmp_path / "r", image_encoder=pipeline.image_encoder)
    assert again.samplers["shape"] == EulerSampler(2, 3.0, flow=RectifiedFlow(1e-5), guidance=GUIDED)
    assert again.samplers["material"].guidance == dataclasses.replace(GUIDED, strength=1.0)
    assert again.shape_normalization == pipeline.shape_normalization
    assert again.material_normalization == pipeline.material_normalization
    assert set(again.material_flows) == {16, 32}
    assert again.shape_encoder is not None
    assert again.image_sizes == {16: 16, 32: 32}
    assert again.up == "z"
    same = dataclasses.replace(again, image_sizes=None)
    assert_same_asset(made(same), made(dataclasses.replace(pipeline, samplers=again.samplers)))
    plain = Trellis2Pipeline.from_folder(tmp_path / "r", texturing=False, dtype=torch.bfloat16)
    assert plain.shape_encoder is None
    assert set(plain.material_flows) == {32}
    assert plain.shape_flows[16].torso_dtype == torch.bfloat16
    assert again.shape_flows[16].torso_dtype == torch.float32


def test_released_samplers_where_the_file_has_none(tmp_path: Path) -> None:
    released(tmp_path / "r", tiny())
    path = tmp_path / "r" / "pipeline.json"
    about = json.loads(path.read_text())
    for key in ("sparse_structure_sampler", "shape_slat_sampler", "tex_slat_sampler"):
        del about["args"][key]
    path.write_text(json.dumps(about))
    assert Trellis2Pipeline.from_folder(tmp_path / "r", texturing=False).samplers == released_samplers()


def _without(name: str) -> Callable[[Path, dict[str, Any]], None]:
    return lambda folder, _: (folder / "ckpts" / name).unlink()


def _model(name: str, value: Any) -> Callable[[Path, dict[str, Any]], None]:
    return lambda _, args: args["models"].update({name: value})


def _lost_tensor(folder: Path, _: dict[str, Any]) -> None:
    state = to_trellis2(flow(4))
    del state["out_layer.bias"]
    write_safetensors(folder / "ckpts" / "shape_flow_16.safetensors", state)


def _cut(folder: Path, _: dict[str, Any]) -> None:
    path = folder / "ckpts" / "shape_dec.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (_without("shape_dec.safetensors"), FileNotFoundError, "the network 'shape_slat_decoder', are not there"),
        (_without("ss_dec.json"), FileNotFoundError, "TRELLIS-image-large"),
        (lambda _, args: args["models"].pop("shape_slat_decoder"), FileFormatError, "names no network 'shape_slat_decoder'"),
        (lambda _, args: args.pop("models"), FileFormatError, "object 'models'"),
        (_model("shape_slat_decoder", 3), FileFormatError, "name of a pair"),
        (_model("shape_slat_flow_model_16", "ckpts/ss_flow"), FileFormatError, "must be a LatentFlow"),
        (_lost_tensor, CheckpointError, r"1 missing from the checkpoint:\s+out_layer\.bias"),
        (_cut, FileFormatError, "shape_dec"),
        (lambda _, args: args["shape_slat_sampler"].update(name="Other"), FileFormatError, "shape_slat_sampler is a 'Other'"),
        (lambda _, args: args["tex_slat_sampler"]["params"].pop("steps"), FileFormatError, "tex_slat_sampler must have"),
        (lambda _, args: args["tex_slat_sampler"]["params"].update(steps=0), FileFormatError, "tex_slat_sampler must have"),
        (
            lambda _, args: args["tex_slat_sampler"]["params"].update(guidance_interval=[0, 0.5, 1]),
            FileFormatError,
            "tex_slat_sampler must",
        ),
        (lambda _, args: args["tex_slat_normalization"].pop("std"), FileFormatError, "makes no normalisation"),
        (lambda _, args: args.update(shape_slat_normalization="the usual"), FileFormatError, "'the usual' makes no normalisation"),
    ],
)
def test_released_folders_that_are_not_whole(
    spoil: Callable[[Path, dict[str, Any]], Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    released(tmp_path / "r", tiny())
    path = tmp_path / "r" / "pipeline.json"
    about = json.loads(path.read_text())
    spoil(tmp_path / "r", about["args"])
    path.write_text(json.dumps(about))
    with pytest.raises(error, match=words):
        Trellis2Pipeline.from_folder(tmp_path / "r", texturing=False)


def test_the_structure_decoder_may_lie_elsewhere(tmp_path: Path) -> None:
    released(tmp_path / "r", tiny())
    (tmp_path / "v1").mkdir()
    for end in ("json", "safetensors"):
        (tmp_path / "r" / "ckpts" / f"ss_dec.{end}").rename(tmp_path / "v1" / f"ss_dec.{end}")
    with pytest.raises(FileNotFoundError, match="structure_decoder="):
        Trellis2Pipeline.from_folder(tmp_path / "r")
    found = Trellis2Pipeline.from_folder(tmp_path / "r", structure_decoder=tmp_path / "v1" / "ss_dec")
    assert isinstance(found.structure_decoder, StructureDecoder)


def test_folders_of_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text("{}")
    with pytest.raises(FileFormatError, match='"name" and "args"'):
        Trellis2Pipeline.from_folder(tmp_path)
