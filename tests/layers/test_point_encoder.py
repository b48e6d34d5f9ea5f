"""Points to voxel features: the original's numbers, stray points, runs, batches, gradients, precision, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Frame, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import PointCloudEncoder, _point_encoder
from voxgen.testing.compare import assert_same


def cloud(counts: list[int], resolution: int = 4) -> tuple[Tensor, Tensor, Tensor, VoxelGrid]:
    """Random points with normals of samples of these many points, and all cells of every sample but two."""
    points, normals = torch.rand(sum(counts), 3) - 0.5, torch.nn.functional.normalize(torch.randn(sum(counts), 3), dim=1)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    grid, _ = VoxelGrid.build(torch.ones(len(counts), *(3 * [resolution])).nonzero().int(), resolution=resolution)
    return points, normals, offsets, grid


def small(**options) -> PointCloudEncoder:
    return PointCloudEncoder(7, hidden=6, num_blocks=3, **options)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.read("triposf_point_encoder")


def golden_inputs(golden: Golden, stray: bool = False) -> tuple[Tensor, Tensor, Tensor, VoxelGrid]:
    points = golden.arrays["in/points"].clone()
    if stray:
        points[:, :5] = golden.arrays["in/stray"]
    samples, count, _ = points.shape
    flat = points.flatten(0, 1)
    grid, _ = VoxelGrid.build(golden.arrays["in/coords"], resolution=golden.configuration["resolution"])
    return flat[:, :3], flat[:, 3:], torch.arange(samples + 1) * count, grid


def golden_encoder(golden: Golden, **options) -> PointCloudEncoder:
    c = golden.configuration
    encoder = PointCloudEncoder(c["out_channels"], c["hidden_dim"], c["n_blocks"], **options)
    encoder.load_state_dict({key.removeprefix("local_pc_encoder."): value for key, value in golden.weights().items()})
    return encoder


def test_features_are_the_originals(golden: Golden):
    out = golden_encoder(golden)(*golden_inputs(golden)).feats
    wanted, got = golden.expected("features", out)
    assert_same(got, wanted, "features", golden.tolerance)
    assert (out == 0).all(1).nonzero().flatten().tolist() == golden.about["facts"]["empty"]


def test_stray_points(golden: Golden):
    inputs, clean = golden_inputs(golden, stray=True), golden_inputs(golden)
    with pytest.raises(RangeError, match=r"10 of 2400 do not, the first is point 0"):
        golden_encoder(golden)(*inputs)
    compat = golden_encoder(golden, stray="compat")(*inputs).feats
    rows = torch.tensor(golden.about["facts"]["rows_changed_by_stray"])
    assert_same(compat[rows], golden.arrays["out/features_stray"], "compat", golden.tolerance)
    moved = (compat - golden_encoder(golden)(*clean).feats).abs().amax(1) > 1e-5
    assert moved.nonzero().flatten().tolist() == rows.tolist()
    points, normals, offsets, grid = inputs
    kept = torch.arange(len(points)) % 1200 >= 5
    dropped = golden_encoder(golden, stray="drop")(*inputs).feats
    assert_same(dropped, golden_encoder(golden)(points[kept], normals[kept], offsets - 5 * torch.arange(3), grid).feats, "drop")


def test_is_the_definition():
    """Layer by layer, voxel by voxel, in float64."""
    encoder, (points, normals, offsets, grid) = small().double(), cloud([40, 25], 2)
    out = encoder(points.double(), normals.double(), offsets, grid).feats
    place = (points.double() + 0.5) * 2
    batch = (torch.arange(len(points)) >= 40).int()
    for row, coords in enumerate(grid.coords):
        mine = (batch == coords[0]) & (place.floor() == coords[1:]).all(1)
        x = encoder.fc_pos(torch.cat([2 * (place[mine] - coords[1:]) - 1, normals[mine].double()], 1))
        for i, block in enumerate(encoder.blocks):
            x = block(x if i == 0 else torch.cat([x, x.mean(0, keepdim=True).expand_as(x)], 1))
        assert_same(out[row], encoder.fc_c(x).mean(0), f"voxel {row}")


def test_runs_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch):
    encoder, (points, normals, offsets, grid) = small(), cloud([70, 0, 130])
    whole = encoder(points, normals, offsets, grid).feats
    monkeypatch.setattr(_point_encoder, "RUN", 9)
    assert_same(encoder(points, normals, offsets, grid).feats, whole, "runs")
    order = torch.cat([torch.randperm(70), 70 + torch.randperm(130)])
    assert_same(encoder(points[order], normals[order], offsets, grid).feats, whole, "order")


def test_ragged_batch_is_its_samples():
    encoder, (points, normals, offsets, grid) = small(), cloud([30, 0, 90])
    together = encoder(points, normals, offsets, grid)
    for i, part in enumerate(together.unbind()):
        a, b = offsets[i : i + 2].tolist()
        alone = encoder(points[a:b], normals[a:b], torch.tensor([0, b - a]), grid.sample(i))
        assert_same(alone.feats, part.feats, f"sample {i}")
    assert not together.unbind()[1].feats.any()


def test_frame_and_upper_border():
    encoder, (points, _normals, offsets, _) = small(use_normals=False), cloud([50])
    frame = Frame.box((1, 2, 3), (3, 4, 5), 4)
    grid = cloud([50])[3]
    placed = VoxelGrid.from_sorted(grid.coords, resolution=4, batch_size=1, frame=frame)
    moved = encoder((points + 0.5) * 2 + torch.tensor([1.0, 2.0, 3.0]), None, offsets, placed)
    assert_same(moved.feats, encoder(points, None, offsets, grid).feats, "frame", 1e-4)  # float32 of places up to 5
    corner = encoder(torch.full((1, 3), 0.5), None, torch.tensor([0, 1]), grid).feats
    assert corner.any(1).nonzero().flatten().tolist() == [63]


def test_gradients():
    encoder, (points, normals, offsets, grid) = small().double(), cloud([12], 2)
    points = ((points * 4).floor() + 0.5) / 4 + 0.05  # off the borders of cells, where the function jumps
    inputs = (points.double().requires_grad_(), normals.double().requires_grad_())
    names = [name for name, _ in encoder.named_parameters()]

    def function(p: Tensor, n: Tensor, *weights: Tensor) -> Tensor:
        states = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(encoder, states, (p, n, offsets, grid)).feats

    weights = tuple(w.detach().clone().requires_grad_() for w in encoder.parameters())
    assert torch.autograd.gradcheck(function, (*inputs, *weights), fast_mode=True)


def test_checkpoint_gives_the_same_gradients():
    plain, (points, normals, offsets, grid) = small(), cloud([200])
    saving = small(checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    for encoder in (plain, saving):
        encoder(points, normals, offsets, grid).feats.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert_same(other.grad, one.grad, name)


def test_float32_always():
    encoder, inputs = small(), cloud([60])
    wanted = encoder(*inputs).feats
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(encoder(*inputs).feats, wanted, "autocast")
    half = small().half()
    half.load_state_dict(encoder.state_dict())
    out = half(*inputs).feats
    assert out.dtype == torch.float32
    assert_same(out, wanted, "half weights", 5e-3)


def test_nothing():
    encoder, (_, _, _, grid) = small(), cloud([1])
    none = torch.zeros(0, 3)
    assert not encoder(none, none, torch.tensor([0, 0]), grid).feats.any()
    empty = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=4, batch_size=2)
    assert encoder(none, none, torch.tensor([0, 0, 0]), empty).feats.shape == (0, 7)
    dropping = small(stray="drop")
    assert dropping(torch.zeros(3, 3), torch.zeros(3, 3), torch.tensor([0, 3, 3]), empty).feats.shape == (0, 7)


def test_bad_input():
    encoder, (points, normals, offsets, grid) = small(), cloud([20, 20])
    for bad, error, match in (
        ((points[:, :2], normals, offsets, grid), ShapeError, "points must be"),
        ((points.int(), normals, offsets, grid), DtypeError, "points must be"),
        ((points, None, offsets, grid), RangeError, "use_normals"),
        ((points, normals[:5], offsets, grid), ShapeError, "normals must be"),
        ((points, normals, offsets[:2], grid), ShapeError, "offsets must be"),
        ((points, normals, offsets.int(), grid), DtypeError, "offsets must be"),
        ((points, normals, torch.tensor([0, 20, 39]), grid), ShapeError, "end at the number of points"),
        ((points, normals, torch.tensor([0, 50, 40]), grid), RangeError, "never fall"),
        ((points * float("nan"), normals, offsets, grid), RangeError, "points must be finite"),
        ((points, normals / 0, offsets, grid), RangeError, "normals must be finite"),
    ):
        with pytest.raises(error, match=match):
            encoder(*bad)
    with pytest.raises(RangeError, match="stray"):
        small(stray="ignore")
    with pytest.raises(RangeError, match="num_blocks"):
        PointCloudEncoder(4, 4, 0)
