"""prepare: what it tells and rejects, and that assets and fields may come later."""

from __future__ import annotations

from pathlib import Path

import torch
from prepared import CornersStage, DoubledStage, digests, run, write_assets

from voxgen.data import Manifest, OVoxelStage, ShardDataset
from voxgen.io import save_mesh
from voxgen.testing import shapes


def test_manifest_tells_and_prints(assets: Path, tmp_path: Path) -> None:
    (assets / "bad.glb").write_bytes(b"rubbish")
    manifest = run(assets, tmp_path / "out")
    assert Manifest.read(tmp_path / "out") == Manifest(
        manifest.folder, manifest.names, manifest.fields, manifest.rejected, manifest.warnings, worked=0
    )
    assert (manifest.kept, manifest.missing, manifest.worked, manifest.reasons()) == (7, 0, 8, {"unreadable": 1})
    data = ShardDataset(tmp_path / "out")
    assert manifest.fields["corners"].size == int(data.sizes("corners").sum())
    assert manifest.bytes == sum(p.stat().st_size for p in (tmp_path / "out").rglob("*.safetensors"))
    table = str(manifest)
    for word in ("8 assets, 7 kept, 1 rejected", "corners", "doubled", "unreadable", "bad.glb", "bytes"):
        assert word in table
    assert run(assets, tmp_path / "out").worked == 0


def test_rejected_assets_have_reasons_and_no_records(assets: Path, tmp_path: Path) -> None:
    (assets / "empty.obj").write_bytes(b"v 0 0 0\n")
    (assets / "nan.obj").write_bytes(b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (assets / "point.obj").write_bytes(b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n")
    (assets / "torn.glb").write_bytes(b"glTF\x02\x00\x00\x00")
    save_mesh(shapes.torus(), assets / "large.ply")
    stages = [OVoxelStage(16, max_cells=700), CornersStage(), DoubledStage()]
    manifest = run(assets, tmp_path / "out", stages)
    codes = {"empty.obj": "mesh", "nan.obj": "mesh", "point.obj": "mesh", "torn.glb": "unreadable", "large.ply": "cells"}
    assert {name: code for name, (code, _) in manifest.rejected.items()} == codes
    assert "at most 700 are wanted" in manifest.rejected["large.ply"][1]
    assert "at least one face" in manifest.rejected["empty.obj"][1]
    assert "finite" in manifest.rejected["nan.obj"][1]
    assert {f.kept for f in manifest.fields.values()} == {7}, "a rejected asset has no record of any field"
    assert len(ShardDataset(tmp_path / "out")) == 7


def test_more_stages_and_more_assets_later(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    run(assets, tmp_path / "out", [CornersStage()])
    added = run(assets, tmp_path / "out", [DoubledStage()])  # reads corners from the shards
    assert added.worked == 7
    assert digests(tmp_path / "out") == whole
    write_assets(assets, 11)
    more = run(assets, tmp_path / "out")
    assert (more.worked, more.kept) == (4, 11)
    run(assets, tmp_path / "again")
    names = ShardDataset(tmp_path / "out").names
    assert names[:7] == tuple(f"asset{i}.ply" for i in range(7)), "what was there keeps its place"
    fresh = ShardDataset(tmp_path / "again")
    for i, name in enumerate(names):
        assert torch.equal(ShardDataset(tmp_path / "out")[i]["doubled"].feats, fresh[fresh.names.index(name)]["doubled"].feats)


def test_rejection_holds_for_fields_that_come_later(assets: Path, tmp_path: Path) -> None:
    (assets / "bad.glb").write_bytes(b"rubbish")
    run(assets, tmp_path / "out", [CornersStage()])
    manifest = run(assets, tmp_path / "out", [DoubledStage()])
    assert manifest.fields["doubled"].kept == 7
    assert manifest.rejected["bad.glb"][0] == "unreadable"
    save_mesh(shapes.box(), assets / "bad.glb")
    assert run(assets, tmp_path / "out").rejected, "rejected assets are left alone"
    assert run(assets, tmp_path / "out", retry=True).kept == 8
