"""prepare: what it refuses before it writes anything: rubbish, other settings, and folders that are not its own alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import STAGES, CornersStage, DoubledStage, digests, run, write_assets

from voxgen.core.errors import DtypeError, FileFormatError, RangeError
from voxgen.data import AssetInput, LatentStage, OVoxelStage, prepare
from voxgen.models import build, save_pretrained


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
