"""Networks by name, and files of voxgen's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.sc_vae_cases import SMALL, decoder, encoder, latent, ovoxel, vae  # pyright: ignore[reportMissingImports]
from voxgen.core.errors import CheckpointError, DeviceError, DtypeError, FileFormatError, RangeError, ShapeError
from voxgen.models import SCVAE, LatentNormalization, SCDecoder, available, build, load_pretrained, save_pretrained
from voxgen.models.sc_vae import BlockArgs, DecoderConfig, EncoderConfig
from voxgen.testing.grids import random_grid


def test_names() -> None:
    names = available()
    assert names == tuple(sorted(names))
    assert {f"trellis2/{k}-{e}" for k in ("shape", "material") for e in ("encoder", "decoder")} <= set(names)
    for name in names:
        if name.startswith("trellis2/shape") or name.startswith("voxgen/"):
            assert all(p.is_meta for p in build(name, device="meta").parameters())


def test_overrides_by_published_names() -> None:
    module: Any = build(
        "trellis2/shape-decoder", model_channels=[16, 8], num_blocks=[1, 0], latent_channels=4, use_fp16=False, resolution=64
    )
    assert module.config.resolution == 64
    assert module.config.block_type == ("SparseConvNeXtBlock3d",) * 2
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    half: Any = build("trellis2/shape-decoder", model_channels=[16, 8], num_blocks=[1, 0], torso_dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.float32, torch.bfloat16}
    args = [{"use_checkpoint": True, "mlp_ratio": 2}, {}]
    module = build("trellis2/material-encoder", in_channels=9, model_channels=[8, 16], num_blocks=[1, 1], block_args=args)
    assert module.blocks[0][0].mlp[0].out_features == 16
    assert module.blocks[0][0].checkpoint
    assert not module.blocks[1][0].checkpoint


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("trellis2/shape-decodr", {}, "Did you mean 'trellis2/shape-decoder'"),
        ("trellis2/shape-decoder", {"width": 3}, "has no field 'width'; it has .*model_channels"),
        ("trellis2/shape-encoder", {"in_channels": 7}, "has no field 'in_channels'"),
        ("trellis2/shape-encoder", {"num_blocks": [1, 2]}, "num_blocks must have 5 entries"),
        ("trellis2/shape-encoder", {"model_channels": []}, "model_channels must have at least one"),
        ("trellis2/shape-encoder", {"model_channels": 64}, "must be a list"),
        ("trellis2/shape-encoder", {"model_channels": [0, 1]}, "model_channels\\[0\\] must be at least 1"),
        ("trellis2/shape-encoder", {"latent_channels": "a"}, "latent_channels must be a whole number"),
        ("trellis2/shape-encoder", {"block_type": "Block"}, "block_type must be among"),
        ("trellis2/shape-encoder", {"down_block_type": ["SparseResBlockS2C3d"]}, "down_block_type must have 4 entries"),
        ("trellis2/shape-encoder", {"block_args": [{}]}, "block_args must have 5 entries"),
        ("trellis2/shape-encoder", {"block_args": {"dropout": 1}}, "mlp_ratio and use_checkpoint"),
        ("trellis2/shape-encoder", {"block_args": {"mlp_ratio": 0}}, "mlp_ratio must be a positive"),
        ("trellis2/shape-encoder", {"block_args": {"use_checkpoint": 1}}, "use_checkpoint must be True or False"),
        ("trellis2/shape-encoder", {"torso_dtype": "int8"}, "torso_dtype must be one of"),
        ("trellis2/shape-encoder", {"use_fp16": 1}, "use_fp16 must be True or False"),
        ("trellis2/shape-encoder", {"use_fp16": True, "torso_dtype": "float32"}, "Give one of them"),
        ("trellis2/shape-decoder", {"voxel_margin": -1}, "voxel_margin must be"),
        ("trellis2/shape-decoder", {"resolution": 0}, "resolution must be at least 1"),
        ("trellis2/material-decoder", {"pred_subdiv": 1}, "pred_subdiv must be True or False"),
        ("trellis2/shape-decoder", {"model_channels": [48, 32], "num_blocks": [0, 0]}, "out_channels of channels / 8"),
        ("trellis2/shape-vae", {"latent_channels": 8}, "normalization=None"),
        ("trellis2/material-vae", {"materials": ["gloss"]}, "must be one of"),
    ],
)
def test_bad_requests(name: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises((RangeError, DtypeError, ShapeError), match=words):
        build(name, device="meta", **fields)


def test_configurations_are_values() -> None:
    a = EncoderConfig(model_channels=[8, 16], num_blocks=[0, 1], latent_channels=2, block_args={"mlp_ratio": 2.0})
    assert a.args == (BlockArgs(2.0), BlockArgs(2.0))
    assert EncoderConfig(**json.loads(json.dumps(a.to_json()))) == a
    b = DecoderConfig(model_channels=(16, 8), num_blocks=(0, 1), latent_channels=2, voxel_margin=0.25)
    assert DecoderConfig(**json.loads(json.dumps(b.to_json()))) == b


def test_own_files(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    normalization = LatentNormalization((0.1, 0, 0, 1), (1, 2, 3, 4))
    models = [
        encoder(),
        decoder(),
        vae("shape", normalization=normalization),
        vae("material"),
        vae("shape", torso_dtype="bfloat16", use_fp16=None),
    ]
    target = ovoxel()
    for model in models:
        save_pretrained(model, path)
        assert load_file(path).keys() == model.state_dict().keys()  # the safetensors library reads it
        back = load_pretrained(path)
        assert type(back) is type(model)
        for (name, a), (other, b) in zip(model.state_dict().items(), back.state_dict().items(), strict=True):
            assert name == other
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        if isinstance(model, SCVAE) and isinstance(back, SCVAE):
            assert back.content == model.content
            assert back.normalization == model.normalization
            assert back.encoder.config == model.encoder.config
            with torch.no_grad():
                assert torch.equal(back.encode(target).z.feats, model.encode(target).z.feats)


def test_own_files_decode_the_same(tmp_path: Path) -> None:
    model, z = decoder(), latent(random_grid((20,), 8))
    save_pretrained(model, tmp_path / "d.safetensors")
    back = load_pretrained(tmp_path / "d.safetensors")
    with torch.no_grad():
        assert torch.equal(back(z).head.feats, model(z).head.feats)


def test_bad_own_files(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    model = decoder()
    with pytest.raises(DtypeError, match="must be one of sc-vae"):
        save_pretrained(nn.Linear(1, 1), path)
    with torch.device("meta"):
        ghost = SCDecoder(model.config)
    with pytest.raises(DeviceError, match="meta"):
        save_pretrained(ghost, path)
    assert list(tmp_path.iterdir()) == []
    save_pretrained(model, path)
    with pytest.raises(FileExistsError):
        save_pretrained(model, path, overwrite=False)
    good = {"voxgen.format": "1", "voxgen.kind": "sc-vae/decoder", "voxgen.config": json.dumps(model.description())}
    for change, words in (
        ({"voxgen.format": "2"}, "format 2"),
        ({"voxgen.kind": "sc-vae/other"}, "holds a 'sc-vae/other'"),
        ({"voxgen.config": "{"}, "cannot be built"),
        ({"voxgen.config": "[]"}, "cannot be built"),
        ({"voxgen.config": '{"what": 1}'}, "cannot be built"),
        ({"voxgen.config": json.dumps({**model.description(), "num_blocks": [-1, 2]})}, "cannot be built"),
    ):
        save_file(model.state_dict(), path, {**good, **change})
        with pytest.raises(FileFormatError, match=words):
            load_pretrained(path)
    save_file(model.state_dict(), path)
    with pytest.raises(FileFormatError, match="not written by save_pretrained"):
        load_pretrained(path)
    save_file({**model.state_dict(), "extra": torch.zeros(1)}, path, good)
    with pytest.raises(CheckpointError, match="1 left over"):
        load_pretrained(path)
    with pytest.raises(FileNotFoundError):
        load_pretrained(tmp_path / "absent.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxgen.models.checkpoints import _safetensors

    path = tmp_path / "net.safetensors"
    save_pretrained(decoder(), path)
    before = path.read_bytes()

    def fail(file: Any, tensor: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_safetensors, "_write", fail)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(encoder(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_import_is_light() -> None:
    code = (
        "import sys, voxgen.models as m; m.build('trellis2/shape-decoder', device='meta');"
        "print([n for n in ('numba', 'scipy', 'trimesh', 'safetensors', 'torch._dynamo', 'triton') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_small_configurations_run() -> None:
    assert SMALL["latent_channels"] == 4
    model: Any = build("voxgen/shape-vae-small")
    target = ovoxel((50,))
    z = model.encode(target)
    assert z.z.grid.resolution == (4, 4, 4)
    assert model.decode(z, structure=z.structures).grid is target.grid
