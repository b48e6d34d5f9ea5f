"""What the ops on grids do with input that is wrong, empty, or larger than 32-bit numbers; their own tests hold the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.errors import CapacityError, DeviceError, DtypeError, DuplicateError, RangeError, ShapeError
from voxgen.core.memory import free_memory
from voxgen.ops.conv import sparse_conv
from voxgen.ops.grid_sets import children, difference, dilate, intersection, parent_rows, parents, union
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.neighbors import NeighborTable, neighbor_table
from voxgen.ops.neighbors._relation import Relation
from voxgen.ops.resample import Structure, channel_to_space, pool, space_to_channel, subdivide
from voxgen.ops.segment import segment_broadcast, segment_reduce, segment_softmax
from voxgen.testing.compare import difference as gap
from voxgen.testing.grids import fresh, random_coords, random_grid

CPU_ENGINES = ("numba", "torch", "reference")


def grid_of(*cells: tuple[int, int, int, int], resolution: int = 8, frame: Frame | None = None) -> VoxelGrid:
    return VoxelGrid.build(torch.tensor(cells, dtype=torch.int32).reshape(-1, 4), resolution=resolution, frame=frame)[0]


def pretended(count: int, resolution: int = 65536) -> VoxelGrid:
    """A grid of as many rows, all of which are one in memory. Only checks may see it."""
    coords = torch.zeros(1, 4, dtype=torch.int32).expand(count, 4)
    size = (resolution, resolution, resolution)
    return VoxelGrid(coords, size, 1, Frame.unit(size))


def zeros_out_of_nothing(rows: int, channels: int) -> Tensor:
    """Zeros that take memory only where they are read or written, on systems that allow it."""
    free = free_memory()
    if sys.platform != "linux" or free is None or free < 4 * rows * channels:
        pytest.skip("the system may refuse an array of this size")
    return torch.from_numpy(np.zeros((rows, channels), dtype=np.float32))


class TestCells:
    """What is wrong with coordinates is said where a grid is made; every op takes a grid."""

    def test_all_repeated_cells_are_counted_and_the_first_is_named(self) -> None:
        coords = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 0, 1], [0, 0, 0, 1]], dtype=torch.int32)
        with pytest.raises(DuplicateError, match=r"3 rows repeat an earlier one, the first is \[batch, x, y, z\] = \[0, 0, 0, 1\]"):
            SparseTensor.build(coords, torch.zeros(5, 2), resolution=8)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.int16, torch.uint8, torch.bool])
    def test_other_types_than_int32_are_refused(self, dtype: torch.dtype) -> None:
        with pytest.raises(DtypeError, match=r"coords must be \(n, 4\) int32.*World points\? Use Frame.to_cell"):
            VoxelGrid.build(torch.zeros(2, 4).to(dtype), resolution=8)

    @pytest.mark.parametrize(("cell", "words"), [((0, 8, 0, 0), r"\(x\)"), ((0, 0, -1, 0), r"\(y\)"), ((2, 0, 0, 0), r"\(batch\)")])
    def test_cells_outside_are_refused(self, cell: tuple[int, ...], words: str) -> None:
        with pytest.raises(RangeError, match=words + r" must lie in \[0, "):
            VoxelGrid.build(torch.tensor([cell], dtype=torch.int32), resolution=8, batch_size=2)

    def test_the_extremes_of_int32_do_not_wrap_around(self) -> None:
        grid = random_grid((20,), 8)
        extreme = [-(2**31), -(2**16), -1, 2**16, 2**31 - 1]
        far = torch.cartesian_prod(*[torch.tensor(extreme, dtype=torch.int32)] * 4)
        for backend in CPU_ENGINES:
            assert (lookup_cells(fresh(grid), far, backend=backend) == -1).all(), backend


class TestNeighbors:
    @pytest.mark.parametrize("backend", CPU_ENGINES)
    def test_places_beyond_int32_are_not_taken_for_small_ones(self, backend: str) -> None:
        """65,535 · 65,536 + 65,536 = 2³², which is 0 in 32 bits, and there is a cell at 0."""
        stride = 65536
        grid = grid_of((0, 0, 0, 0), (0, 5, 0, 0), resolution=65536)
        out = grid_of((0, 0, 0, 0), (0, 65535, 0, 0), resolution=65536, frame=grid.frame.coarsen(stride))
        table = neighbor_table(grid, kernel_size=(3, 1, 1), stride=stride, dilation=stride, padding=0, out_grid=out, backend=backend)
        assert table.table.tolist() == [[0, -1, -1], [-1, -1, -1]]

    @pytest.mark.parametrize("backend", CPU_ENGINES)
    def test_a_footprint_as_long_as_the_grid(self, backend: str) -> None:
        grid = grid_of((0, 0, 0, 0), (0, 65535, 0, 0), resolution=65536)
        table = neighbor_table(grid, kernel_size=(3, 1, 1), dilation=65535, backend=backend)
        assert table.table.tolist() == [[-1, 0, 1], [0, 1, -1]]

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"kernel_size": 3.0}, DtypeError, "kernel_size must be a whole number; got float 3.0"),
            ({"kernel_size": True}, DtypeError, "kernel_size must be a whole number"),
            ({"kernel_size": (3, 3)}, ShapeError, "one whole number or three; got 2"),
            ({"kernel_size": 2}, RangeError, "even kernel_size has no middle"),
            ({"kernel_size": (3, 4, 3), "stride": (1, 2, 1)}, RangeError, "even kernel_size has no middle"),
            ({"padding": -1}, RangeError, "padding must be from 0"),
            ({"stride": -2}, RangeError, "stride must be from 1"),
            ({"kernel_size": (65535, 1, 1), "dilation": 65536}, RangeError, "reach over 131072 cells.*smaller dilation"),
            ({"kernel_size": 2, "stride": 2, "transposed": True}, RangeError, r"resolution \(131072, 131072, 131072\)"),
            ({"kernel_size": 65535, "sites": "window"}, CapacityError, "needs about .* GiB.*smaller kernel_size"),
            ({"kernel_size": 65535, "padding": 0, "transposed": True}, CapacityError, "needs about .* GiB.*Give out_grid"),
        ],
    )
    def test_footprints_that_cannot_be(self, options: dict[str, Any], error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=f"neighbor_table: .*{words}"):
            neighbor_table(grid_of((0, 5, 5, 5), resolution=65536), **options)

    def test_more_cells_than_int32_counts(self) -> None:
        with pytest.raises(CapacityError, match=r"at most 2147483647 cells; got 2147483648. Split the batch"):
            neighbor_table(pretended(2**31))
        small = random_grid((3,), 65536)
        with pytest.raises(CapacityError, match="out_grid may have at most 2147483647"):
            neighbor_table(small, out_grid=pretended(2**31))
        with pytest.raises(CapacityError, match="needs about 216 GiB"):  # rows times offsets leave int32 long before rows do
            neighbor_table(pretended(2**31 - 1))


class TestConv:
    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            (lambda f, w, b: (f[:, 0], w, b), ShapeError, r"feats must be \(30, ci\)"),
            (lambda f, w, b: (f.numpy(), w, b), DtypeError, "feats must be a tensor"),
            (lambda f, w, b: (f.to("meta"), w, b), DeviceError, "feats on meta, weight on cpu"),
            (lambda f, w, b: (f, w, b.to("meta")), DeviceError, "bias on meta"),
            (lambda f, w, b: (f.to("meta"), w.to("meta"), b.to("meta")), DeviceError, "table on cpu"),
            (lambda f, w, b: (f, w.long(), b), DtypeError, "weight must be"),
            (lambda f, w, b: (f.bfloat16(), w, b), DtypeError, "one dtype; got torch.bfloat16, torch.float32"),
            (lambda f, w, b: (f, w, b.double()), DtypeError, "one dtype; .*torch.float64"),
            (lambda f, w, b: (f, w[:, :3], b), ShapeError, r"weight must be \(27, 4, co\)"),
            (lambda f, w, b: (f, w[1:], b), ShapeError, r"weight must be \(27, 4, co\).*got \(26, 4, 6\)"),
            (lambda f, w, b: (f, w[13], b), ShapeError, r"weight must be \(27, 4, co\).*got \(1, 4, 6\)"),
        ],
    )
    def test_operands_that_do_not_fit(self, change: Callable[..., Any], error: type[Exception], words: str) -> None:
        table = neighbor_table(random_grid((30,), 8))
        feats, weight, bias = change(torch.randn(30, 4), torch.randn(27, 4, 6), torch.randn(6))
        with pytest.raises(error, match=f"sparse_conv: .*{words}"):
            sparse_conv(feats, weight, bias, table)

    @pytest.mark.parametrize("backend", CPU_ENGINES)
    @pytest.mark.parametrize("counts", [(), (0,), (0, 0, 0), (0, 9, 0)])
    @pytest.mark.parametrize("options", [{}, {"kernel_size": 2, "stride": 2}, {"kernel_size": 2, "stride": 2, "transposed": True}])
    def test_empty_batches_and_samples(self, backend: str, counts: tuple[int, ...], options: dict[str, Any]) -> None:
        table = neighbor_table(random_grid(counts, 8), **options)
        tensors = [torch.randn(sum(counts), 4), torch.randn(table.volume, 4, 6), torch.randn(6)]
        feats, weight, bias = (t.requires_grad_() for t in tensors)
        out = sparse_conv(feats, weight, bias, table, backend=backend)
        assert out.shape == (len(table.out_grid), 6)
        assert table.out_grid.batch_size == len(counts)
        found = torch.autograd.grad(out.sum(), [feats, weight, bias])
        assert [g.shape for g in found] == [t.shape for t in tensors]
        if sum(counts) == 0:
            assert all(not g.any() for g in found)

    def test_features_of_more_than_2_to_the_31_elements(self) -> None:
        """8.6 GB of addresses, of which only the last rows are ever touched."""
        rows, channels = 2**21 + 4096, 1024
        feats = zeros_out_of_nothing(rows, channels)
        side = 129
        cells = torch.arange(rows)
        coords = torch.stack((torch.zeros_like(cells), cells // side**2, cells // side % side, cells % side), 1).int()
        grid = VoxelGrid.from_sorted(coords, resolution=side, batch_size=1)
        last = VoxelGrid.from_sorted(coords[-3:], resolution=side, batch_size=1)
        feats[-40:] = torch.randn(40, channels)
        table = neighbor_table(grid, kernel_size=(1, 1, 3), out_grid=last)
        weight = (torch.randn(3, channels, 8) / 30).requires_grad_()
        out = sparse_conv(feats, weight, None, table, backend="numba")
        near = torch.cat((feats[-4:], torch.zeros(1, channels)))
        windows = torch.stack([torch.stack([near[i + k] for k in range(3)]) for i in range(3)])
        expected = torch.einsum("okc,kcd->od", windows, weight)
        assert gap(out, expected) < 1e-5
        upstream = torch.randn(3, 8)
        (found,) = torch.autograd.grad(out, weight, upstream)
        assert gap(found, torch.einsum("okc,od->kcd", windows, upstream)) < 1e-5

    def test_results_that_memory_cannot_hold(self) -> None:
        grid = pretended(2**31 - 1)
        rows = torch.zeros(1, 1, dtype=torch.int32).expand(len(grid), 1)  # all of one row in memory, as the features are
        key = neighbor_table(random_grid((1,), 8), kernel_size=1).key
        table = NeighborTable(grid, grid, key, Relation(rows, len(grid), symmetric=True))
        feats = torch.zeros(1, 4).expand(len(grid), 4)
        with pytest.raises(CapacityError, match=r"sparse_conv: needs about 4\.1e\+03 GiB.*Split the batch"):
            sparse_conv(feats, torch.zeros(4, 512), None, table)

    @settings(max_examples=15, deadline=None)
    @given(
        counts=st.lists(st.integers(0, 20), min_size=1, max_size=4),
        channels=st.tuples(st.integers(1, 12), st.integers(1, 20)),
        seed=st.integers(0, 1000),
        backend=st.sampled_from(CPU_ENGINES),
        options=st.sampled_from([{}, {"kernel_size": 2, "stride": 2}, {"stride": 2, "sites": "window"}, {"dilation": 2}]),
    )
    def test_gradients_do_not_depend_on_order_or_batch(
        self, counts: list[int], channels: tuple[int, int], seed: int, backend: str, options: dict[str, Any]
    ) -> None:
        """The gradient of each row is that of its cell, in any order of rows and in any batch; that of the weights is the sum."""
        torch.manual_seed(seed)
        coords, feats = random_coords(counts, 7, seed), torch.randn(sum(counts), channels[0])
        weight = torch.randn(neighbor_table(random_grid((1,), 7), **options).volume, *channels).requires_grad_()

        def gradients(x: SparseTensor) -> tuple[Tensor, Tensor]:
            rows = x.feats.detach().requires_grad_()
            out = sparse_conv(rows, weight, None, neighbor_table(x.grid, **options), backend=backend)
            found = torch.autograd.grad(out.square().sum(), [rows, weight])
            return found[0], found[1]

        x = SparseTensor.build(coords, feats, resolution=7, batch_size=len(counts))
        for_feats, for_weight = gradients(x)
        shuffle = torch.randperm(len(coords))
        again = gradients(SparseTensor.build(coords[shuffle], feats[shuffle], resolution=7, batch_size=len(counts)))
        assert torch.equal(again[0], for_feats)
        assert torch.equal(again[1], for_weight)
        alone = [gradients(part) for part in x.unbind()]
        if backend == "numba":  # bit for bit; torch's products may sum in another order for another number of rows
            assert torch.equal(torch.cat([f for f, _ in alone]), for_feats)
        assert gap(torch.cat([f for f, _ in alone]), for_feats) < 2e-5  # square of sums of up to 324 products
        assert gap(torch.stack([w for _, w in alone]).sum(0), for_weight) < 2e-5


class TestLevels:
    """Resampling and sets of cells."""

    def test_more_cells_than_int32_counts(self) -> None:
        huge = pretended(2**31)
        for call in (parents, parent_rows, Structure.of_children):
            with pytest.raises(CapacityError, match=r"parents: .*at most 2147483647 cells; got 2147483648"):
                call(huge)
        with pytest.raises(CapacityError, match=r"children: .*2147483648 children were asked for. Keep fewer"):
            children(pretended(2**28, 16))
        with pytest.raises(CapacityError, match=r"Structure.of_mask: .*2147483648 children"):
            Structure.of_mask(pretended(2**28, 16))
        with pytest.raises(CapacityError, match=r"Structure.between: .*children has 2147483648"):
            Structure.between(grid_of((0, 0, 0, 0), resolution=32768), huge)

    def test_more_children_than_memory_holds(self) -> None:
        free = free_memory()
        if free is not None and free < 64 * (2**31 - 8):
            with pytest.raises(CapacityError, match=r"children: needs about 128 GiB.*Keep fewer children"):
                children(pretended(2**28 - 1, 16))

    @pytest.mark.parametrize("operation", [union, intersection, difference])
    def test_grids_on_two_devices(self, operation: Callable[..., Any]) -> None:
        grid = random_grid((5,), 8)
        with pytest.raises(DeviceError, match="first on cpu, second on meta"):
            operation(grid, grid.to("meta"))

    def test_masks_and_structures_on_two_devices(self) -> None:
        grid = random_grid((5,), 8)
        with pytest.raises(DeviceError, match="mask on meta"):
            children(grid, torch.ones(5, 8, dtype=torch.bool, device="meta"))
        with pytest.raises(DeviceError, match="parents on cpu, children on meta"):
            Structure.between(parents(grid), grid.to("meta"))

    @pytest.mark.parametrize(("size", "error"), [(1.5, DtypeError), (0, RangeError), (True, DtypeError), ((3, 3), ShapeError)])
    def test_sizes_that_are_none(self, size: Any, error: type[Exception]) -> None:
        grid = random_grid((5,), 8)
        for call, name in ((dilate, "kernel_size"), (parents, "factor"), (Structure.of_children, "factor"), (children, "factor")):
            with pytest.raises(error):
                call(grid, **{name: size})

    @pytest.mark.parametrize("backend", ["torch", "reference"])
    @pytest.mark.parametrize("counts", [(), (0,), (0, 7, 0)])
    def test_empty_batches_and_samples(self, backend: str, counts: tuple[int, ...]) -> None:
        structure = Structure.of_children(random_grid(counts, 8))
        fine = torch.randn(sum(counts), 8, requires_grad=True)
        for how in ("mean", "mean_plus_one", "sum", "max"):
            assert pool(fine, structure, how, backend=backend).shape == (len(structure.parents), 8)
        packed = space_to_channel(fine, structure, backend=backend)
        assert torch.equal(channel_to_space(packed, structure, backend=backend), fine)
        coarse = pool(fine, structure, backend=backend)
        assert subdivide(coarse, structure, backend=backend).shape == fine.shape
        (found,) = torch.autograd.grad(packed.sum(), fine)
        assert torch.equal(found, torch.ones_like(fine))

    def test_rows_of_more_than_2_to_the_31_elements(self) -> None:
        """8.6 GB of addresses, of which only the last rows are ever touched."""
        from voxgen.ops.resample import _kernels
        from voxgen.ops.segment._numba import _reduce_all

        rows = 2**21 + 3
        feats = zeros_out_of_nothing(rows, 1024)
        feats[-3:] = torch.tensor([[3.0], [2.0], [1.0]])
        children_of_two = torch.tensor([rows - 1, rows - 2, rows - 3], dtype=torch.int32)
        total = _kernels.add(feats, children_of_two, torch.tensor([0, 1, 3], dtype=torch.int32))
        assert torch.equal(total, torch.tensor([[1.0], [5.0]]).expand(2, 1024))
        taken = _kernels.take(feats, children_of_two[[0, 2]], torch.zeros(2, dtype=torch.int32), 1)
        assert torch.equal(taken, torch.tensor([[1.0], [3.0]]).expand(2, 1024))
        slots = _kernels.take(feats, children_of_two[[0, 2]], torch.tensor([7, 0], dtype=torch.int32), 8)
        assert torch.equal(slots, torch.tensor([[1.0], [3.0]]).expand(2, 128))
        reduced = _reduce_all(feats.numpy(), np.array([rows - 3, rows - 1, rows]), 0)
        assert (reduced == np.array([[5.0], [1.0]])).all()


class TestSegment:
    def test_a_grid_of_another_size(self) -> None:
        grid = random_grid((4, 0, 3), 8)
        with pytest.raises(ShapeError, match="number of rows, 8; got 0 and 7"):
            segment_reduce(torch.zeros(8, 2), grid.offsets)

    @pytest.mark.parametrize("function", [segment_reduce, segment_softmax, segment_broadcast])
    def test_two_devices_and_other_types(self, function: Callable[..., Any]) -> None:
        with pytest.raises(DeviceError, match="values on meta, offsets on cpu"):
            function(torch.zeros(1, 2, device="meta"), torch.tensor([0, 1]))
        with pytest.raises(DtypeError, match=r"offsets must be .* int64"):
            function(torch.zeros(1, 2), torch.tensor([0.0, 1.0]))
        with pytest.raises(ShapeError, match=r"offsets must be \(b \+ 1,\)"):
            function(torch.zeros(1, 2), torch.tensor([[0, 1]]))
