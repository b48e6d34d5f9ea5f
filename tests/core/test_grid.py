"""VoxelGrid and SparseTensor: order, batches, errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.batching import batch_index, offsets_from_counts, pack, unpack
from voxgen.core.coords import MAX_BATCH, MAX_RESOLUTION, pack_keys, unpack_keys
from voxgen.core.errors import DeviceError, DtypeError, DuplicateError, FrameError, RangeError, ShapeError
from voxgen.core.grid import restore


def int32(rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)


@given(st.sets(st.tuples(*[st.integers(0, 3)] + [st.integers(0, 6)] * 3), max_size=40), st.randoms())
@settings(max_examples=50, deadline=None)
def test_build_sorts_and_restores(cells: set[tuple[int, ...]], random: object) -> None:
    rows = list(cells)
    random.shuffle(rows)  # type: ignore[attr-defined]
    coords = int32(rows)
    grid, order = VoxelGrid.build(coords, resolution=7, batch_size=5)
    assert grid.coords.tolist() == sorted(map(list, cells))
    assert torch.equal(restore(grid.coords, order), coords)
    assert grid.batch_size == 5
    assert grid.offsets.tolist() == [sum(c[0] < b for c in cells) for b in range(6)]
    assert torch.equal(grid.rows_of(coords), order.argsort())


def test_keys_hold_the_extremes() -> None:
    coords = int32([[MAX_BATCH - 1, MAX_RESOLUTION - 1, 0, MAX_RESOLUTION - 1], [0, 0, 0, 0], [1, 0, MAX_RESOLUTION - 1, 5]])
    keys = pack_keys(coords)
    assert (keys >= 0).all()
    assert torch.equal(unpack_keys(keys), coords)


def test_empty_batch_and_trailing_empty_samples() -> None:
    grid, order = VoxelGrid.build(int32([]), resolution=8)
    assert (len(grid), grid.batch_size, len(order)) == (0, 0, 0)
    assert grid.offsets.tolist() == [0]
    grid, _ = VoxelGrid.build(int32([[1, 0, 0, 0]]), resolution=8, batch_size=3)
    assert grid.offsets.tolist() == [0, 0, 1, 1]
    assert [len(grid.sample(i)) for i in range(3)] == [0, 1, 0]
    assert grid.rows_of(int32([[0, 0, 0, 0], [1, 0, 0, 0], [1, -1, 0, 0], [7, 0, 0, 99]])).tolist() == [-1, 0, -1, -1]


def test_rows_of_an_empty_grid() -> None:
    grid, _ = VoxelGrid.build(int32([]), resolution=8)
    assert grid.rows_of(int32([[0, 0, 0, 0]])).tolist() == [-1]


def test_neighbouring_key_ranges_do_not_mix() -> None:
    # -1 along z would pack to the last cell of the row below
    grid, _ = VoxelGrid.build(int32([[0, 0, 0, 65535]]), resolution=65536)
    assert grid.rows_of(int32([[0, 0, 1, -1]])).tolist() == [-1]


def test_duplicates_are_named() -> None:
    with pytest.raises(DuplicateError, match=r"\[0, 1, 2, 3\]"):
        VoxelGrid.build(int32([[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]]), resolution=4)


@pytest.mark.parametrize(
    ("coords", "arguments", "error", "words"),
    [
        (torch.zeros(2, 3, dtype=torch.int32), {"resolution": 4}, ShapeError, "(n, 4)"),
        (torch.zeros(2, 4), {"resolution": 4}, DtypeError, "float32"),
        ([[0, 0, 0, 0]], {"resolution": 4}, DtypeError, "must be a tensor"),
        (int32([[0, 4, 0, 0]]), {"resolution": 4}, RangeError, "coords[:, 1] (x)"),
        (int32([[0, 0, -1, 0]]), {"resolution": 4}, RangeError, "coords[:, 2] (y)"),
        (int32([[2, 0, 0, 0]]), {"resolution": 4, "batch_size": 2}, RangeError, "batch"),
        (int32([]), {"resolution": 0}, RangeError, "resolution"),
        (int32([]), {"resolution": 100_000}, RangeError, "65536"),
        (int32([]), {"resolution": 3.5}, DtypeError, "whole number"),
        (int32([]), {"resolution": (4, 4)}, ShapeError, "three"),
        (int32([]), {"resolution": True}, DtypeError, "whole number"),
    ],
)
def test_bad_input_is_named(coords: object, arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        VoxelGrid.build(coords, **arguments)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "VoxelGrid.build" in str(caught.value)


def test_tables_are_built_once() -> None:
    grid, _ = VoxelGrid.build(int32([[0, 0, 0, 0]]), resolution=2)
    assert grid.keys is grid.keys
    calls = []
    for _ in range(2):
        grid.cached(("table", 3), lambda: calls.append(1))
    assert calls == [1]


def test_batched_grids_shift_and_check() -> None:
    a, _ = VoxelGrid.build(int32([[0, 1, 0, 0]]), resolution=4, batch_size=2)
    b, _ = VoxelGrid.build(int32([[0, 2, 0, 0]]), resolution=4)
    both = VoxelGrid.batched([a, b])
    assert both.coords.tolist() == [[0, 1, 0, 0], [2, 2, 0, 0]]
    assert both.batch_size == 3
    with pytest.raises(RangeError, match="resolutions"):
        VoxelGrid.batched([a, VoxelGrid.build(int32([]), resolution=5)[0]])
    with pytest.raises(FrameError, match="frames"):
        VoxelGrid.batched([a, VoxelGrid.build(int32([]), resolution=4, frame=Frame.unit(8))[0]])
    with pytest.raises(RangeError, match="none"):
        VoxelGrid.batched([])


def test_sparse_tensor_keeps_rows_with_their_cells() -> None:
    coords = int32([[1, 0, 0, 1], [0, 1, 1, 1], [1, 0, 0, 0]])
    x = SparseTensor.build(coords, torch.arange(3.0)[:, None], resolution=2)
    assert x.feats[:, 0].tolist() == [1, 2, 0]
    parts = x.unbind()
    assert [p.feats[:, 0].tolist() for p in parts] == [[1], [2, 0]]
    assert torch.equal(SparseTensor.batched(parts).feats, x.feats)
    dense = x.dense()
    assert dense.shape == (2, 1, 2, 2, 2)
    assert dense[1, 0, 0, 0].tolist() == [2, 0]
    assert x.to(torch.float64).dtype == torch.float64
    with pytest.raises(ShapeError, match="one row for each"):
        x.with_feats(torch.zeros(2, 1))
    with pytest.raises(DeviceError, match="one device"):
        SparseTensor(x.grid, torch.zeros(3, 1, device="meta"))


def test_batching_round_trip() -> None:
    samples = [torch.rand(2, 3), torch.rand(0, 3), torch.rand(1, 3)]
    rows, offsets = pack(samples)
    assert offsets.tolist() == [0, 2, 2, 3]
    assert batch_index(offsets).tolist() == [0, 0, 2]
    assert all(torch.equal(a, b) for a, b in zip(unpack(rows, offsets), samples, strict=True))
    assert offsets_from_counts([]).tolist() == [0]
    with pytest.raises(ShapeError, match="end at"):
        unpack(rows, torch.tensor([0, 2]))
    with pytest.raises(ShapeError, match="empty"):
        pack([])
