"""Published names, shapes and files of TRELLIS.2's autoencoders; strict loading and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.sc_vae_cases import SMALL, decoder, encoder, latent, vae, wake  # pyright: ignore[reportMissingImports]
from voxgen.core.errors import CheckpointError, DeviceError, DtypeError, FileFormatError, RangeError
from voxgen.models import SCDecoder, SCEncoder, build
from voxgen.models.checkpoints import load_trellis2, read_trellis2, save_trellis2, to_trellis2
from voxgen.models.checkpoints._safetensors import file_header
from voxgen.testing.grids import random_grid

KEYS = Path(__file__).parents[1] / "golden" / "keys"
RELEASED = {  # parameters, tensors, bytes of the published file
    "shape-encoder": (354_385_392, 284, 708_797_208),
    "shape-decoder": (474_231_463, 292, 948_490_494),
    "material-encoder": (354_385_392, 284, 708_797_208),
    "material-decoder": (474_216_006, 284, 948_458_812),
}


def meta_decoder() -> nn.Module:
    config = decoder().config
    with torch.device("meta"):
        return SCDecoder(config)


@pytest.mark.parametrize("name", RELEASED)
def test_released_configurations(name: str) -> None:
    module = build(f"trellis2/{name}", device="meta")
    tensors = to_trellis2(module, torch.float16)
    lines = [line.split("\t") for line in (KEYS / f"trellis2_{name}.tsv").read_text().splitlines() if not line.startswith("#")]
    assert {n: (tuple(t.shape), "F16") for n, t in tensors.items()} == {n: (tuple(map(int, s.split(","))), d) for n, s, d in lines}
    header, order = file_header(tensors)
    assert order == [line[0] for line in lines]
    size = len(header) + sum(2 * t.numel() for t in tensors.values())
    assert (sum(p.numel() for p in module.parameters()), len(tensors), size) == RELEASED[name]
    torso = {n.rsplit(".", 2)[-2]: p.dtype for n, p in module.named_parameters() if "blocks" in n}
    assert torso["norm"] == torch.float32
    assert torso["conv"] == torso["conv1"] == torso["conv2"] == torch.float16


def test_export_and_import_are_inverse() -> None:
    for module, twin in ((encoder(), encoder()), (decoder(), decoder()), (decoder(pred_subdiv=False), decoder(pred_subdiv=False))):
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        state = to_trellis2(module)
        assert not any("predict" in name or "upsample" in name or "linear" in name for name in state)
        load_trellis2(twin, state)
        for (name, a), b in zip(module.state_dict().items(), twin.state_dict().values(), strict=True):
            assert torch.equal(a, b), name
        again = to_trellis2(twin)
        assert all(torch.equal(again[name], value) for name, value in state.items())


def test_loading_keeps_dtypes_and_shares_no_memory() -> None:
    module = build("trellis2/shape-decoder", **{**SMALL, "model_channels": (32, 16), "num_blocks": (1, 0), "use_fp16": True})
    state = {name: value.half() for name, value in to_trellis2(module).items()}
    before = {name: value.dtype for name, value in module.state_dict().items()}
    with torch.device("meta"):
        assigned = type(module)(module.config)  # pyright: ignore[reportCallIssue, reportArgumentType]
    for target in (module, assigned):
        load_trellis2(target, state)
        assert {name: value.dtype for name, value in target.state_dict().items()} == before
        values = to_trellis2(target)
        assert all(torch.equal(values[name].half(), value) for name, value in state.items())
        kept = next(target.parameters()).clone()
        for value in state.values():
            value.zero_()
        assert torch.equal(next(target.parameters()), kept)
        state = {name: value.half() for name, value in to_trellis2(target).items()}
    assert all(p.requires_grad and not p.is_meta for p in assigned.parameters())
    assert list(module.state_dict()) == list(assigned.state_dict())


def test_parameters_keep_their_identity_unless_they_are_meta() -> None:
    module = decoder()
    before = list(module.parameters())
    optimizer = torch.optim.SGD(module.parameters())
    load_trellis2(module, to_trellis2(decoder()))
    assert all(a is b for a, b in zip(before, module.parameters(), strict=True))
    assert optimizer.param_groups[0]["params"][0] is before[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("blocks.0.1.conv1.bias"), ["1 missing", "blocks.0.1.conv1.bias"]),
        (lambda s: s.update(extra=torch.zeros(1)), ["1 left over", "extra"]),
        (lambda s: s.update({"from_latent.weight": torch.zeros(32, 5)}), ["1 of another shape", "from_latent.weight: (32, 5)", "(32, 4)"]),
        (lambda s: s.update({"from_latent.bias": torch.zeros(32).int()}), ["1 that cannot be converted", "int32"]),
        (lambda s: s.update({"from_latent.bias": torch.zeros(32, dtype=torch.complex64)}), ["complex64"]),
        (lambda s: [s.pop(k) for k in list(s) if "blocks" in k], ["missing", "… and"]),
        (lambda s: [s.update({"module." + k: s.pop(k)}) for k in list(s)], ["left over", "Without 'module.'"]),
    ],
)
def test_strictness(change: Any, words: list[str], tmp_path: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in to_trellis2(decoder()).items()}
    change(state)
    save_file(state, tmp_path / "weights.safetensors")
    for source in (state, tmp_path / "weights.safetensors"):
        module = decoder()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(CheckpointError) as caught:
            load_trellis2(module, source)
        for word in ["nothing was loaded", *words]:
            assert word in str(caught.value)
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        empty = meta_decoder()
        with pytest.raises(CheckpointError):
            load_trellis2(empty, source)
        assert all(p.is_meta for p in empty.parameters())


def test_weights_beyond_half_precision() -> None:
    module = SCDecoder(type(decoder().config)(**{**decoder().config.to_json(), "torso_dtype": "float16"}))
    state = to_trellis2(decoder())
    state["blocks.0.0.conv.weight"][0, 0, 0, 0, 0] = 1e6
    with pytest.raises(CheckpointError, match="beyond the range"):
        load_trellis2(module, state)
    big = decoder()
    load_trellis2(big, state)
    with pytest.raises(RangeError, match="exceed float16"):
        save_trellis2(big, "never-written")


def test_published_pair(tmp_path: Path) -> None:
    for module in (encoder(), decoder(voxel_margin=0.25), decoder(pred_subdiv=False, out_channels=6)):
        wake(module)
        for value in module.parameters():
            value.data = value.data.half().float()  # what float16 holds exactly
        save_trellis2(module, tmp_path / "net", overwrite=True)
        written = load_file(tmp_path / "net.safetensors")
        assert {value.dtype for value in written.values()} == {torch.float16}
        config = json.loads((tmp_path / "net.json").read_text())
        assert set(config) == {"name", "args"}
        for path in ("net", "net.json", "net.safetensors"):
            back = read_trellis2(tmp_path / path)
            assert type(back) is type(module)
            assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), back.state_dict().values(), strict=True))
            load_trellis2(module, tmp_path / path)
    save_trellis2(encoder(), tmp_path / "net", published_class="FlexiDualGridVaeEncoder")
    assert json.loads((tmp_path / "net.json").read_text())["name"] == "FlexiDualGridVaeEncoder"
    half = read_trellis2(tmp_path / "net", torso_dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.float32, torch.bfloat16}
    for wrong, name in ((decoder(), "FlexiDualGridVaeDecoder"), (encoder(in_channels=9), "FlexiDualGridVaeEncoder")):
        with pytest.raises(RangeError, match="published_config"):
            save_trellis2(wrong, tmp_path / "net", published_class=name)
    assert back.config.pred_subdiv is False  # pyright: ignore[reportPossiblyUnbound, reportAttributeAccessIssue]


def test_a_pair_of_the_release() -> None:
    """The released shape decoder's JSON, as the published checksum fixes its content, builds the released network."""
    from voxgen.models.checkpoints._trellis2 import published_config

    name, args = published_config(build("trellis2/shape-decoder", device="meta"))
    assert name == "FlexiDualGridVaeDecoder"
    fields = "resolution model_channels latent_channels num_blocks block_type up_block_type block_args use_fp16"
    assert list(args) == fields.split()
    assert args["resolution"] == 256
    assert args["block_args"] == [{}] * 5
    assert args["use_fp16"] is True
    name, args = published_config(build("trellis2/material-decoder", device="meta"))
    assert (name, args["out_channels"], args["pred_subdiv"]) == ("SparseUnetVaeDecoder", 6, False)


