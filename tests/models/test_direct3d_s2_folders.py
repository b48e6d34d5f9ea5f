"""Direct3D-S2's pipeline from folders as they are published, and from and to voxgen's own."""

from __future__ import annotations

import dataclasses
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from models.direct3d_s2_pipeline_cases import (  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
    WIDTH,
    drawn,
    refiner,
    sign_refiner,
    tiny,
    tokens,
)
from voxgen.core.errors import CheckpointError, FileFormatError, RangeError
from voxgen.models import SmallImageEncoder, build
from voxgen.models.checkpoints import to_direct3d_s2
from voxgen.models.pipelines import Direct3DS2Pipeline
from voxgen.models.sc_vae import LatentNormalization

yaml = pytest.importorskip("yaml", reason="PyYAML reads the configuration of a release")
pytestmark = pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")

_UNET = {"in_channels": 1, "out_channels": 1, "layers_per_block": 1, "layers_mid_block": 0, "block_out_channels": [8, 12]}
_VAE = {"embed_dim": 4, "model_channels_encoder": 32, "model_channels_decoder": 32, "num_heads_encoder": 2, "num_heads_decoder": 2}
_VAE |= {"num_blocks_encoder": 1, "num_blocks_decoder": 1, "num_groups": 2, "window_size": 4}
_DIT = {"in_channels": 4, "out_channels": 4, "model_channels": 32, "cond_channels": WIDTH, "num_blocks": 2, "num_heads": 2}
_DENSE = {"in_channels": 3, "out_channels": 3, "model_channels": 24, "cond_channels": WIDTH, "num_blocks": 1, "num_heads": 2}
_WIDTHS = {"model_channels_encoder": [4, 8], "model_channels_decoder": [8, 4], "num_res_blocks_encoder": 1, "num_res_blocks_decoder": 1}
ENTRIES: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "dense_vae": ("models.dense_vae.DenseShapeVAE", "dense-vae", "model_dense", "vae", {"embed_dim": 3, **_WIDTHS}),
    "dense_dit": ("models.dense_dit.DenseDiT", "dense-dit", "model_dense", "dit", {"resolution": 2, **_DENSE}),
    "sparse_vae_512": ("models.ss_vae.SparseSDFVAE", "vae", "model_sparse_512", "vae", {"resolution": 4, **_VAE}),
    "sparse_dit_512": ("models.sparse_dit.SparseDiT", "dit-512-v1.1", "model_sparse_512", "dit", {"resolution": 4, **_DIT}),
    "sparse_vae_1024": ("models.ss_vae.SparseSDFVAE", "vae", "model_sparse_1024", "vae", {"resolution": 8, "chunk_size": 2, **_VAE}),
    "sparse_dit_1024": (
        "models.sparse_dit.SparseDiT",
        "dit-512-v1.1",
        "model_sparse_1024",
        "dit",
        {"resolution": 8, **_DIT, "factor": 0.5},
    ),
    "refiner": (
        "models.refiner.Voxel_RefinerXL",
        "refiner",
        "model_refiner",
        "refiner",
        {**_UNET, "feature_channels": 2, "patch_size": 32, "overlap": 8},
    ),
    "refiner_1024": ("models.refiner.Voxel_RefinerXL_sign", "refiner-1024", "model_refiner_1024", "refiner", {**_UNET, "patch_size": 32}),
}
SPARSE = {"sparse_conditions": False, "compression_block_size": 4, "selection_block_size": 4, "compression_version": "v1", "topk": 2}


