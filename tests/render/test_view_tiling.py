"""Tiles: where they lie, what they add up to, and that nothing is lost by culling cells first."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from voxgen.core import Camera, Frame, SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.rasterize import interpolate, rasterize
from voxgen.render import Tile, ViewTiling, cull_voxels, render_gaussians
from voxgen.representations import GaussianActivation, GaussianSplats
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import torus


class TestTiles:
    @settings(max_examples=200, deadline=None)
    @given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 6), st.integers(1, 6), st.integers(0, 40), st.sampled_from([1, 8, 16]))
    def test_cover_everything_and_touch_the_borders(self, w: int, h: int, across: int, down: int, overlap: int, multiple: int) -> None:
        tiling = ViewTiling.of((w, h), (across, down), overlap=overlap, multiple=multiple)
        cover = tiling.cover()
        assert int(cover.min()) >= 1
        one_by_one = torch.zeros(h, w, dtype=torch.int64)
        for tile in tiling.tiles:
            tile.cut(one_by_one, 0).add_(1)
        assert torch.equal(cover, one_by_one)
        assert len(set(tiling.tiles)) == len(tiling) <= across * down
        for tile in tiling.tiles:
            assert 0 <= tile.left <= w - tile.width
            assert 0 <= tile.top <= h - tile.height
            assert tile.width % multiple == 0 or tile.width == w
        assert max(t.left + t.width for t in tiling.tiles) == w
        lefts = sorted({t.left for t in tiling.tiles})
        side = tiling.tiles[0].width
        assert all(a + side - b >= overlap for a, b in itertools.pairwise(lefts))
        own = tiling.stitch([torch.ones(1, t.height, t.width) for t in tiling.tiles])
        assert torch.equal(own, torch.ones(1, h, w))

    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 60), st.integers(0, 59))
    def test_by_side(self, w: int, h: int, side: int, overlap: int) -> None:
        if overlap >= side:
            with pytest.raises(RangeError, match="overlap must be less"):
                ViewTiling.of((w, h), side=side, overlap=overlap)
            return
        tiling = ViewTiling.of((w, h), side=side, overlap=overlap)
        assert int(tiling.cover().min()) >= 1
        assert all((t.width, t.height) == (min(side, w), min(side, h)) for t in tiling.tiles)

    def test_region(self) -> None:
        mask = torch.zeros(60, 80)
        mask[20:31, 40:61] = 0.5
        tiling = ViewTiling.of((80, 60), 2, overlap=4, region=mask)
        assert tiling.region == (36, 16, 29, 19)
        cover = tiling.cover()
        assert int(cover[16:35, 36:65].min()) >= 1
        assert int(cover.sum()) == sum(t.width * t.height for t in tiling.tiles)
        assert int(cover[:16].max()) == 0
        assert ViewTiling.of((80, 60), 2, region=torch.zeros(60, 80)).region == (0, 0, 80, 60)
        assert ViewTiling.of((80, 60), 2, region=(1, 2, 3, 4)).region == (1, 2, 3, 4)
        filled = tiling.stitch([torch.zeros(1, t.height, t.width) for t in tiling.tiles], outside=math.inf)
        assert bool(torch.isinf(filled[0, 0, 0]))
        assert float(filled[0, 20, 40]) == 0

    def test_stitch_is_exact_and_blends_add_up(self) -> None:
        image = torch.randn(2, 50, 70, 3)
        image[0, 0, 0, 0] = math.inf  # a depth where nothing is
        tiling = ViewTiling.of((70, 50), (3, 2), overlap=10, multiple=1)
        parts = [t.cut(image) for t in tiling.tiles]
        assert torch.equal(tiling.stitch(parts), image)
        channels_first = image[1].permute(2, 0, 1)
        assert torch.equal(tiling.stitch([t.cut(channels_first) for t in tiling.tiles]), channels_first)
        assert torch.equal(Tile(3, 4, 5, 6).cut(image[0], 0), image[0, 4:10, 3:8])
        assert torch.equal(Tile(3, 4, 5, 6).cut(channels_first, -2), channels_first[:, 4:10, 3:8])
        blended = tiling.stitch([torch.ones(1, t.height, t.width, 1, dtype=torch.float64) for t in tiling.tiles], blend=True)
        torch.testing.assert_close(blended, torch.ones_like(blended), rtol=0, atol=1e-12)
        a, b = torch.zeros(1, 50, 40), torch.ones(1, 50, 40)
        ramp = ViewTiling.of((70, 50), (2, 1), overlap=10, multiple=1).stitch([a, b], blend=True)[0, 25]
        assert float(ramp[29]) == 0
        assert float(ramp[40]) == 1
        torch.testing.assert_close(ramp[30:40].diff(), torch.full((9,), 0.1))

    def test_sampling(self) -> None:
        tiling = ViewTiling.of((80, 80), 2, overlap=0, multiple=1)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.tensor([tiling.sample(generator) for _ in range(400)]).bincount(minlength=4)
        assert int(drawn.min()) > 70
        foreground = torch.zeros(80, 80, dtype=torch.bool)
        foreground[:40, :30] = True  # three quarters of tile 0
        foreground[:40, 40:50] = True  # one quarter of tile 1
        foreground[40:43, :3] = True  # less than 1 % of tile 2
        drawn = torch.tensor([tiling.sample(generator, foreground=foreground) for _ in range(400)]).bincount(minlength=4)
        assert drawn[2:].tolist() == [0, 0]
        assert int(drawn[0]) == pytest.approx(300, abs=45)  # five standard deviations
        assert tiling.sample(foreground=torch.zeros(80, 80)) in range(4)

    def test_errors(self) -> None:
        for arguments in ({}, {"tiles": 2, "side": 4}, {"tiles": 0}, {"side": 0}, {"tiles": 2, "overlap": -1}, {"tiles": 2, "multiple": 0}):
            with pytest.raises(RangeError, match=r"ViewTiling\.of"):
                ViewTiling.of((20, 20), **arguments)
        with pytest.raises(RangeError, match="width"):
            ViewTiling.of((0, 20), 2)
        with pytest.raises(ShapeError, match="tiles"):
            ViewTiling.of((20, 20), (1, 2, 3))  # pyright: ignore[reportArgumentType]
        for region in ((0, 0, 0, 5), (20, 0, 1, 1), (0, 0, 21, 5)):
            with pytest.raises(RangeError, match="region"):
                ViewTiling.of((20, 20), 2, region=region)
        with pytest.raises(ShapeError, match="region"):
            ViewTiling.of((20, 20), 2, region=torch.zeros(20, 21))
        tiling = ViewTiling.of((20, 20), 2, multiple=1, overlap=2)
        with pytest.raises(ShapeError, match="error must be"):
            tiling.part_of_mean(torch.zeros(3, 20, 20), 0)
        with pytest.raises(ShapeError, match="one part for each"):
            tiling.stitch([torch.zeros(1, 11, 11)])
        with pytest.raises(ShapeError, match=r"parts\[3\]"):
            tiling.stitch([torch.zeros(1, 11, 11)] * 3 + [torch.zeros(1, 11, 10)])
        leaf = torch.zeros(2, requires_grad=True)
        with pytest.raises(RangeError, match="require a gradient"):
            tiling.accumulate(torch.zeros(2), lambda i, t: t.sum())
        with pytest.raises(ShapeError, match="scalar"):
            tiling.accumulate(leaf * 1, lambda i, t: t)
        with pytest.raises(DtypeError, match="tensor"):
            tiling.accumulate(leaf * 1, lambda i, t: 0.0)  # pyright: ignore[reportArgumentType, reportReturnType]
        with pytest.raises(RangeError, match="tiles"):
            tiling.accumulate(leaf * 1, lambda i, t: t.sum(), tiles=[4])


def view(width: int = 48, height: int = 40, distance: float = 1.6, **options: float) -> Camera:
    return Camera.look_at(torch.tensor([[0.4, 0.3, distance]], dtype=torch.float64), width=width, height=height, **options)  # pyright: ignore[reportArgumentType]


class Toy(nn.Module):
    """A trunk that is run once, and a Gaussian head."""

    def __init__(self, activation: GaussianActivation) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 16), nn.SiLU()).double()
        self.head = nn.Linear(16, 14 * activation.count).double()
        self.activation = activation
        with torch.no_grad():
            self.head.weight.mul_(6)  # so that Gaussians are of all sizes up to the cap

    def gaussians(self, x: SparseTensor) -> GaussianSplats:
        return GaussianSplats.from_features(x.grid, self.head(x.feats), self.activation)


@pytest.fixture
def toy() -> tuple[Toy, SparseTensor]:
    torch.manual_seed(0)
    grid = random_grid([150], 12)
    return Toy(GaussianActivation(2, largest_scale=0.6, scale_bias=0.05)), SparseTensor(grid, torch.randn(150, 3, dtype=torch.float64))


class TestGaussians:
    @pytest.mark.parametrize("preset", ["gsplat", "trellis"])
    @pytest.mark.parametrize("camera", [view(), view(48, 40, 0.7, fov=100.0), view(33, 47, 0.45, fov=60.0, near=0.2)])
    def test_culled_tiles_are_crops_of_the_full_image(self, toy: tuple[Toy, SparseTensor], preset: str, camera: Camera) -> None:
        model, x = toy
        with torch.no_grad():
            whole = SparseTensor(x.grid, model.trunk(x.feats))
            full = render_gaussians(model.gaussians(whole), camera, preset=preset).color
            wrong = []
            for margin in (1.0, 0.0):
                tiling, worst, kept = ViewTiling.of(camera, 4, overlap=0, multiple=1), 0.0, []
                for tile in tiling.tiles:
                    seen = cull_voxels(x.grid, camera, tile, largest_scale=0.6 / 12, preset=preset, margin=margin)
                    image = render_gaussians(model.gaussians(seen.apply(whole)), camera, preset=preset, crop=tile).color
                    worst = max(worst, float((image - tile.cut(full)).abs().max()))
                    kept.append(seen.share)
                wrong.append(worst)
                if margin == 1.0:
                    assert min(kept) < 0.9  # something was culled
        assert wrong[0] <= 1e-12
        assert wrong[1] > 0.01  # without the margin, cells at the border are missing

    def test_gradients_of_all_tiles_are_those_of_the_full_image(self, toy: tuple[Toy, SparseTensor]) -> None:
        model, x = toy
        camera = view()
        target = torch.rand(1, 40, 48, 3, dtype=torch.float64)
        weights = list(model.parameters())
        splats = model.gaussians(SparseTensor(x.grid, model.trunk(x.feats)))
        full = (render_gaussians(splats, camera).color - target).abs().mean()
        expected = torch.autograd.grad(full, weights)
        for count, overlap in ((1, 0), (2, 0), (3, 6), ((4, 2), 16)):
            tiling = ViewTiling.of(camera, count, overlap=overlap, multiple=4)
            model.zero_grad()

            def tile_loss(index: int, h: Tensor, tiling: ViewTiling = tiling) -> Tensor:
                tile = tiling.tiles[index]
                seen = cull_voxels(x.grid, camera, tile, largest_scale=0.6 / 12)
                image = render_gaussians(model.gaussians(seen.apply(SparseTensor(x.grid, h))), camera, crop=tile).color
                return tiling.part_of_mean((image - tile.cut(target)).abs().permute(0, 3, 1, 2), index)

            total = tiling.accumulate(model.trunk(x.feats), tile_loss)
            assert float(total) == pytest.approx(float(full.detach()), rel=1e-13)
            for weight, e in zip(weights, expected, strict=True):
                assert weight.grad is not None
                assert float((weight.grad - e).abs().max()) <= 1e-12 * max(1.0, float(e.abs().max()))

    def test_one_random_tile_is_unbiased(self) -> None:
        tiling = ViewTiling.of((48, 40), 3, overlap=6, multiple=4)
        error = torch.rand(2, 40, 48, dtype=torch.float64)
        estimates = [len(tiling) * tiling.part_of_mean(tile.cut(error), i) for i, tile in enumerate(tiling.tiles)]
        assert float(torch.stack(estimates).mean()) == pytest.approx(float(error.mean()))
        leaf = torch.ones(3, requires_grad=True)
        tiling.accumulate(2 * leaf, lambda i, t: (i + 1) * t.sum(), tiles=[0, 4])
        assert leaf.grad is not None
        assert leaf.grad.tolist() == [12.0] * 3

    def test_culling_knows_samples_frames_and_the_camera(self) -> None:
        grid = random_grid([40, 0, 60], 8)
        camera = view()
        assert cull_voxels(grid, camera, largest_scale=0.01).count == 100
        assert cull_voxels(grid, camera, largest_scale=0.01, sample=2).counts.tolist() == [0, 0, 60]
        empty = random_grid([0], 8)
        assert cull_voxels(empty, camera, largest_scale=0.01).count == 0
        behind = Camera.look_at(torch.tensor([[0.0, 0.0, 3.0]]), target=(0.0, 0.0, 6.0))
        assert cull_voxels(grid, behind, largest_scale=0.01).count == 0
        moved = VoxelGrid.from_sorted(grid.coords, resolution=8, batch_size=3, frame=Frame.box((50, 0, 0), (51, 1, 1), 8))
        assert cull_voxels(moved, camera, largest_scale=0.01).count == 0
        parallel = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=40, height=40, orthographic_height=1.0)
        left = cull_voxels(grid, parallel, (0, 0, 4, 40), largest_scale=0.01)
        assert 0 < left.count < 100
        assert int(grid.cells[left.mask][:, 0].max()) <= 2
        with pytest.raises(ShapeError, match="one view"):
            cull_voxels(grid, Camera.batched([camera, camera]), largest_scale=0.01)
        for bad in (
            {"largest_scale": math.inf},
            {"largest_scale": -1.0},
            {"largest_scale": 0.1, "margin": -1.0},
            {"largest_scale": 0.1, "sample": 3},
        ):
            with pytest.raises(RangeError, match="cull_voxels"):
                cull_voxels(grid, camera, **bad)
        with pytest.raises(RangeError, match="crop"):
            cull_voxels(grid, camera, (0, 0, 0, 4), largest_scale=0.1)


def test_tiles_of_a_mesh_are_crops_with_the_gradient_of_the_full_image() -> None:
    mesh = torus(around=24, across=12)
    camera = Camera.look_at(torch.tensor([[0.3, 0.8, 1.2]], dtype=torch.float64), width=50, height=37)
    vertices = mesh.vertices.double().requires_grad_()
    target = torch.rand(1, 37, 50, 3, dtype=torch.float64)

    def draw(v: Tensor, tile: Tile | None) -> Tensor:
        clip = torch.cat((v, torch.ones_like(v[:, :1])), 1) @ camera.clip_matrices().transpose(1, 2)
        raster = rasterize(clip, mesh.faces, 37, 50, window=None if tile is None else tile.window)
        return interpolate(v, mesh.faces, raster)

    full = draw(vertices, None)
    (expected,) = torch.autograd.grad((full - target).square().mean(), vertices)
    tiling = ViewTiling.of(camera, (3, 2), overlap=5, multiple=8)
    assert torch.equal(tiling.stitch([draw(vertices, t) for t in tiling.tiles]), full)

    def tile_loss(index: int, v: Tensor) -> Tensor:
        tile = tiling.tiles[index]
        return tiling.part_of_mean((draw(v, tile) - tile.cut(target)).square().permute(0, 3, 1, 2), index)

    leaf = vertices.detach().clone().requires_grad_()
    tiling.accumulate(leaf * 1.0, tile_loss)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected, rtol=0, atol=1e-12)


def test_render_gaussians_tiles_in_float32_to_the_last_bit() -> None:
    with np.load(Path(__file__).parents[1] / "golden" / "splat_crop.npz") as z:
        means, quats, scales, opacities, colours = (torch.from_numpy(z[k]) for k in ("means", "quats", "scales", "opacities", "colours"))
    splats = GaussianSplats(means, quats, scales, opacities, colours[:, None])
    camera = Camera.look_at(torch.tensor([[0.5, 0.6, 1.4]]), width=61, height=43, fov=70.0)
    full = render_gaussians(splats, camera, normals=True)
    for tile in ViewTiling.of(camera, 3, overlap=3, multiple=1).tiles:
        part = render_gaussians(splats, camera, crop=tile, normals=True)
        for name in ("color", "alpha", "depth", "normal"):
            assert torch.equal(getattr(part, name), tile.cut(getattr(full, name))), name
