"""prepare: what it makes, what it rejects, and that no way of stopping it loses or changes anything."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import CornersStage, DoubledStage, FailingStage, MoodyStage, digests, write_assets

import voxgen.core.atomic as atomic
from voxgen.core import TriMesh
from voxgen.core.errors import DtypeError, FileFormatError, MissingDependency, RangeError, VoxgenError
from voxgen.data import (
    AssetInput,
    FileSource,
    ImagesStage,
    LatentStage,
    Manifest,
    OVoxelStage,
    PointsStage,
    SDFStage,
    ShardDataset,
    condition_images,
    find_sources,
    prepare,
    procedural_asset,
    procedural_sources,
)
from voxgen.io import save_mesh
from voxgen.models import build, save_pretrained
from voxgen.representations import OVoxel, fit_unit_cube
from voxgen.testing import shapes

STAGES = [CornersStage(), DoubledStage()]


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    return write_assets(tmp_path / "assets")


@pytest.fixture
def whole(assets: Path, tmp_path: Path) -> dict[str, str]:
    """The files of a run that nothing disturbed."""
    run(assets, tmp_path / "whole")
    return digests(tmp_path / "whole")


def run(assets: Path, folder: Path, stages: Any = None, **options: Any) -> Manifest:
    return prepare(assets, folder, stages or STAGES, **{"engine": "here", "assets_per_shard": 3, **options})


def test_real_stages_make_what_their_records_make(tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_pretrained(build("voxgen/shape-vae-small"), tmp_path / "shape.safetensors")
    material, structure = build("voxgen/material-vae-small"), build("voxgen/structure-vae-small")
    stages = [
        OVoxelStage(16, precision="exact"),
        SDFStage(16),
        PointsStage(200),
        ImagesStage(2, size=24),
        LatentStage(tmp_path / "shape.safetensors"),
        LatentStage(material, dtype="float16"),
        LatentStage(structure, resolution=16, logvar=True),
        LatentStage(build("voxgen/sdf-vae-small")),
        LatentStage(build("voxgen/sparse-flex-vae-small"), resolution=4, logvar=True),
    ]
    manifest = prepare(procedural_sources(2), tmp_path / "out", stages, engine="here")
    assert manifest.kept == 2
    item = ShardDataset(tmp_path / "out")[1]
    mesh = fit_unit_cube(procedural_asset(1).mesh)
    found = OVoxel.from_mesh(mesh, 16, frame=item["ovoxel"].frame)
    assert torch.equal(item["ovoxel"].dual_vertices, found.dual_vertices)
    assert torch.equal(item["ovoxel"].materials["base_color"], found.materials["base_color"])
    vae = build("voxgen/shape-vae-small")
    vae.load_state_dict(LatentStage(tmp_path / "shape.safetensors")._loaded().state_dict())
    with torch.no_grad():
        expected = vae.eval().encode(found).z
    torch.testing.assert_close(item["shape_latent"].feats, expected.feats, rtol=1e-5, atol=1e-5)  # same ops, other thread counts
    assert item["material_latent"].grid.same_cells(item["shape_latent"].grid)
    assert item["material_latent"].dtype == torch.float16
    assert item["structure_latent"].mean.shape == (1, 8, 4, 4, 4)
    assert item["flex_latent"].mean.grid.resolution == (4, 4, 4)
    chance = torch.Generator().manual_seed(AssetInput(procedural_sources(2)[1]).seed)
    assert torch.equal(item["images"].images, condition_images(mesh, 2, size=24, generator=chance).images)
    assert float(item["points"].points.abs().max()) <= 0.5
    assert float(item["sdf"].sdf_cells.min()) < 0


def test_assets_are_turned_and_fitted(tmp_path: Path) -> None:
    mesh = shapes.box().replace(vertices=shapes.box().vertices * torch.tensor([1.0, 2.0, 30.0]) + 100)
    save_mesh(mesh, tmp_path / "box.ply")
    flat = AssetInput(FileSource(str(tmp_path / "box.ply"), "box.ply", "y")).mesh
    tall = AssetInput(FileSource(str(tmp_path / "box.ply"), "box.ply", "z")).mesh
    assert torch.equal(tall.vertices, TriMesh(flat.vertices, flat.faces, up="z").with_up("y").vertices)
    for mesh, longest in ((flat, 2), (tall, 1)):
        low, high = mesh.bounds()
        assert int((high - low).argmax()) == longest
        torch.testing.assert_close(high[longest], torch.tensor(0.499995), rtol=0, atol=1e-6)
        torch.testing.assert_close(low, -high, rtol=0, atol=1e-6)


def test_sources_of_all_sorts(assets: Path, tmp_path: Path) -> None:
    (assets / "deeper").mkdir()
    (assets / "deeper" / "B.OBJ").write_bytes(b"")
    (assets / "notes.md").write_text("no mesh")
    names = [source.name for source in find_sources(assets)]
    assert names == [f"asset{i}.ply" for i in range(7)] + ["deeper/B.OBJ"]
    (tmp_path / "list.txt").write_text("# chosen\n\nassets/asset3.ply\nassets/missing.glb\nassets/deeper\n")
    assert [s.name for s in find_sources(tmp_path / "list.txt")] == ["assets/asset3.ply", "assets/missing.glb", "B.OBJ"]
    mixed = find_sources([assets / "asset1.ply", *procedural_sources(2, seed=5)])
    assert [s.name for s in mixed] == ["asset1.ply", "procedural-5-0000000", "procedural-5-0000001"]
    manifest = run(tmp_path / "list.txt", tmp_path / "out")
    assert {name: code for name, (code, _) in manifest.rejected.items()} == {"assets/missing.glb": "missing", "B.OBJ": "unreadable"}


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


def test_processes_give_the_same_files_and_survive_what_assets_do(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    """One that ends its process, one that never ends, one with a mistake in its stage, one with a warning."""
    manifest = run(assets, tmp_path / "moody", [MoodyStage()], engine="processes", workers=2, timeout=3.0)
    codes = {"asset1.ply": "ugly", "asset2.ply": "error", "asset4.ply": "crash", "asset5.ply": "timeout"}
    assert {name: code for name, (code, _) in manifest.rejected.items()} == codes
    assert "ZeroDivisionError: a mistake in the stage" in manifest.rejected["asset2.ply"][1]
    assert "exit code 7" in manifest.rejected["asset4.ply"][1]
    assert "longer than 3 seconds" in manifest.rejected["asset5.ply"][1]
    assert manifest.warnings == {"asset3.ply": ("this one looks odd",)}
    run(assets, tmp_path / "moody", [CornersStage()], retry=True)  # the same field by a friendlier stage
    again = run(assets, tmp_path / "moody", STAGES)
    assert not again.rejected
    one, other = ShardDataset(tmp_path / "moody"), ShardDataset(tmp_path / "whole")
    assert all(torch.equal(one[i]["doubled"].feats, other[i]["doubled"].feats) for i in range(7))
    run(assets, tmp_path / "out", engine="processes", workers=2)
    assert digests(tmp_path / "out") == whole


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from prepared import CornersStage, DoubledStage
from voxgen.data import prepare
class Slow(CornersStage):
    def run(self, asset, done):
        import time
        time.sleep(0.03)
        return super().run(asset, done)
prepare({assets!r}, {out!r}, [Slow(), DoubledStage()], engine="here", assets_per_shard=3)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    assets, out = write_assets(tmp_path / "assets", 40), tmp_path / "out"
    script = SCRIPT.format(tests=str(Path(__file__).parent), assets=str(assets), out=str(out))
    for least in (5, 20):
        with subprocess.Popen([sys.executable, "-c", script]) as process:
            while process.poll() is None and len(list(out.glob("*/*.jsonl"))) * 3 + len(list(out.glob("parts/*/*"))) < 2 * least:
                time.sleep(0.001)
            time.sleep(random.Random(least).random() * 0.03)
            process.kill()
        assert process.returncode == -signal.SIGKILL, "the kill came before the end"
    before = Manifest.read(out)
    manifest = run(assets, out)
    assert 0 < manifest.worked <= 40 - before.kept
    run(assets, tmp_path / "whole")
    assert digests(out) == digests(tmp_path / "whole")


class Killed(BaseException):
    """In place of a signal, so that a test can stop at each place where files change."""


class Dying:
    """A system call that works so many times."""

    def __init__(self, real: Any, left: int) -> None:
        self.real, self.left = real, left

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return self.real(*arguments)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_stopped_between_any_two_files(
    call: str, assets: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop at the first write, go on and stop at the second, and so on: each run gets one further."""
    out, real, stops = tmp_path / "out", getattr(os, call), 0
    while stops < 200:
        monkeypatch.setattr(atomic.os, call, Dying(real, 4))
        try:
            run(assets, out)
            break
        except Killed:
            stops += 1
        finally:
            monkeypatch.undo()
    assert 5 < stops < 200
    assert digests(out) == whole


