"""The refiners: goldens, tiles against one pass, definitions of their parts, memory, bad input."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.models import build
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.direct3d_s2 import (
    AdaptiveSmoothing,
    SDFRefiner,
    SignRefiner,
    UNet3D,
    apply_stencil,
    decoded_repeats,
    signed_volume,
)
from voxgen.models.direct3d_s2.tiles import blend_weights, dense_tile, tile_starts, tiles
from voxgen.testing.compare import assert_same, difference

SMALL: dict[str, Any] = {"block_out_channels": [8, 12], "layers_per_block": 1, "layers_mid_block": 0, "use_fp16": False}


def refiner(**options: Any) -> SDFRefiner:
    module = build("direct3d-s2/refiner", **{**SMALL, "feature_channels": 5, "patch_size": 16, "overlap": 4, **options})
    assert isinstance(module, SDFRefiner)
    return module.eval()


def sign_refiner(**options: Any) -> SignRefiner:
    module = build("direct3d-s2/refiner-1024", **{**SMALL, "patch_size": 8, **options})
    assert isinstance(module, SignRefiner)
    return module.eval()


def shell(resolution: int, batch: list[float], width: float = 1.5) -> SparseTensor:
    """Truncated distances near spheres of these radii in cells, one sample each; 0 gives an empty sample."""
    axes = torch.arange(resolution) + 0.5 - resolution / 2
    distance = torch.stack(torch.meshgrid(axes, axes, axes, indexing="ij")).square().sum(0).sqrt()
    rows, values = [], []
    for b, radius in enumerate(batch):
        near = ((distance - radius).abs() < width).nonzero() if radius else torch.zeros(0, 3, dtype=torch.int64)
        rows.append(torch.cat([torch.full((len(near), 1), b), near], 1))
        values.append((distance[tuple(near.T)] - radius) / width)
    return SparseTensor.build(torch.cat(rows).int(), torch.cat(values)[:, None], resolution=resolution, batch_size=len(batch))


def volume_of(field: SparseTensor, values: Tensor, fill: float) -> Tensor:
    """(b, c, r, r, r) by definition."""
    r = field.grid.resolution[0]
    out = torch.full((field.grid.batch_size, r, r, r, values.shape[1]), fill)
    out[tuple(field.coords.long().T)] = values
    return out.movedim(-1, 1)


# --- goldens --------------------------------------------------------------------------------------------------------


def test_refiner_of_the_512_stage() -> None:
    golden = Golden.read("direct3d_s2_refiner_512")
    module = build("direct3d-s2/refiner", use_fp16=False, **golden.configuration)
    load_direct3d_s2(module, golden.weights())
    steps: dict[str, Tensor] = {}
    names = {name: name.replace("adaptive stage ", "adaptive_conv") for name in golden.about["checkpoints"]}
    for name, own in names.items():
        module.get_submodule(own).register_forward_hook(lambda _m, _i, out, name=name: steps.__setitem__(name, out))
    with torch.no_grad():
        out = module(golden.normal("sdf", 0.5), golden.normal("features", 0.5))
    assert set(steps) == set(names)
    for name, value in steps.items():
        expected = golden.about["checkpoints"][name]
        # Of the step's spread: the first weights of `conv_out` are scaled by 4000 in this file.
        close = 1e-4 * (abs(expected["mean"]) + expected["std"])
        assert float(value.mean()) == pytest.approx(expected["mean"], abs=close), name
        assert value.flatten()[:4].tolist() == pytest.approx(expected["first"], abs=5 * close), name
    assert_same(steps["unet3d1"][:, :, :6, :6, :6], golden.arrays["out/unet_corner"], "U-Net", golden.tolerance)
    assert_same(out, golden.arrays["out/y"], "field", golden.tolerance)


def test_refiner_of_the_1024_stage() -> None:
    golden = Golden.read("direct3d_s2_refiner_1024")
    module = build("direct3d-s2/refiner-1024", use_fp16=False, **golden.configuration)
    load_direct3d_s2(module, golden.weights())
    with torch.no_grad():
        out = module(golden.normal("sdf", 0.5)).sigmoid()
    assert_same(out, golden.arrays["out/y"], "probability", golden.tolerance)


@pytest.mark.parametrize("name", ["refiner_512", "refiner_1024"])
def test_released_precision(name: str) -> None:
    golden = Golden.read(f"direct3d_s2_{name}")
    outs = []
    for half in (False, True):
        network = "direct3d-s2/refiner" + ("-1024" if name.endswith("1024") else "")
        module = build(network, use_fp16=half, **golden.configuration)
        load_direct3d_s2(module, {n: w / 4000 if n == "conv_out.weight" and "512" in name else w for n, w in golden.weights().items()})
        inputs = [golden.normal(n, 0.5) for n in golden.about["inputs"]]
        with torch.no_grad():
            outs.append(module(*(x.half() for x in inputs) if half else inputs).float())
    # Roundings of 2^-11 through forty layers; without the golden's factor of 4000, which would amplify them.
    assert float((outs[1] - outs[0]).norm() / outs[0].norm()) < 1e-2


def test_joining_of_the_512_stage() -> None:
    golden = Golden.read("direct3d_s2_refiner_512_joining")
    res, size, stride = (golden.configuration[name] for name in ("res", "patch_size", "stride"))
    weights = blend_weights(res, size, tile_starts(res, size, stride))
    for axis, (name, place) in enumerate({"along_x": (None, 40, 300), "along_y": (170, None, 500), "along_z": (330, 172, None)}.items()):
        line = torch.zeros(res)
        for tile in tiles(res, size, stride):
            factor = torch.tensor((tile.index[0] + 3 * tile.index[1] + 9 * tile.index[2]) / 30)
            for other in range(3):
                at = place[other]
                if at is not None:
                    inside = tile.start[other] <= at < tile.start[other] + size
                    factor = factor * (weights[tile.index[other], at - tile.start[other]] if inside else 0)
            line[tile.box[axis]] += factor * weights[tile.index[axis]]
        assert_same(line, golden.arrays[f"out/{name}"], name, golden.tolerance)


def test_rows_of_the_chunked_decoder() -> None:
    golden = Golden.read("direct3d_s2_sdf_vae_chunked")
    latents = golden.arrays["in/latent_coords"][:, 1:]
    children = torch.cartesian_prod(*[torch.arange(8)] * 3)
    cells = (8 * latents[:, None] + children).flatten(0, 1)
    chunk = 8 * golden.configuration["resolution"] // golden.configuration["chunk_size"]
    found = decoded_repeats(cells, chunk=chunk)
    rows = golden.about["rows"]
    assert {str(n): int((found == n).sum()) for n in (1, 2, 4, 8)} == rows["times"]
    assert int(found.sum()) == rows["chunked"]


# --- tiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "size", "stride"), [(512, 192, 160), (400, 192, 160), (530, 192, 160), (64, 192, 160), (9, 4, 1)])
def test_every_cell_is_covered_and_weights_sum_to_one(length: int, size: int, stride: int) -> None:
    starts = tile_starts(length, size, stride)
    weights = blend_weights(length, size, starts)
    total, side = torch.zeros(length), min(length, size)
    for start, row in zip(starts, weights, strict=True):
        assert 0 <= start <= length - side
        total[start : start + side] += row
    assert_same(total, torch.ones(length), "sum of weights")
    assert float(weights.min()) >= 0


def test_tiles_of_sparse_values() -> None:
    field = shell(12, [4.0])
    whole = volume_of(field, field.feats, 1.0)[0]
    for tile in tiles(12, 8, 4):
        assert torch.equal(dense_tile(field.grid.cells, field.feats, tile, torch.ones(1)), whole[(slice(None), *tile.box)])


def test_tiling_in_bad_form() -> None:
    with pytest.raises(RangeError, match="stride"):
        tile_starts(512, 192, 200)
    with pytest.raises(RangeError, match="multiple of 2"):
        refiner(patch_size=15)
    with pytest.raises(RangeError, match="stride must be"):
        refiner(overlap=16)
    with pytest.raises(RangeError, match="groups must divide"):
        refiner(block_out_channels=[8, 10])
    with pytest.raises(RangeError, match="at least one level"):
        UNet3D(4, ())
    with pytest.raises(ShapeError, match="multiples of 2"):
        UNet3D(4, (8, 8))(torch.zeros(1, 4, 5, 4, 4))


# --- adaptive smoothing ---------------------------------------------------------------------------------------------


def test_stencil_by_its_definition() -> None:
    x, stencil = torch.randn(2, 3, 3, 4, 2, dtype=torch.float64), torch.randn(2, 27, 3, 4, 2, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for cell in product(range(3), range(4), range(2)):
        for tap, offset in enumerate(product((-1, 0, 1), repeat=3)):
            other = [c + o for c, o in zip(cell, offset, strict=True)]
            if all(0 <= c < n for c, n in zip(other, (3, 4, 2), strict=True)):
                i, j, k = cell
                u, v, w = other
                expected[:, :, i, j, k] += stencil[:, tap, i, j, k][:, None] * x[:, :, u, v, w]
    assert_same(apply_stencil(x, stencil), expected, "stencil")
    inputs = (x[:1, :1, :2, :2, :2].clone().requires_grad_(), stencil[:1, :, :2, :2, :2].clone().requires_grad_())
    assert torch.autograd.gradcheck(apply_stencil, inputs)
    with pytest.raises(ShapeError, match="27"):
        apply_stencil(x, stencil[:, :26])


def test_smoothing_reads_its_guide_once() -> None:
    layer = AdaptiveSmoothing(4, iterations=3)
    guide, x = torch.randn(1, 4, 5, 5, 5), torch.randn(1, 2, 5, 5, 5)
    logits = torch.nn.Sequential(*layer)(guide)
    stencil = logits / logits.abs().sum(1, keepdim=True)
    expected = x
    for _ in range(3):
        expected = apply_stencil(expected, stencil)
    assert_same(layer(guide, x), expected, "smoothed")
    with torch.no_grad():
        layer[2].weight.zero_()
    assert torch.equal(layer(guide, x), torch.zeros_like(x))  # nothing to weigh: 0, not NaN


# --- field refiner --------------------------------------------------------------------------------------------------


def test_one_tile_is_the_network_on_the_volume() -> None:
    module = refiner()
    field = shell(16, [5.0, 0.0, 3.0])
    features = torch.randn(len(field), 5)
    with torch.no_grad():
        expected = module(volume_of(field, field.feats, 1.0), volume_of(field, features, 0.0))
    assert_same(module.refine(field, features), expected, "one tile")


def test_tiles_are_faded_into_each_other() -> None:
    module = refiner(patch_size=8, overlap=3)
    field = shell(13, [5.0])
    features = torch.randn(len(field), 5)
    sdf, dense = volume_of(field, field.feats, 1.0), volume_of(field, features, 0.0)
    starts = [0, 5]  # size 8, overlap 3
    boxes = {s: tuple(slice(start, start + 8) for start in s) for s in product(starts, repeat=3)}
    with torch.no_grad():
        made = {s: module(*(volume[(..., *box)] for volume in (sdf, dense))) for s, box in boxes.items()}

    def join(first: Tensor, second: Tensor, axis: int) -> Tensor:
        """As the original: the overlap fades linearly from the one to the other."""
        fade = torch.linspace(0, 1, 3).view(-1, *[1] * (4 - axis))
        a, b = first.split([5, 3], axis), second.split([3, 5], axis)
        return torch.cat([a[0], a[1] * (1 - fade) + b[0] * fade, b[1]], axis)

    columns = {(x, y): join(made[x, y, 0], made[x, y, 5], 4) for x in starts for y in starts}
    slabs = {x: join(columns[x, 0], columns[x, 5], 3) for x in starts}
    assert_same(module.refine(field, features), join(slabs[0], slabs[5], 2), "joined")


def test_refiner_in_other_precisions_and_without_gradients() -> None:
    module = refiner(patch_size=8, overlap=2)
    field = shell(12, [4.0])
    features = torch.randn(len(field), 5, requires_grad=True)
    full = module.refine(field, features)
    assert not full.requires_grad
    half = refiner(patch_size=8, overlap=2, use_fp16=True)
    half.load_state_dict(module.state_dict())
    out = half.refine(field.to(torch.float16), features.half())
    assert out.dtype == torch.float16
    # Tiles are joined in float32: what is left are roundings of 2^-11 on the way through the network.
    assert difference(out.float(), full) < 1e-2


def test_training_of_the_refiners() -> None:
    patch, features = torch.randn(1, 1, 8, 8, 8), torch.randn(1, 5, 8, 8, 8, requires_grad=True)
    calls: list[tuple[Callable[..., Any], tuple[Tensor, ...]]] = [(refiner, (patch, features)), (sign_refiner, (patch,))]
    for make, inputs in calls:
        gradients = []
        for checkpoint in (False, True):
            torch.manual_seed(1)
            module = make(use_checkpoint=checkpoint)
            module(*inputs).square().sum().backward()
            gradients.append({name: p.grad for name, p in module.named_parameters()})
        for name, expected in gradients[0].items():
            assert expected is not None, name
            assert_same(gradients[1][name], expected, name, 1e-4)
    assert features.grad is not None


def test_a_bar_over_the_tiles(capsys: pytest.CaptureFixture[str]) -> None:
    field = shell(12, [4.0])
    refiner(patch_size=8, overlap=4).refine(field, torch.zeros(len(field), 5), progress=True)
    assert "8/8" in capsys.readouterr().err
    sign_refiner(patch_size=4).outside(field, progress=True)
    assert "8/8" in capsys.readouterr().err


def test_refiner_in_bad_form() -> None:
    module = refiner()
    field = shell(16, [5.0])
    features = torch.randn(len(field), 5)
    with pytest.raises(ShapeError, match="A row a cell"):
        module.refine(field, features[:-1])
    with pytest.raises(DtypeError, match="SparseTensor"):
        module.refine(field.feats, features)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="1 channels"):
        module.refine(field.with_feats(features), features)
    with pytest.raises(RangeError, match="multiple of 2"):
        module.refine(shell(15, [5.0]), torch.zeros(len(shell(15, [5.0])), 5))
    flat, _ = VoxelGrid.build(torch.zeros(1, 4, dtype=torch.int32), resolution=(16, 16, 8))
    with pytest.raises(RangeError, match="cube"):
        module.refine(SparseTensor(flat, torch.zeros(1, 1)), torch.zeros(1, 5))
    with pytest.raises(ShapeError, match="features must be"):
        module(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 5, 8, 8, 4))


# --- sign refiner ---------------------------------------------------------------------------------------------------


def test_later_tiles_decide() -> None:
    module = sign_refiner()  # tiles of 8 at stride 4
    field = shell(24, [7.0, 0.0])
    r = field.grid.resolution[0] // 2
    pooled = torch.ones(2, 1, r, r, r)
    for b in range(2):
        sums, counts = torch.zeros(r, r, r), torch.zeros(r, r, r)
        rows = field.grid.batch == b
        cells = tuple((field.grid.cells[rows] // 2).long().T)
        sums.index_put_(cells, field.feats[rows, 0], accumulate=True)
        counts.index_put_(cells, torch.ones(int(rows.sum())), accumulate=True)
        pooled[b, 0] = torch.where(counts > 0, sums / (counts + 1), 1.0)
    expected = torch.zeros(2, r, r, r, dtype=torch.bool)
    with torch.no_grad():
        bias = -module(pooled).median()
        module.conv_out.bias += bias  # so that both signs occur  # pyright: ignore[reportOperatorIssue]
        for x, y, z in product(range(0, r - 7, 4), repeat=3):
            patch = pooled[:, :, x : x + 8, y : y + 8, z : z + 8]
            expected[:, x : x + 8, y : y + 8, z : z + 8] = module(patch)[:, 0].sigmoid() >= 0.5
    found = module.outside(field)
    assert 0.1 < float(expected.float().mean()) < 0.9
    assert torch.equal(found, expected)
    assert torch.equal(module.outside(field.unbind()[0])[0], found[0])


def test_active_cells_keep_their_values() -> None:
    field = shell(8, [3.0, 2.0])
    outside = torch.rand(2, 4, 4, 4) > 0.5
    found = signed_volume(field, outside)
    near = outside.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = torch.where(near, 1.0, -1.0)
    expected[tuple(field.coords.long().T)] = field.feats[:, 0]
    assert torch.equal(found, expected[:, None])
    module = sign_refiner(patch_size=4)
    assert torch.equal(module.refine(field), signed_volume(field, module.outside(field)))
    assert module.refine(field.to(torch.float16)).dtype == torch.float16
    with pytest.raises(ShapeError, match="divide"):
        signed_volume(field, outside[:, :3])
    with pytest.raises(DtypeError, match="bool"):
        signed_volume(field, outside.float())


def test_repeated_rows_count_when_pooled() -> None:
    field = SparseTensor.build(torch.cartesian_prod(torch.zeros(1), *[torch.arange(2.0)] * 3).int(), torch.full((8, 1), 0.5), resolution=8)
    module = sign_refiner(patch_size=4)
    seen: list[Tensor] = []
    module.conv_in.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    module.outside(field)
    module.outside(field, repeats=torch.full((8,), 2))
    assert [float(patch[0, 0, 0, 0, 0]) for patch in seen] == pytest.approx([0.5 * 8 / 9, 0.5 * 16 / 17])
    with pytest.raises(ShapeError, match="A number a cell"):
        module.outside(field, repeats=torch.ones(7, dtype=torch.int64))
    with pytest.raises(RangeError, match="slab must be"):
        decoded_repeats(torch.zeros(1, 3, dtype=torch.int64), chunk=4, slab=5)


def test_sign_refiner_in_bad_form() -> None:
    module = sign_refiner()
    with pytest.raises(RangeError, match="multiple of 4"):
        module.outside(shell(14, [5.0]))
    with pytest.raises(RangeError, match="multiple of 2"):
        module.outside(shell(17, [5.0]))
    with pytest.raises(ShapeError, match="sdf must be"):
        module(torch.zeros(1, 2, 8, 8, 8))
