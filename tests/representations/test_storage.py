"""OVoxel.save and OVoxel.load: what survives in which format, foreign files, and failures while writing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from voxgen.core import Frame
from voxgen.core.errors import FileFormatError, RangeError
from voxgen.representations import OVoxel
from voxgen.representations.ovoxel._npz import write_npz
from voxgen.representations.ovoxel._vxz import read_vxz, write_vxz
from voxgen.testing import shapes

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def ovoxel() -> OVoxel:
    ball = shapes.rotated(shapes.torus())
    colored = ball.replace(attributes={"base_color": (ball.vertices + 0.5).clamp(0, 1)}, up="z")
    return OVoxel.from_mesh(colored, 24, materials=("base_color", "metallic", "roughness", "alpha", "normal"))


def assert_same(a: OVoxel, b: OVoxel, tolerance: float) -> None:
    assert torch.equal(a.coords, b.coords)
    assert a.resolution == b.resolution
    assert a.frame.isclose(b.frame, 1e-12)
    assert a.color_space == b.color_space
    assert torch.equal(a.intersected, b.intersected)
    assert a.crossing_sign is not None
    assert b.crossing_sign is not None
    assert torch.equal(a.crossing_sign, b.crossing_sign)
    assert float((a.dual_vertices - b.dual_vertices).abs().max()) <= tolerance
    assert list(a.materials) == list(b.materials)
    for name, value in a.materials.items():
        assert float((value - b.materials[name]).abs().max()) <= (2 if name == "normal" else 1) * tolerance


@pytest.mark.parametrize("name", ["a.vxz", "a.npz", "a.ply", "A.VXZ"])
def test_everything_survives_to_the_precision_of_the_format(ovoxel: OVoxel, name: str, tmp_path: Path) -> None:
    ovoxel.save(tmp_path / name)
    back = OVoxel.load(tmp_path / name)
    assert_same(ovoxel, back, 0.5 / 255 + 1e-6 if name.lower().endswith("vxz") else 0.0)
    back.save(tmp_path / f"again_{name}")
    assert_same(back, OVoxel.load(tmp_path / f"again_{name}"), 0.0)


def test_linear_colours_and_split_weights_survive_in_npz(ovoxel: OVoxel, tmp_path: Path) -> None:
    rich = ovoxel.replace(split_weight=torch.rand(len(ovoxel), 1), color_space="linear")
    rich.save(tmp_path / "a.npz")
    back = OVoxel.load(tmp_path / "a.npz")
    assert_same(rich, back, 0.0)
    assert back.split_weight is not None
    assert rich.split_weight is not None
    assert torch.equal(back.split_weight, rich.split_weight)
    with pytest.raises(RangeError, match="split weights"):
        rich.save(tmp_path / "a.vxz")
    assert not (tmp_path / "a.vxz").exists()


def test_compat_writes_the_originals_attributes_only(ovoxel: OVoxel, tmp_path: Path) -> None:
    ovoxel.save(tmp_path / "a.vxz", compat="trellis2")
    file = read_vxz(tmp_path / "a.vxz")
    assert "voxgen" not in file.header
    assert list(file.attributes)[:2] == ["vertices", "intersected"]
    assert "crossing_sign" not in file.attributes
    with pytest.raises(RangeError, match=r"resolution=.*32"):
        OVoxel.load(tmp_path / "a.vxz")
    back = OVoxel.load(tmp_path / "a.vxz", resolution=24)
    assert back.frame == Frame.unit(24, up="z")
    bias = (back.dual_vertices - ovoxel.dual_vertices)[(ovoxel.dual_vertices > 0) & (ovoxel.dual_vertices < 1)].mean()
    assert float(bias) == pytest.approx(-0.5 / 255, abs=2e-4), "the original truncates"


def test_files_of_the_original_load_together() -> None:
    back = OVoxel.load(GOLDEN / "ovoxel_geometry.vxz", materials=GOLDEN / "ovoxel_material.vxz", resolution=1024)
    assert len(back) > 0
    assert back.crossing_sign is None
    assert {"base_color", "metallic", "roughness", "alpha"} <= set(back.materials)
    with pytest.raises(FileFormatError, match="materials alone"):
        OVoxel.load(GOLDEN / "ovoxel_material.vxz", resolution=1024)


def test_empty_survives(ovoxel: OVoxel, tmp_path: Path) -> None:
    nothing = ovoxel.crop((0, 0, 0), (1, 1, 1))
    assert len(nothing) == 0
    for name in ("a.vxz", "a.npz", "a.ply"):
        nothing.save(tmp_path / name)
        assert len(OVoxel.load(tmp_path / name)) == 0


def test_bad_calls_are_named(ovoxel: OVoxel, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="suffix"):
        ovoxel.save(tmp_path / "a.glb")
    with pytest.raises(FileFormatError, match="suffix"):
        OVoxel.load(tmp_path / "a.txt")
    with pytest.raises(RangeError, match="batch of 2"):
        OVoxel.batched([ovoxel, ovoxel]).save(tmp_path / "a.vxz")
    with pytest.raises(RangeError, match="finite"):
        ovoxel.replace(dual_vertices=ovoxel.dual_vertices * float("nan")).save(tmp_path / "a.vxz")
    with pytest.raises(FileNotFoundError):
        OVoxel.load(tmp_path / "nothing.vxz")
    assert list(tmp_path.iterdir()) == []
    ovoxel.save(tmp_path / "a.npz")
    with pytest.raises(RangeError, match="24"):
        OVoxel.load(tmp_path / "a.npz", resolution=32)


def test_foreign_attributes_and_contradictions_are_named(ovoxel: OVoxel, tmp_path: Path) -> None:
    cells = ovoxel.grid.cells
    one, three = torch.zeros(len(cells), 1, dtype=torch.uint8), torch.zeros(len(cells), 3, dtype=torch.uint8)
    for attributes, words in (
        ({"vertices": three, "intersected": one, "shine": one}, "shine"),
        ({"vertices": one, "intersected": one}, "'vertices' must have 3"),
        ({"vertices": three, "intersected": one + 9}, "intersected"),
        ({"intersected": one}, "must hold"),
    ):
        write_vxz(tmp_path / "b.vxz", cells, attributes, compression="none")
        with pytest.raises(FileFormatError, match=words):
            OVoxel.load(tmp_path / "b.vxz", resolution=24)
    write_vxz(tmp_path / "b.vxz", cells, {"vertices": three, "intersected": one}, compression="none")
    with pytest.raises(RangeError, match="too small"):
        OVoxel.load(tmp_path / "b.vxz", resolution=8)
    write_npz(tmp_path / "m.npz", cells[1:], {"metallic": one[1:]})
    with pytest.raises(FileFormatError, match=r"m\.npz"):
        OVoxel.load(tmp_path / "b.vxz", materials=tmp_path / "m.npz", resolution=24)


@pytest.mark.parametrize("name", ["a.vxz", "a.npz", "a.ply"])
def test_a_full_disk_leaves_the_old_file(ovoxel: OVoxel, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ovoxel.save(tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=name) as caught:
        ovoxel.crop((0, 0, 0), (12, 24, 24)).save(tmp_path / name)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before
    with pytest.raises(OSError, match="missing"):
        ovoxel.save(tmp_path / "missing" / name)
