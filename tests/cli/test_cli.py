"""The command line as a user meets it: results, exit codes, one line for a mistake and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from voxgen.cli import main
from voxgen.io import load_mesh, save_mesh
from voxgen.representations import OVoxel
from voxgen.testing import shapes


@pytest.fixture
def torus(tmp_path: Path) -> Path:
    path = tmp_path / "torus.glb"
    save_mesh(shapes.rotated(shapes.torus()), path)
    return path


def test_convert_goes_every_way(torus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels, again, mesh, remeshed = (tmp_path / n for n in ("a.vxz", "b.npz", "c.glb", "d.ply"))
    assert main(["convert", str(torus), str(voxels), "-r", "24", "--compression", "zstd", "--filter", "parent"]) == 0
    assert OVoxel.load(voxels).resolution == (24, 24, 24)
    assert main(["convert", str(voxels), str(again), "-r", "12"]) == 0
    assert OVoxel.load(again).resolution == (12, 12, 12)
    assert main(["convert", str(voxels), str(mesh), "--texture", "512"]) == 0
    assert load_mesh(mesh).materials[0].base_color is not None
    assert main(["convert", str(torus), str(remeshed), "-r", "16", "--no-materials"]) == 0
    assert 500 < load_mesh(remeshed).num_faces < 2000
    assert main(["convert", str(torus), str(tmp_path / "e.obj")]) == 0
    assert load_mesh(tmp_path / "e.obj").num_faces == load_mesh(torus).num_faces
    assert main(["convert", str(torus), str(tmp_path / "f.vxz"), "-r", "16", "--compat", "trellis2"]) == 0
    said = capsys.readouterr().out
    assert "a.vxz: OVoxel(" in said
    assert "bytes" in said


def test_info_tells_what_is_inside(torus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(torus)]) == 0
    assert "4,096" in capsys.readouterr().out
    OVoxel.from_mesh(load_mesh(torus), 16).save(tmp_path / "a.vxz")
    assert main(["info", str(tmp_path / "a.vxz")]) == 0
    said = capsys.readouterr().out
    assert "flagged edges" in said
    assert "roughness: mean" in said


def test_render_writes_a_picture_of_the_size_asked_for(torus: Path, tmp_path: Path) -> None:
    from PIL import Image

    assert main(["render", str(torus), str(tmp_path / "one.png"), "--size", "64"]) == 0
    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (64, 64)
        assert len(image.getcolors(4096) or []) > 50, "something is to be seen"
    assert main(["render", str(torus), str(tmp_path / "two.png"), "--size", "64", "--views", "2", "--shading", "normal"]) == 0
    with Image.open(tmp_path / "two.png") as image:
        assert image.size[0] > 128


def test_compare_prints_distances(torus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(torus), str(torus), "--samples", "1000"]) == 0
    said = capsys.readouterr().out
    assert "F-score at" in said
    assert "1.000000" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "{tmp}/nothing.glb"], "nothing.glb"),
        (["info", "{tmp}/readme.txt"], "suffix"),
        (["info", "{tmp}"], "suffix"),
        (["info", "{tmp}/broken.vxz"], "broken.vxz"),
        (["convert", "{tmp}/broken.glb", "{tmp}/x.vxz"], "broken.glb"),
        (["convert", "{torus}", "{tmp}/x.vxz", "-r", "0"], "resolution"),
        (["convert", "{torus}", "{tmp}/x.vxz", "-r", "100000"], "65536"),
        (["convert", "{torus}", "{tmp}/x.doc"], "suffix"),
        (["convert", "{torus}", "{tmp}/missing/x.vxz", "-r", "8"], "missing"),
        (["convert", "{torus}", "{tmp}/x.gltf"], "glb"),
        (["render", "{torus}", "{tmp}/x.jpg"], ".png"),
        (["render", "{torus}", "{tmp}/x.png", "--views", "0"], "1"),
        (["render", "{torus}", "{tmp}/x.png", "--size", "-4"], "width"),
        (["compare", "{torus}", "{torus}", "--threshold", "-1"], "threshold"),
        (["compare", "{torus}", "{torus}", "--samples", "0"], "samples"),
    ],
)
def test_a_mistake_gives_one_line_and_code_2(
    arguments: list[str], words: str, torus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.vxz").write_bytes(b"VXZ\0 and then nothing")
    (tmp_path / "broken.glb").write_bytes(b"glTF and then nothing")
    (tmp_path / "readme.txt").write_text("text")
    before = {p.name for p in tmp_path.iterdir()}
    filled = [a.format(tmp=tmp_path, torus=torus) for a in arguments]
    assert main(filled) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith(f"voxgen {arguments[0]}: ")
    assert {p.name for p in tmp_path.iterdir()} == before, "nothing was written"


def test_bad_arguments_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["fly"], ["convert", "one"], ["render", "a", "b", "--size", "large"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    capsys.readouterr()
    for arguments in (["--help"], ["convert", "--help"], ["info", "--help"], ["render", "--help"], ["compare", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert "examples:" in capsys.readouterr().out


def test_warnings_are_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_mesh(shapes.box(), tmp_path / "box.obj")
    text = (tmp_path / "box.obj").read_text()
    (tmp_path / "box.obj").write_text("mtllib nowhere.mtl\nusemtl gold\n" + text)
    assert main(["info", str(tmp_path / "box.obj")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("voxgen: warning: ") for line in lines)
    assert any("nowhere.mtl" in line for line in lines)


def test_the_module_runs_as_a_program(torus: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "voxgen.cli", "info", str(torus)], capture_output=True, text=True, check=True)
    assert "faces" in done.stdout
    assert done.stderr == ""
