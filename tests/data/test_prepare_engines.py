"""prepare: processes and Ray make the same files, and survive what assets do to them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from prepared import STAGES, CornersStage, FailingStage, MoodyStage, digests, run

from voxgen.core.errors import DtypeError, MissingDependency, VoxgenError
from voxgen.data import Manifest, PointsStage, ShardDataset


def test_processes_give_the_same_files_and_survive_what_assets_do(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    """One that ends its process, one that never ends, one with a mistake in its stage, one with a warning."""
    manifest = run(assets, tmp_path / "moody", [MoodyStage()], engine="processes", workers=2, timeout=5.0)
    codes = {"asset1.ply": "ugly", "asset2.ply": "error", "asset4.ply": "crash", "asset5.ply": "timeout"}
    assert {name: code for name, (code, _) in manifest.rejected.items()} == codes
    assert "ZeroDivisionError: a mistake in the stage" in manifest.rejected["asset2.ply"][1]
    assert "exit code 7" in manifest.rejected["asset4.ply"][1]
    assert "longer than 5 seconds" in manifest.rejected["asset5.ply"][1]
    assert manifest.warnings == {"asset3.ply": ("this one looks odd",)}
    run(assets, tmp_path / "moody", [CornersStage()], retry=True)  # the same field by a friendlier stage
    again = run(assets, tmp_path / "moody", STAGES)
    assert not again.rejected
    one, other = ShardDataset(tmp_path / "moody"), ShardDataset(tmp_path / "whole")
    assert all(torch.equal(one[i]["doubled"].feats, other[i]["doubled"].feats) for i in range(7))
    run(assets, tmp_path / "out", engine="processes", workers=2)
    assert digests(tmp_path / "out") == whole


def test_stages_that_cannot_travel(assets: Path, tmp_path: Path) -> None:
    class Local(CornersStage):
        pass

    with pytest.raises(DtypeError, match=r"stages must be picklable.*engine='here'"):
        run(assets, tmp_path / "a", [Local()], engine="processes", workers=1)
    sys.modules["passing"] = module = type(sys)("passing")
    module.Gone = Gone = type("Gone", (CornersStage,), {"__module__": "passing"})
    with pytest.raises(VoxgenError, match="could not read the stages: ModuleNotFoundError"):
        run(assets, tmp_path / "b", [Gone()], engine="processes", workers=1)
    del sys.modules["passing"]


def test_ray_gives_the_same_files(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")  # a busy machine
    stages = [PointsStage(50)]
    (assets / "bad.glb").write_bytes(b"rubbish")
    path = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=path)
    try:
        manifest = run(assets, tmp_path / "ray", stages, engine="ray")
        moody = run(assets, tmp_path / "moody", [MoodyStage()], engine="ray", timeout=2.0)
        with pytest.raises(MissingDependency, match="the package hamster is needed"):
            run(assets, tmp_path / "failing", [FailingStage()], engine="ray")
    finally:
        ray.shutdown()
    assert manifest.reasons() == {"unreadable": 1}
    assert "asset3.ply" not in Manifest.read(tmp_path / "failing").rejected
    run(assets, tmp_path / "here", stages)
    assert digests(tmp_path / "ray") == digests(tmp_path / "here")
    codes = {"asset1.ply": "ugly", "asset2.ply": "error", "asset4.ply": "crash", "asset5.ply": "timeout", "bad.glb": "unreadable"}
    assert {name: code for name, (code, _) in moody.rejected.items()} == codes
