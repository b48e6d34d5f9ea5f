"""`voxgen generate` and `open_pipeline` on a tiny system: what is written, and what is said of a user's mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from trellis2_tiny import picture, tiny

from voxgen.cli import main
from voxgen.cli._generate import _read_picture
from voxgen.core import VoxelGrid
from voxgen.core.errors import FileFormatError
from voxgen.io import load_mesh
from voxgen.models.pipelines import Trellis2Pipeline, open_pipeline
from voxgen.representations import OVoxel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generate") / "system"
    tiny().save_folder(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(picture()).save(path)
    return path


def test_open_pipeline_knows_the_kind(folder: Path, tmp_path: Path) -> None:
    assert isinstance(open_pipeline(folder), Trellis2Pipeline)
    (tmp_path / "pipeline.json").write_text('{"name": "somebody else\'s"}')
    with pytest.raises(FileFormatError, match="was not written by voxgen"):
        open_pipeline(tmp_path)
    (tmp_path / "pipeline.json").write_text('{"voxgen.pipeline": "of-the-future"}')
    with pytest.raises(FileFormatError, match="holds a pipeline 'of-the-future'"):
        open_pipeline(tmp_path)


def test_generate_writes_assets(folder: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "asset.glb"
    assert main(["generate", str(image), str(out), "--from", str(folder)]) == 0
    assert load_mesh(out).num_faces > 0
    assert load_mesh(out).materials[0].alpha_mode == "OPAQUE"
    assert main(["generate", str(image), str(tmp_path / "many.vxz"), "--from", str(folder), "--samples", "2", "--seed", "3"]) == 0
    assert len(OVoxel.load(tmp_path / "many_3.vxz")) > 0
    assert (tmp_path / "many_4.vxz").exists()
    assert "OVoxel" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".glb", ".vxz"])
def test_an_empty_object_does_not_cost_the_others(
    suffix: str, folder: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Trellis2Pipeline.sample_structure

    def without_the_first(*arguments: Any, **options: Any) -> VoxelGrid:
        found = whole(*arguments, **options)
        return found.select(found.coords[:, 0] > 0)

    monkeypatch.setattr(Trellis2Pipeline, "sample_structure", without_the_first)
    assert main(["generate", str(image), str(tmp_path / f"a{suffix}"), "--from", str(folder), "--samples", "2"]) == 2
    assert f"a_0{suffix}. Nothing was generated there" in capsys.readouterr().err
    assert not (tmp_path / f"a_0{suffix}").exists()
    assert (tmp_path / f"a_1{suffix}").exists()


def test_generate_says_what_is_wrong(folder: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: object) -> str:
        assert main(["generate", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    out = tmp_path / "asset.glb"
    assert "suffix must be one of" in told(image, tmp_path / "a.doc", "--from", folder)
    assert "--samples must be at least 1" in told(image, out, "--samples", 0, "--from", folder)
    assert "no such file" in told(tmp_path / "none.png", out, "--from", folder).lower()
    (tmp_path / "text.png").write_text("no picture")
    assert "is no picture that can be read" in told(tmp_path / "text.png", out, "--from", folder)
    Image.fromarray(picture()[..., :3]).save(tmp_path / "opaque.png")
    assert "pass --plain-background" in told(tmp_path / "opaque.png", out, "--from", folder)
    Image.new("RGBA", (32, 32)).save(tmp_path / "nothing.png")
    assert "alpha is 0 everywhere" in told(tmp_path / "nothing.png", out, "--from", folder)
    assert "there is no folder" in told(image, out, "--from", tmp_path / "missing")
    assert "there is no folder" in told(image, tmp_path / "nowhere" / "asset.glb", "--from", folder)
    assert "--seed must be a whole number" in told(image, out, "--seed", 2**70, "--from", folder)
    assert "--device must be cpu" in told(image, out, "--device", "warp", "--from", folder)
    image.write_bytes(image.read_bytes()[:-60])
    assert "is no picture that can be read" in told(image, out, "--from", folder)
    assert not out.exists()


def test_without_weights_it_says_what_to_pass(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("voxgen.cli._generate.shipped_pipelines", tuple)
    assert main(["generate", str(image), str(tmp_path / "asset.glb")]) == 2
    assert "--from FOLDER" in capsys.readouterr().err


def test_pictures_of_a_turned_camera_are_put_upright(tmp_path: Path) -> None:
    turned = Image.new("RGB", (8, 4))
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(tmp_path / "photo.jpg", exif=exif)
    assert _read_picture(tmp_path / "photo.jpg").size == (4, 8)
