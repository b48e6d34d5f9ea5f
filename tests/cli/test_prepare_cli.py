"""`voxgen prepare` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from voxgen.cli import main
from voxgen.data import ShardDataset
from voxgen.io import save_mesh
from voxgen.models import build, save_pretrained
from voxgen.testing import shapes


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    save_mesh(shapes.box(), folder / "box.ply")
    save_mesh(shapes.rotated(shapes.box()), folder / "turned.glb")
    (folder / "bad.glb").write_bytes(b"rubbish")
    return folder


def test_prepares_tells_and_goes_on(assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    vae, structure = tmp_path / "vae.safetensors", tmp_path / "structure.safetensors"
    save_pretrained(build("voxgen/shape-vae-small"), vae)
    save_pretrained(build("voxgen/structure-vae-small"), structure)
    out = tmp_path / "out"
    command = ["prepare", str(assets), str(out), "--ovoxel", "16", "--no-materials", "--points", "50", "--engine", "here"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 assets, bad.glb, box.ply, turned.glb" in said
    assert "3 assets to work on" in said
    assert not out.exists()
    assert main(command) == 0
    said = capsys.readouterr().out
    for word in ("3 assets, 2 kept, 1 rejected", "ovoxel", "points", "unreadable", "worked on 3 assets"):
        assert word in said
    more = [*command, "--latents", str(vae), f"{structure}@8", "--logvar"]
    assert main(more) == 0
    assert "structure_latent" in capsys.readouterr().out
    item = ShardDataset(out)[0]
    assert not item["ovoxel"].materials
    assert item["shape_latent"].mean.grid.resolution == (4, 4, 4)
    assert item["structure_latent"].mean.shape[2:] == (2, 2, 2)
    assert main(more) == 0
    assert "worked on 0 assets" in capsys.readouterr().out


def test_procedural_assets_need_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    stages = ["--ovoxel", "8", "--exact", "--images", "1", "--image-size", "16", "--engine", "here"]
    assert main(["prepare", "--procedural", "2", "--seed", "3", "--split", "test", str(out), *stages]) == 0
    data = ShardDataset(out)
    assert data.names == ("procedural-3-0000009", "procedural-3-0000019")
    assert data[0]["images"].images.shape == (1, 16, 16, 4)
    assert "2 kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/nowhere", "{tmp}/out", "--ovoxel", "8"], "nowhere"),
        (["{tmp}/out", "--ovoxel", "8"], "--procedural"),
        (["{assets}", "{tmp}/out"], "say what to make"),
        (["{assets}", "{tmp}/out", "--ovoxel", "0"], "resolution"),
        (["{assets}", "{tmp}/out", "--ovoxel", "8", "--workers", "0"], "workers"),
        (["{assets}", "{tmp}/out", "--ovoxel", "8", "--timeout", "3", "--engine", "here"], "timeout"),
        (["{assets}", "{tmp}/out", "--latents", "{tmp}/nowhere.safetensors"], "nowhere.safetensors"),
        (["{assets}", "{tmp}/out", "--latents", "{assets}/box.ply"], "box.ply"),
        (["{assets}", "{assets}", "--ovoxel", "8"], "no prepared folder"),
        (["--procedural", "-1", "{tmp}/out", "--ovoxel", "8"], "count"),
    ],
)
def test_a_mistake_gives_one_line_and_code_2(
    arguments: list[str], words: str, assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["prepare", *(a.format(tmp=tmp_path, assets=assets) for a in arguments)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("voxgen prepare: ")
    assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_usable_is_an_error(assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(assets / "bad.glb"), str(tmp_path / "out"), "--ovoxel", "8", "--engine", "here"]) == 2
    captured = capsys.readouterr()
    assert "1 rejected" in captured.out
    assert "no asset could be used" in captured.err


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for word in ("examples:", "--ovoxel N", "kill -9", "--dry-run", "which assets to reject"):
        assert word in said
