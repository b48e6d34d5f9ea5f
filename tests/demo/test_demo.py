"""The demo at its smallest, and the self-test."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from voxgen import selftest
from voxgen.core.errors import BackendUnavailable
from voxgen.demo import main, procedural_asset
from voxgen.io import load_mesh, save_mesh
from voxgen.metrics import mesh_report
from voxgen.representations import OVoxel
from voxgen.testing import shapes


def test_the_asset_is_as_hard_as_it_says() -> None:
    mesh = procedural_asset().validate()
    assert mesh.part_names == ("bowl", "core", "shell", "ring", "cloth", "fins")
    assert mesh.face_part is not None
    reports = {name: mesh_report(mesh.select_faces(mesh.face_part == i)) for i, name in enumerate(mesh.part_names)}
    assert all(reports[name].is_closed and reports[name].is_oriented for name in ("core", "shell", "ring"))
    assert all(reports[name].boundary_loops == 1 for name in ("bowl", "cloth"))
    assert reports["fins"].nonmanifold_edges == 12
    modes = {m.name: m.alpha_mode for m in mesh.materials}
    assert modes["glass"] == "BLEND"
    assert modes["weave"] == "MASK"
    sizes = {t.image.shape[:2] for m in mesh.materials for t in m.textures.values()}
    assert (180, 300) in sizes


def test_demo_writes_all_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = shlex.split("--resolutions 16 32 --size 96 --texture-size 1024 --samples 5000 --pictures 2")
    training = ["--train-seconds", "2", "--train-resolution", "16"]
    assert main(["--out", str(tmp_path), *sizes, *training]) == 0
    said = capsys.readouterr().out
    assert "resolution" in said
    assert "F-score" in said
    assert "SparseFlex" in said
    assert "SparseSDF" in said
    assert "latent tokens" in said
    for kind in ("sparseflex", "sparsesdf"):
        assert load_mesh(tmp_path / f"{kind}_32.glb").num_faces > 500
    assert (tmp_path / "demo.png").stat().st_size > 5000
    assert "2 pictures →" in said
    assert (tmp_path / "generated.png").stat().st_size > 5000
    assert load_mesh(tmp_path / "generated.glb").num_faces > 500
    for resolution in (16, 32):
        assert OVoxel.load(tmp_path / f"ovoxel_{resolution}.vxz").resolution == (resolution,) * 3
        assert load_mesh(tmp_path / f"ovoxel_{resolution}.glb").num_faces > 500


def test_demo_takes_the_users_file_and_names_a_bad_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_mesh(shapes.bowl(), tmp_path / "bowl.ply")
    sizes = shlex.split("--resolutions 16 --size 48 --samples 1000 --train-seconds 0 --pictures 0")
    small = ["--out", str(tmp_path / "out"), *sizes]
    assert main([str(tmp_path / "bowl.ply"), *small]) == 0
    assert "bowl.ply" in capsys.readouterr().out
    assert main([str(tmp_path / "nothing.ply"), *small]) == 2
    assert "nothing.ply" in capsys.readouterr().err


def test_selftest_reports_each_backend(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from voxgen.ops import _registry

    ops = {"lookup": _registry.load_all_ops()["lookup"]}
    monkeypatch.setattr(selftest, "load_all_ops", lambda: ops)
    assert selftest.main(["--quiet"]) == 0
    said = capsys.readouterr().out
    for backend in ops["lookup"].backends:
        assert f"lookup  {backend}" in said
    assert "0 failed" in said

    def broken(*_: object, **__: object) -> None:
        raise BackendUnavailable("on purpose")

    monkeypatch.setattr(selftest, "compare_backends", broken)
    assert selftest.main(["--quiet"]) == 1
    assert "FAILED" in capsys.readouterr().out