def published(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write a small folder as the releases are, and give its configuration."""
    config: dict[str, Any] = {}
    files: dict[str, dict[str, Any]] = {}
    for seed, (name, (target, registered, file, entry, fields)) in enumerate(ENTRIES.items()):
        params = {**fields, **(SPARSE if "sparse_dit" in name else {}), "use_fp16": False}
        config[name] = {"target": target, "params": params}
        module = drawn(build(f"direct3d-s2/{registered}", **params), seed)
        files.setdefault(file, {})[entry] = to_direct3d_s2(module)
    for stage, shift in (("dense", 6.0), ("sparse", 6.0), ("sparse", 8.0)):
        name = f"{stage}_scheduler{'' if stage == 'dense' else '_512' if shift == 6 else '_1024'}"
        config[name] = {"target": "diffusers.FlowMatchEulerDiscreteScheduler", "params": {"num_train_timesteps": 1000, "shift": shift}}
    config["dense_image_encoder"] = {"target": "models.DinoEncoder", "params": {"model": "dinov2_vitl14_reg"}}
    for file, content in files.items():
        torch.save(content, folder / f"{file}.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
    return config


def fast(pipeline: Direct3DS2Pipeline) -> Direct3DS2Pipeline:
    """The same with the first step of each walk alone."""
    samplers = {stage: dataclasses.replace(sampler, times=(1.0, 0.0)) for stage, sampler in pipeline.samplers.items()}
    return dataclasses.replace(pipeline, samplers=samplers)


def test_a_folder_as_it_is_published(tmp_path: Path) -> None:
    config = published(tmp_path)
    pipeline = Direct3DS2Pipeline.from_folder(tmp_path, compat="direct3d_s2")
    assert sorted(pipeline.flows) == [32, 64]
    assert pipeline.flows[64].factor == 0.5
    assert pipeline.vaes[64].tile == 4
    assert not pipeline.structure_flow.training
    grids = {stage: sampler.time_grid() for stage, sampler in pipeline.samplers.items()}
    assert {stage: len(grid) - 1 for stage, grid in grids.items()} == {"structure": 50, "coarse": 30, "fine": 15}
    assert grids["fine"][1] == pytest.approx(0.9905568)
    for name, module in (("sparse_dit_512", pipeline.flows[32]), ("refiner_1024", pipeline.sign_refiner)):
        _, _, file, entry, _ = ENTRIES[name]
        stored = torch.load(tmp_path / f"{file}.ckpt", weights_only=True)[entry]
        assert module is not None
        for key, value in to_direct3d_s2(module).items():
            assert torch.equal(value, stored[key]), (name, key)
    made = fast(pipeline).generate(conditions=tokens(), generator=torch.Generator().manual_seed(0))
    assert made.resolution == 64
    assert config["refiner"]["params"]["patch_size"] == 32


def test_the_coarse_stage_alone_needs_no_other_file(tmp_path: Path) -> None:
    published(tmp_path)
    os.remove(tmp_path / "model_sparse_1024.ckpt")
    with pytest.raises(FileNotFoundError, match=r"model_sparse_1024\.ckpt"):
        Direct3DS2Pipeline.from_folder(tmp_path)
    pipeline = Direct3DS2Pipeline.from_folder(tmp_path, fine=False, dtype=torch.float64)
    assert list(pipeline.flows) == [32]
    assert pipeline.sign_refiner is None
    assert pipeline.flows[32].torso_dtype == torch.float64


def test_fields_that_a_configuration_leaves_out_are_those_of_the_published_class(tmp_path: Path) -> None:
    config = published(tmp_path)
    left_out = {k: v for k, v in config["sparse_dit_512"]["params"].items() if k not in SPARSE}
    config["sparse_dit_512"]["params"] = left_out
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match=r"(?s)32 missing.*compression_key\.out_layers"):  # it has convolutions, as release 1.0
        Direct3DS2Pipeline.from_folder(tmp_path)


def test_bad_configurations(tmp_path: Path) -> None:
    config = published(tmp_path)

    def fails(error: type[Exception], match: str, **changes: Any) -> None:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
        with pytest.raises(error, match=match):
            Direct3DS2Pipeline.from_folder(tmp_path)

    def entry(name: str, **params: Any) -> dict[str, Any]:
        return {name: {**config[name], "params": {**config[name]["params"], **params}}}

    fails(FileFormatError, "must have an entry dense_dit", dense_dit=None)
    fails(FileFormatError, "must have an entry refiner with", refiner={"target": "x.Voxel_RefinerXL"})
    fails(FileFormatError, "class DenseDiT as target of dense_dit; got 'os.system'", dense_dit={"target": "os.system", "params": {}})
    fails(FileFormatError, "class Voxel_RefinerXL as target", refiner=config["refiner_1024"])
    fails(FileFormatError, "dense_dit in config.yaml makes no network: .*no field 'widht'", **entry("dense_dit", widht=3))
    fails(FileFormatError, "makes no network", **entry("sparse_vae_512", resolution="${model.resolution}"))
    fails(FileFormatError, "dense_scheduler in config.yaml makes no schedule", dense_scheduler=config["dense_scheduler"] | {"params": {}})
    fails(FileFormatError, "makes no schedule", **entry("sparse_scheduler_512", shift=-1))
    fails(CheckpointError, "of another shape", **entry("sparse_dit_512", model_channels=64))
    fails(RangeError, "must be for the same|must work on|must divide", **entry("sparse_dit_512", resolution=16))
    for text, words in (("a: [1", "is not YAML"), ("- 1\n", "must be a mapping"), ("!!python/object/apply:os.getcwd []\n", "is not YAML")):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(FileFormatError, match=words):
            Direct3DS2Pipeline.from_folder(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="is not YAML"):
        Direct3DS2Pipeline.from_folder(tmp_path)


def test_files_of_other_models_and_damaged_ones(tmp_path: Path) -> None:
    published(tmp_path)
    dense, sparse = ((tmp_path / f"model_{name}.ckpt").read_bytes() for name in ("dense", "sparse_512"))
    for content, error, match in (
        (dense, CheckpointError, "missing"),
        (b"no file of weights", FileFormatError, "plain tensors"),
        (sparse[: len(sparse) // 2], FileFormatError, "plain tensors"),
    ):
        (tmp_path / "model_sparse_512.ckpt").write_bytes(content)
        with pytest.raises(error, match=match):
            Direct3DS2Pipeline.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        Direct3DS2Pipeline.from_folder(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="it holds neither"):
        Direct3DS2Pipeline.from_folder(tmp_path / "empty")


def test_a_folder_of_our_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = SmallImageEncoder(image_size=32, channels=WIDTH, model_channels=16, halvings=3, num_blocks=0)
    pipeline = tiny(
        refiner=refiner(),
        sign_refiner=sign_refiner(),
        image_encoder=encoder,
        image_system="trellis2",
        levels={"coarse": 0.1, "fine": 0.0},
        bands={32: 3.0},
        structure_normalization=LatentNormalization((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
    )
    pipeline.save_folder(tmp_path / "own")
    back = Direct3DS2Pipeline.from_folder(tmp_path / "own")
    for name in ("levels", "bands", "image_system", "threshold", "compat", "structure_normalization"):
        assert getattr(back, name) == getattr(pipeline, name), name
    assert isinstance(back.image_encoder, SmallImageEncoder)
    chance = torch.Generator().manual_seed(2)
    made = fast(pipeline).generate(conditions=tokens(), resolution=32, generator=chance)
    again = fast(back).generate(conditions=tokens(), resolution=32, generator=chance.manual_seed(2))
    assert torch.equal(again.latents[32].feats, made.latents[32].feats)
    assert torch.equal(again.mesh.vertices, made.mesh.vertices)
    assert Direct3DS2Pipeline.from_folder(tmp_path / "own", compat="direct3d_s2").compat == "direct3d_s2"
    with pytest.raises(FileExistsError):
        pipeline.save_folder(tmp_path / "own", overwrite=False)
    with pytest.raises(TypeError, match="low_memroy"):
        Direct3DS2Pipeline.from_folder(tmp_path / "own", low_memroy=True)  # pyright: ignore[reportCallIssue]
    os.remove(tmp_path / "own" / "structure_vae.safetensors")
    with pytest.raises(FileNotFoundError, match="structure_vae"):
        Direct3DS2Pipeline.from_folder(tmp_path / "own")


def test_low_memory_needs_a_device_and_changes_nothing(tmp_path: Path) -> None:
    pipeline = tiny()
    with pytest.raises(RangeError, match="low_memory needs a device"):
        dataclasses.replace(pipeline, low_memory=True)
    moved = dataclasses.replace(pipeline, low_memory=True, device="cpu")
    for own in (pipeline, moved):
        steps: list[str] = []
        made = own.generate(
            conditions=tokens(),
            resolution=32,
            generator=torch.Generator().manual_seed(2),
            callback=lambda stage, state, steps=steps: steps.append(f"{stage} {state.step}"),
        )
        assert steps == ["structure 1", "structure 2", "structure 3", "coarse 1", "coarse 2"]
        assert len(made.latents[32]) == len(made.structure)
    with pytest.raises(RangeError, match="low_memory needs a device"):
        Direct3DS2Pipeline.from_folder(tmp_path, low_memory=True)


def test_options_are_spelt_out() -> None:
    """By name in the signatures, not as keyword arguments of any name: editors and docs show them."""
    for method, names in (
        (Direct3DS2Pipeline.from_folder, ["path", "device", "dtype", "image_encoder", "compat", "fine", "low_memory", "verify"]),
        (Direct3DS2Pipeline.save_folder, ["self", "path", "dtype", "image_encoder", "overwrite"]),
    ):
        assert list(inspect.signature(method).parameters) == names