def test_parts_that_outlived_their_shard_go(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    """A kill between the writing of an index and the removal of its parts; and temporary files of the killed."""
    out = tmp_path / "out"
    real, kept = Path.unlink, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Path,
            "unlink",
            lambda path, missing_ok=False: kept.update({path: path.read_bytes()}) if path.exists() and "parts" in path.parts else None,
        )
        patch.setattr(Path, "rmdir", lambda path: None)
        run(assets, out)
    assert real is Path.unlink
    assert kept
    (out / "corners" / ".voxgen-0123.tmp").write_bytes(b"half")
    assert run(assets, out).worked == 0
    found = {name: d for name, d in digests(out).items() if "parts" not in name}
    assert found == whole
    assert not list((out / "parts").rglob("*.safetensors"))


@pytest.mark.parametrize("after", [0, 3, 9, 20])
def test_full_disk_stops_clearly_and_loses_nothing(
    after: int, assets: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, out = os.fsync, [], tmp_path / "out"

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*No space left.*finished is kept in .*out; make room") as caught:
        run(assets, out)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    run(assets, out)
    assert digests(out) == whole


def test_the_systems_own_refusal_of_a_large_file(assets: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    stages = [CornersStage(), PointsStage(5000)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*run the same again"):
            run(assets, tmp_path / "out", stages)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(assets, tmp_path / "out", stages)
    run(assets, tmp_path / "again", stages)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


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


def test_other_settings_are_refused(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    out = tmp_path / "whole"
    for options, words in (
        ({"stages": [CornersStage(channels=4)]}, "'corners' was prepared otherwise: channels was 3 and is 4 now"),
        ({"assets_per_shard": 4}, "3 assets a shard; got 4"),
        ({"up": "z"}, "begun with up=None; got up='z'"),
        ({"sources": assets / "asset1.ply"}, "6 of 7 assets that are not among the sources, the first is 'asset0.ply'"),
    ):
        with pytest.raises(RangeError, match=words):
            prepare(**{"sources": assets, "folder": out, "stages": STAGES, "engine": "here", "assets_per_shard": 3, **options})
    torch.manual_seed(0)
    vae = build("voxgen/shape-vae-small")
    stages = [OVoxelStage(16), LatentStage(vae)]
    prepare(assets / "asset1.ply", tmp_path / "latents", stages, engine="here")
    save_pretrained(vae, tmp_path / "vae.safetensors")
    same = prepare(assets / "asset1.ply", tmp_path / "latents", [OVoxelStage(16), LatentStage(tmp_path / "vae.safetensors")], engine="here")
    assert same.worked == 0, "weights are known by what they are, not where they lie"
    vae.encoder.requires_grad_(False)
    next(vae.parameters()).data.add_(1)
    with pytest.raises(RangeError, match="'shape_latent' was prepared otherwise: sha256 was"):
        prepare(assets / "asset1.ply", tmp_path / "latents", [OVoxelStage(16), LatentStage(vae)], engine="here")
    assert digests(out) == whole, "nothing was touched"


class Rough:
    """A stage with a mistake of its author's."""

    fields: Mapping[str, str] = {"Not a name": "sparse"}
    needs = ()

    def config(self) -> dict[str, Any]:
        return {}

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        return {}


class Unknown(Rough):
    fields: Mapping[str, str] = {"thing": "splats"}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sources": 5}, DtypeError, "sources must be"),
        ({"sources": [5]}, DtypeError, "a source must be a path"),
        ({"sources": []}, RangeError, "nothing to prepare"),
        ({"sources": "{tmp}/nowhere"}, FileNotFoundError, "nowhere does not exist"),
        ({"sources": "{tmp}/hollow"}, RangeError, "nothing to prepare"),
        ({"sources": "{tmp}/hollow/readme.md"}, RangeError, "must be a folder, a .txt list, or a mesh"),
        ({"sources": ["{tmp}/assets", "{tmp}/assets/asset1.ply"]}, RangeError, "two assets have the name 'asset1.ply'"),
        ({"stages": []}, RangeError, "at least one stage"),
        ({"stages": "ovoxel"}, RangeError, "must be a list"),
        ({"stages": [5]}, DtypeError, "a stage must have fields"),
        ({"stages": [CornersStage(), CornersStage()]}, RangeError, "two stages make the field 'corners'"),
        ({"stages": [DoubledStage()]}, RangeError, "needs the field 'corners'; add the stage"),
        ({"stages": [DoubledStage(), CornersStage()]}, RangeError, "needs the field 'corners'; move its stage before"),
        ({"stages": [Rough()]}, RangeError, "a field's name must be"),
        ({"stages": [CornersStage(field="parts")]}, RangeError, "a field's name must be"),
        ({"stages": [Unknown()]}, RangeError, "knows records of the kinds"),
        ({"workers": 0}, RangeError, "workers must be at least 1"),
        ({"assets_per_shard": 0}, RangeError, "assets_per_shard"),
        ({"engine": "slurm"}, RangeError, "engine must be one of"),
        ({"timeout": 5.0}, RangeError, "timeout needs processes"),
        ({"timeout": -1.0, "engine": "processes"}, RangeError, "above 0"),
        ({"up": "x"}, RangeError, "up must be one of"),
        ({"folder": "{tmp}/assets"}, RangeError, "holds other things, such as 'asset0.ply'"),
        ({"folder": "{tmp}/hollow/readme.md"}, RangeError, "is a file"),
    ],
)
def test_rubbish_is_refused_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], words: str, assets: Path, tmp_path: Path
) -> None:
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "readme.md").write_text("nothing here")
    before = digests(tmp_path)

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(v) for v in value]
        return value.format(tmp=tmp_path) if isinstance(value, str) else value

    given = {"sources": assets, "folder": tmp_path / "out", "stages": STAGES, "engine": "here"}
    with pytest.raises(error, match=words):
        prepare(**{**given, **{name: filled(value) for name, value in options.items()}})
    assert digests(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: OVoxelStage(0), RangeError),
        (lambda: OVoxelStage(8, precision="double"), RangeError),  # pyright: ignore[reportArgumentType]
        (lambda: OVoxelStage(8, max_cells=0), RangeError),
        (lambda: SDFStage(8, scale=1.5), RangeError),
        (lambda: SDFStage(8, sign="guess"), RangeError),  # pyright: ignore[reportArgumentType]
        (lambda: PointsStage(0), RangeError),
        (lambda: ImagesStage(0), RangeError),
        (lambda: LatentStage("nowhere.safetensors"), FileNotFoundError),
        (lambda: LatentStage(torch.nn.Linear(2, 2)), DtypeError),
        (lambda: LatentStage(5), DtypeError),  # pyright: ignore[reportArgumentType]
        (lambda: LatentStage(build("voxgen/sparse-flex-vae-small")), RangeError),
        (lambda: LatentStage(build("voxgen/shape-vae-small"), resolution=4), RangeError),
        (lambda: procedural_sources(-1), RangeError),
    ],
)
def test_stages_check_their_settings(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_latents_that_are_not_finite_or_too_many_are_rejected(assets: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build("voxgen/shape-vae-small")
    manifest = prepare(assets / "asset1.ply", tmp_path / "a", [OVoxelStage(16), LatentStage(vae, max_tokens=3)], engine="here")
    assert manifest.rejected["asset1.ply"][0] == "cells"
    for parameter in vae.parameters():
        parameter.data.fill_(torch.nan)
    manifest = prepare(assets / "asset1.ply", tmp_path / "b", [OVoxelStage(16), LatentStage(vae)], engine="here")
    assert manifest.rejected["asset1.ply"][0] == "latent"


def test_two_at_once_do_not_mix(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "whole" / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RangeError, match="another preparation is at work"):
            run(assets, tmp_path / "whole")
    assert run(assets, tmp_path / "whole").worked == 0


def test_folder_that_was_put_together_from_two(assets: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    other = write_assets(tmp_path / "others", 7)
    (other / "asset0.ply").rename(other / "zero.ply")
    run(other, tmp_path / "other")
    for name in ("assets.jsonl", "manifest.json"):
        (tmp_path / "whole" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(FileFormatError, match="put together from two"):
        run(other, tmp_path / "whole")


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