def test_a_pair_that_describes_another_network(tmp_path: Path) -> None:
    module = decoder(voxel_margin=0.5)
    save_trellis2(module, tmp_path / "net")
    with pytest.raises(CheckpointError, match=r"voxel_margin: 0\.5 in the file, 0\.1 in the module"):
        load_trellis2(decoder(voxel_margin=0.1), tmp_path / "net")
    with pytest.raises(CheckpointError, match="describes FlexiDualGridVaeDecoder, and the module is a SCEncoder"):
        load_trellis2(encoder(), tmp_path / "net")
    (tmp_path / "net.json").write_text('{"name": "Unknown", "args": {}}')
    with pytest.raises(FileFormatError, match="does not have the class 'Unknown'"):
        read_trellis2(tmp_path / "net")
    (tmp_path / "net.json").write_text('{"name": "FlexiDualGridVaeDecoder", "args": {"what": 1}}')
    with pytest.raises(RangeError, match="has no field 'what'"):
        read_trellis2(tmp_path / "net")
    for text in ("no json", "[]", '{"name": 1, "args": {}}'):
        (tmp_path / "net.json").write_text(text)
        with pytest.raises(FileFormatError):
            read_trellis2(tmp_path / "net")


def test_a_whole_autoencoder(tmp_path: Path) -> None:
    source, target = vae("shape"), vae("shape")
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    parts: dict[str, Any] = {"encoder": to_trellis2(source.encoder), "decoder": tmp_path / "decoder"}
    save_trellis2(source.decoder, tmp_path / "decoder", dtype=None)
    load_trellis2(target, parts)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
    broken = {"encoder": {k: torch.zeros_like(v) for k, v in parts["encoder"].items()}, "decoder": {}}
    with pytest.raises(CheckpointError, match="SCDecoder"):
        load_trellis2(target, broken)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))  # the encoder neither
    with pytest.raises(DtypeError, match="source of an SCVAE"):
        load_trellis2(target, parts["encoder"])


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    module = decoder()
    state = to_trellis2(module)
    save_file(state, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for name, data in (("cut", content[: len(content) // 2]), ("header", content[:20]), ("empty", b""), ("noise", b"\xff" * 1000)):
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        with pytest.raises(FileFormatError, match=name):
            load_trellis2(module, tmp_path / f"{name}.safetensors")
    with pytest.raises(FileNotFoundError):
        load_trellis2(module, tmp_path / "absent")
    torch.save(state, tmp_path / "state.pt")
    load_trellis2(module, tmp_path / "state.pt")
    torch.save({"state": state}, tmp_path / "deep.pt")
    with pytest.raises(DtypeError, match="lie deeper"):
        load_trellis2(module, tmp_path / "deep.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(FileFormatError, match="dict of tensors"):
        load_trellis2(module, tmp_path / "list.pt")
    torch.save(module, tmp_path / "module.pt")  # a pickle that would run code
    (tmp_path / "noise.pt").write_bytes(b"\xff" * 100)
    for name in ("module.pt", "noise.pt"):
        with pytest.raises(FileFormatError, match="plain tensors"):
            load_trellis2(module, tmp_path / name)
    for wrong in (3, ["a"], None):
        with pytest.raises(DtypeError, match="dict of tensors or a path"):
            load_trellis2(module, wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DtypeError, match="must be one of TRELLIS"):
        load_trellis2(nn.Linear(1, 1), {})


def test_devices() -> None:
    module = decoder()
    with pytest.raises(DeviceError, match="move the module"):
        load_trellis2(module, to_trellis2(module), device="meta")
    with pytest.raises(DeviceError, match="meta device"):
        save_trellis2(meta_decoder(), "never-written")


def test_a_loaded_network_runs_as_the_one_that_was_saved(tmp_path: Path) -> None:
    module, z = decoder(), latent(random_grid((20,), 8))
    save_trellis2(module, tmp_path / "net", dtype=torch.float32)
    back = read_trellis2(tmp_path / "net")
    assert isinstance(back, SCDecoder)
    with torch.no_grad():
        assert torch.equal(module(z).head.feats, back(z).head.feats)


def test_modules_are_told_apart_by_type() -> None:
    assert isinstance(build("trellis2/shape-encoder", device="meta"), SCEncoder)
    names: dict[str, Tensor] = to_trellis2(encoder())
    assert "to_latent.weight" in names
