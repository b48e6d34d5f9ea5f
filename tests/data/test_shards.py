"""Shards and the dataset that reads them: every kind of record, damage in every place, subsets, workers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import CornersStage, write_assets
from torch.utils.data import DataLoader

from voxgen.core import Camera, Frame, SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, FileFormatError, FileWarning, RangeError, ShapeError
from voxgen.data import KINDS, ConditionImages, PointsStage, ShardDataset, collate, occupancy, prepare
from voxgen.data._fields import Packed, pack, unpack
from voxgen.data._shards import Entry, Shard, read_part, write_part, write_shard
from voxgen.layers import DiagonalGaussian
from voxgen.models.structure import DensePosterior
from voxgen.representations import OrientedPoints, OVoxel, SparseSDF


def grid_of(count: int, resolution: int = 64, up: str = "y") -> VoxelGrid:
    cells = torch.randint(resolution, (count, 3)).unique(dim=0).int()
    frame = Frame.unit(resolution, up)  # pyright: ignore[reportArgumentType]
    return VoxelGrid.build(torch.nn.functional.pad(cells, (1, 0)), resolution=resolution, batch_size=1, frame=frame)[0]


def ovoxel_of(count: int, **fields: Any) -> OVoxel:
    grid = grid_of(count)
    n = len(grid)
    materials = {"base_color": torch.rand(n, 3), "roughness": torch.rand(n, 1), "normal": torch.rand(n, 3) * 2 - 1}
    return OVoxel(grid, torch.rand(n, 3), torch.rand(n, 3) > 0.5, materials=materials, **fields)


def camera_of(views: int) -> Camera:
    return Camera.look_at(torch.randn(views, 3) + 3, width=5, height=4, near=0.25, far=7.5)


def records(count: int) -> dict[str, Any]:
    grid = grid_of(count, up="z")
    n = len(grid)
    feats = torch.randn(n, 5)
    return {
        "dense": torch.randn(3, 2, 4, 5),
        "dense/posterior": DensePosterior(torch.randn(1, 3, 2, 2, 2), torch.randn(1, 3, 2, 2, 2)),
        "images": ConditionImages(torch.randint(256, (count % 7, 4, 5, 4), dtype=torch.uint8), camera_of(count % 7)),
        "ovoxel": ovoxel_of(count, crossing_sign=None, color_space="linear"),
        "ovoxel/bytes": ovoxel_of(count),
        "points": OrientedPoints(torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 3, dtype=torch.float64), frame=Frame.unit(1, "z")),
        "sdf": SparseSDF(grid, torch.randn(n, 1).half(), band=2.5, signed=False),
        "sparse": SparseTensor(grid, feats.bfloat16()),
        "sparse/posterior": DiagonalGaussian(SparseTensor(grid, feats), -feats),
    }


def leaves(record: Any) -> dict[str, Any]:
    """Everything that a record holds, by name."""
    if isinstance(record, VoxelGrid):
        return {"coords": record.coords, "resolution": record.resolution, "frame": record.frame, "batch_size": record.batch_size}
    if isinstance(record, SparseTensor):
        return {"feats": record.feats, **leaves(record.grid)}
    if isinstance(record, torch.Tensor):
        return {"tensor": record}
    found: dict[str, Any] = {}
    for name, value in vars(record).items():
        if isinstance(value, VoxelGrid | SparseTensor | Camera):
            found |= {f"{name}.{k}": v for k, v in leaves(value).items()}
        elif isinstance(value, dict):
            found |= {f"{name}.{k}": v for k, v in value.items()}
        else:
            found[name] = value
    return found


def assert_same(one: Any, other: Any, tolerance: float = 0.0) -> None:
    a, b = leaves(one), leaves(other)
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == b[name].dtype
            torch.testing.assert_close(b[name], value, rtol=0, atol=tolerance if value.is_floating_point() else 0)
        else:
            assert b[name] == value, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 500])
def test_every_kind_comes_back_from_a_shard(kind: str, count: int, tmp_path: Path) -> None:
    """Exactly; "bytes" to half a byte, 0.5 / 255, twice that for normals in [-1, 1]."""
    items = [records(count)[kind], records(3)[kind]]
    packed = [pack("test", kind, item) for item in items]
    entries = [Entry.of(i, f"item {i}", p) for i, p in enumerate(packed)]
    assert [e.size for e in entries] == [p.size for p in packed]
    (tmp_path / "field").mkdir()
    write_shard(tmp_path, "field", kind, 0, list(zip(entries, packed, strict=True)))
    shard = Shard(tmp_path, "field", 0)
    assert list(shard.entries.values()) == entries
    for i, item in enumerate(items):
        again = unpack("test", kind, shard.read(i, check=True))
        assert_same(item, again, 1.01 / 255 if kind == "ovoxel/bytes" else 0.0)
    write_part(tmp_path / "part.safetensors", kind, entries[0], packed[0])
    entry, part = read_part(tmp_path / "part.safetensors")
    assert entry == entries[0]
    assert_same(unpack("test", kind, packed[0]), unpack("test", kind, part or Packed({})))


def test_bytes_are_stable_and_small() -> None:
    """Rounding again changes nothing, so later stages read the same from memory and from a shard."""
    item = ovoxel_of(400, split_weight=None)
    once = pack("test", "ovoxel/bytes", item)
    twice = pack("test", "ovoxel/bytes", unpack("test", "ovoxel/bytes", once))
    assert all(torch.equal(once.tensors[name], twice.tensors[name]) for name in once.tensors)
    assert sum(t.numel() * t.element_size() for t in once.tensors.values()) == len(item) * (3 + 3 + 1 + 7)


@pytest.mark.parametrize("resolution", [256, 257, 32_768, 32_769, 65_536])
def test_cells_of_every_resolution(resolution: int) -> None:
    coords = torch.tensor([[0, 0, 0, 0], [0, resolution - 1, 0, resolution - 1]], dtype=torch.int32)
    grid = VoxelGrid.from_sorted(coords, resolution=resolution, batch_size=1)
    item = SparseTensor(grid, torch.ones(2, 1))
    packed = pack("test", "sparse", item)
    assert packed.tensors["cells"].element_size() == (1 if resolution <= 256 else 2 if resolution <= 32_768 else 4)
    assert_same(item, unpack("test", "sparse", packed))


def test_wrong_records_are_refused() -> None:
    grid = grid_of(10)
    double = SparseTensor.batched([SparseTensor(grid, torch.ones(len(grid), 1))] * 2)
    with pytest.raises(RangeError, match="single objects; got a batch of 2"):
        pack("test", "sparse", double)
    with pytest.raises(DtypeError, match="test: the record must be of kind 'sdf'; got int 5"):
        pack("test", "sdf", 5)
    with pytest.raises(ShapeError, match=r"\(c, x, y, z\)"):
        pack("test", "dense", torch.zeros(3))
    with pytest.raises(RangeError, match=r"knows records of the kinds dense, .*; got 'splats'"):
        pack("test", "splats", 5)
    whole = pack("test", "sparse", SparseTensor(grid, torch.ones(len(grid), 1)))
    for tensors in (
        {"cells": whole.tensors["cells"]},
        {**whole.tensors, "feats": torch.ones(3, 1)},
        {**whole.tensors, "cells": torch.ones(9)},
    ):
        with pytest.raises(FileFormatError, match="shard 3: is no record of kind 'sparse'"):
            unpack("shard 3", "sparse", Packed(tensors, whole.facts, 1))
    with pytest.raises(FileFormatError, match="metadata"):
        unpack("shard 3", "sparse", Packed(whole.tensors, {}, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stages = [CornersStage(), PointsStage(50)]
    prepare(write_assets(tmp_path / "assets"), tmp_path / "out", stages, engine="here", assets_per_shard=3)
    return tmp_path / "out"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_dataset_reads_what_was_prepared(folder: Path) -> None:
    data = ShardDataset(folder)
    assert data.fields == ("corners", "points")
    assert data.names == tuple(f"asset{i}.ply" for i in range(7))
    assert len(data) == 7
    assert data.sizes("points").tolist() == [50] * 7
    assert data.sizes("corners").tolist() == [len(data[i]["corners"]) for i in range(7)]
    assert data[-1]["name"] == "asset6.ply"
    assert set(data[2]) == {"name", "corners", "points"}
    assert "points" not in ShardDataset(folder, ["corners"])[0]
    assert_same(data.read(3, "corners"), data[3]["corners"])
    for index in (7, -8):
        with pytest.raises(IndexError, match="must be below 7"):
            data[index]
    with pytest.raises(DtypeError, match="whole number"):
        data["asset1.ply"]  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="one of corners, points; got str 'images'"):
        data.sizes("images")
    data[0]["corners"].feats.zero_()  # the reader's own copy: the file and later reads stay
    assert data[0]["corners"].feats.abs().sum() > 0
    assert data.verify() == {}


def test_subsets_and_splits_follow_names(folder: Path) -> None:
    data = ShardDataset(folder)
    part = data.subset(["asset5.ply", 0, -1])
    assert part.names == ("asset5.ply", "asset0.ply", "asset6.ply")
    assert_same(part[0]["corners"], data[5]["corners"])
    assert part.sizes("corners").tolist() == data.sizes("corners")[[5, 0, 6]].tolist()
    assert data.subset(data.sizes("corners") < 0).names == ()
    assert data.subset(torch.tensor([4, 2])).names == ("asset4.ply", "asset2.ply")
    for wrong in (["asset9.ply"], [7], [-8]):
        with pytest.raises(RangeError, match="none of the 7 assets"):
            data.subset(wrong)
    train, held_out = data.split(3)
    assert (len(train), len(held_out)) == (4, 3)
    assert sorted(train.names + held_out.names) == sorted(data.names)
    backwards = data.subset(range(6, -1, -1)).split(3)[1]
    assert sorted(backwards.names) == sorted(held_out.names), "the order does not matter"
    few, more = data.split(0.2)[1], data.split(0.7)[1]
    assert set(few.names) <= set(more.names)
    assert [len(part) for part in data.split(0)] == [7, 0]
    for wrong, kind in ((8, RangeError), (1.0, RangeError), (-0.1, RangeError), ("half", DtypeError)):
        with pytest.raises(kind, match="held_out"):
            data.split(wrong)  # pyright: ignore[reportArgumentType]


def test_collate_makes_ragged_batches(folder: Path) -> None:
    data = ShardDataset(folder)
    batch = collate([data[i] for i in (1, 4, 6)])
    assert batch["name"] == ("asset1.ply", "asset4.ply", "asset6.ply")
    assert batch["corners"].grid.batch_size == batch["points"].batch_size == 3
    assert torch.equal(batch["corners"].unbind()[1].feats, data[4]["corners"].feats)
    many = [records(9), records(9)]
    joined = collate([{k.replace("/", "_"): v for k, v in item.items()} for item in many])
    assert joined["dense"].shape == (2, 3, 2, 4, 5)
    assert joined["dense_posterior"].mean.shape == (2, 3, 2, 2, 2)
    assert joined["sparse_posterior"].mean.grid.batch_size == 2
    assert isinstance(joined["images"], tuple)
    with pytest.raises(ShapeError, match="at least one"):
        collate([])
    with pytest.raises(ShapeError, match="must have the keys"):
        collate([{"a": 1}, {"b": 1}])


def test_statistics_are_those_of_all_values_together(folder: Path) -> None:
    data = ShardDataset(folder)
    rows = torch.cat([data[i]["corners"].feats for i in range(len(data))]).double()
    found = data.stats("corners")
    torch.testing.assert_close(torch.tensor(found.mean).double(), rows.mean(0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(torch.tensor(found.std).double(), rows.std(0, correction=0), rtol=1e-6, atol=1e-7)
    with pytest.raises(RangeError, match="only latents have channels; got OrientedPoints"):
        data.stats("points")
    with pytest.raises(RangeError, match="no values"):
        data.subset([]).stats("corners")


def test_statistics_of_posteriors_are_those_of_samples() -> None:
    from voxgen.data._statistics import Moments

    torch.manual_seed(3)
    mean, logvar = torch.randn(1, 4, 20, 20, 20) * 2 + 1, torch.randn(1, 4, 20, 20, 20) * 0.5 - 1
    dense, sparse, grid = Moments(), Moments(), grid_of(3000, 20)
    dense.add(DensePosterior(mean, logvar))
    rows = len(grid)
    posterior = DiagonalGaussian(SparseTensor(grid, mean[0].flatten(1).T[:rows]), logvar[0].flatten(1).T[:rows])
    sparse.add(posterior)
    drawn = DensePosterior(mean, logvar).sample()[0].flatten(1)
    found = torch.tensor(dense.normalization("test").std)
    torch.testing.assert_close(found, drawn.std(1), rtol=0.02, atol=0)  # 8,000 samples: 3 sigma of a deviation is 2.4 %, seeded
    found = torch.tensor(sparse.normalization("test").std)
    torch.testing.assert_close(found, posterior.sample().feats.std(0), rtol=0.04, atol=0)  # 2,600 samples
    still = Moments()
    still.add(torch.ones(2, 2, 2, 2))
    with pytest.raises(RangeError, match=r"channels \[0, 1\] do not vary"):
        still.normalization("test")


def test_occupancy_pools_cells() -> None:
    grid = grid_of(300, 16)
    dense = torch.zeros(16, 16, 16)
    dense[tuple(grid.cells.long().T)] = 1
    wanted = torch.nn.functional.max_pool3d(dense[None, None], 4) > 0
    for cells in (grid, SparseTensor(grid, torch.ones(len(grid), 1))):
        assert torch.equal(occupancy(cells, 4), wanted)
    both = VoxelGrid.batched([grid, VoxelGrid.from_sorted(grid.coords[:0], resolution=16, batch_size=1)])
    assert torch.equal(occupancy(both, 4), torch.cat((wanted, torch.zeros_like(wanted))))
    for wrong in (3, 32):
        with pytest.raises(RangeError, match="must divide"):
            occupancy(grid, wrong)
    with pytest.raises(DtypeError, match="VoxelGrid"):
        occupancy(dense, 4)  # pyright: ignore[reportArgumentType]


def complaint(data: ShardDataset, index: int) -> str:
    """What reading an asset raises, or nothing."""
    try:
        data[index]
    except FileFormatError as error:
        return str(error)
    return ""


def test_flipped_byte_is_found_and_named(folder: Path) -> None:
    shard = folder / "corners" / "000001.safetensors"
    header = int.from_bytes(shard.read_bytes()[:8], "little")
    flip(shard, 8 + header + 5)  # floats lie before bytes: a feature, which could be any number
    data = ShardDataset(folder)
    said = {name: text for i, name in enumerate(data.names) if (text := complaint(data, i))}
    broken = list(said)
    assert len(broken) == 1
    assert broken[0] in ("asset3.ply", "asset4.ply", "asset5.ply")
    for word in ("shard 1 of 'corners'", "000001.safetensors", repr(broken[0]), "checksum", "skip_corrupt"):
        assert word in said[broken[0]]
    assert list(data.verify()) == [f"corners/000001/{broken[0]}"]
    unchecked = ShardDataset(folder, check=False)
    assert len(unchecked[data.names.index(broken[0])]["corners"]) > 0, "nobody looks"
    with pytest.warns(FileWarning, match=r"1 assets are left out: .*corners"):
        sound = ShardDataset(folder, skip_corrupt=True)
    assert set(sound.names) == set(data.names) - set(broken)
    assert all(len(sound[i]["corners"]) > 0 for i in range(len(sound)))
    assert len(ShardDataset(folder, ["points"], skip_corrupt=True)) == 7, "other fields are whole"


@pytest.mark.parametrize("damage", ["truncated", "empty", "gone", "rubbish"])
def test_shard_that_cannot_be_opened(damage: str, folder: Path) -> None:
    shard = folder / "points" / "000000.safetensors"
    content = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes({"truncated": content[:-100], "empty": b"", "rubbish": b"\xff" * 1000}[damage])
    data = ShardDataset(folder)
    with pytest.raises(FileNotFoundError if damage == "gone" else FileFormatError, match=r"000000\.safetensors"):
        data[1]
    assert data[4]["name"] == "asset4.ply"
    assert list(data.verify()) == ["points/000000"]
    with pytest.warns(FileWarning, match="3 assets are left out"):
        sound = ShardDataset(folder, skip_corrupt=True)
    assert sound.names == ("asset3.ply", "asset4.ply", "asset5.ply", "asset6.ply")
    (folder / "points" / "000000.jsonl").unlink()
    prepare(folder.parent / "assets", folder, [CornersStage(), PointsStage(50)], engine="here", assets_per_shard=3)
    assert shard.read_bytes() == content, "made anew, as it was"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "rubbish", "version"])
def test_damaged_index(damage: str, folder: Path) -> None:
    index = folder / "points" / "000001.jsonl"
    content = index.read_bytes()
    if damage == "flipped":
        flip(index, len(content) - 40)
    else:
        newer = content.replace(b'"version":1', b'"version":9')
        index.write_bytes({"truncated": content[:-60], "rubbish": b"\x80\x81", "version": newer}[damage])
    for skip in (False, True):  # without it nobody knows which assets a shard should have
        with pytest.raises(FileFormatError, match=r"shard 1 of 'points'.*000001\.jsonl") as told:
            ShardDataset(folder, skip_corrupt=skip)
        assert "skip_corrupt" not in str(told.value), "which does not help here"


def test_folder_that_is_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no prepared folder"):
        ShardDataset(tmp_path)
    with pytest.raises(RangeError, match="has the fields corners, points; asked for images"):
        ShardDataset(folder, ["images"])
    with pytest.raises(RangeError, match="asked for none"):
        ShardDataset(folder, [])
    with pytest.raises(DtypeError, match=r"such as \('points',\)"):
        ShardDataset(folder, "points")
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    for wrong in ("{", json.dumps({"format": "x", "version": 1}), text.replace('"version": 1', '"version": 2'), "[]"):
        manifest.write_text(wrong)
        with pytest.raises(FileFormatError, match=r"manifest\.json"):
            ShardDataset(folder)


def test_pickles_without_its_open_files(folder: Path) -> None:
    data = ShardDataset(folder)
    data[0]
    size = len(pickle.dumps(data))
    again = pickle.loads(pickle.dumps(data))
    assert_same(again[5]["points"], data[5]["points"])
    assert size < 10_000


def test_spawned_workers_of_a_loader(folder: Path) -> None:
    data = ShardDataset(folder, ["corners"])
    data[0]  # an open shard must not travel
    loader = DataLoader(data, batch_size=3, collate_fn=collate, num_workers=1, multiprocessing_context="spawn")
    batches = list(loader)
    assert [name for b in batches for name in b["name"]] == list(data.names)
    assert_same(batches[1]["corners"].unbind()[2], data[5]["corners"])
