"""What a file of weights is: released networks by their tensors, near ones, files of several, our own, and rubbish."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from voxgen.cli import main
from voxgen.core.errors import FileFormatError
from voxgen.models import build, save_pretrained
from voxgen.models.checkpoints import inspect_checkpoint, to_direct3d_s2, to_trellis, to_triposf

SLIM = torch.zeros(1)


def zeros(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of these shapes that takes no room in memory."""
    return {key: SLIM.expand(value.shape) for key, value in state.items()}


def test_released_networks_by_their_tensors(tmp_path: Path) -> None:
    vae = zeros(to_triposf(build("triposf/vae", device="meta")))
    dense = {
        "vae": zeros(to_direct3d_s2(build("direct3d-s2/dense-vae", device="meta"))),
        "dit": zeros(to_direct3d_s2(build("direct3d-s2/refiner", device="meta"))),
        "other": {"a": torch.zeros(3)},
    }
    torch.save(vae, tmp_path / "vae.pt")
    torch.save(dense, tmp_path / "model.ckpt")
    (found,) = inspect_checkpoint(tmp_path / "vae.pt")
    assert [m.name for m in found.matches] == ["triposf/vae"]
    assert found.matches[0].exact
    assert (found.tensors, found.parameters) == (257, 178_833_479)
    first, second, third = inspect_checkpoint(tmp_path / "model.ckpt")
    assert [m.name for m in first.matches] == ["direct3d-s2/dense-vae"]
    assert [m.name for m in second.matches] == ["direct3d-s2/refiner"], "the entry's name does not matter, its tensors do"
    assert third.matches == ()
    assert "not a network" in str(third)


def test_another_width_is_near_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    narrow = build("trellis/gaussian-decoder", model_channels=96, num_heads=4, num_blocks=12, use_fp16=False)
    state = to_trellis(narrow)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "fine_tune.safetensors")
    (found,) = inspect_checkpoint(tmp_path / "fine_tune.safetensors")
    nearest = found.matches[0]
    assert nearest.name == "trellis/gaussian-decoder"
    assert not nearest.exact
    assert (nearest.missing, nearest.left_over) == (0, 0)
    assert nearest.reshaped > 90
    assert main(["checkpoints", "inspect", str(tmp_path / "fine_tune.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "near trellis/gaussian-decoder: 0 tensors missing" in said


def test_own_files_and_rubbish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pretrained(build("voxgen/latent-flow-small", num_blocks=1), tmp_path / "own.safetensors")
    (found,) = inspect_checkpoint(tmp_path / "own.safetensors")
    assert found.kind == "latent-flow"
    assert "load_pretrained" in str(found)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(FileFormatError, match=r"bad\.safetensors"):
        inspect_checkpoint(tmp_path / "bad.safetensors")
    (tmp_path / "mesh.obj").write_text("v 0 0 0")
    with pytest.raises(FileFormatError, match=r"mesh\.obj must be a \.safetensors"):
        inspect_checkpoint(tmp_path / "mesh.obj")
    assert main(["checkpoints", "inspect", str(tmp_path / "none.ckpt")]) == 2
    assert "none.ckpt" in capsys.readouterr().err
