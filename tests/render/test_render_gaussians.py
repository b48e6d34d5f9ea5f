"""Pictures of Gaussians: batches of views and objects, depth, normals, background, degrees, bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from voxgen.core import Camera, Gaussians
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.splat import rotation_matrices
from voxgen.render import orbit_cameras, render_gaussians


def some(count: int = 40, degree: int = 0, counts: tuple[int, ...] | None = None) -> Gaussians:
    g = torch.Generator().manual_seed(count)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    offsets = None if counts is None else torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()])
    turns = torch.randn(count, 4, generator=g, dtype=torch.float64)
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=g, dtype=torch.float64) / 2
    return Gaussians(rand(count, 3) - 0.5, turns, 0.02 + 0.1 * rand(count, 3), 0.1 + 0.8 * rand(count), sh, offsets)


def cameras(count: int = 3) -> Camera:
    camera = orbit_cameras(count, width=30, height=22)
    return Camera(camera.world_to_camera.double(), camera.intrinsics.double(), 30, 22, camera.near, camera.far)


def test_objects_and_views() -> None:
    splats, camera = some(60, 1, (25, 0, 35)), cameras(3)
    each = render_gaussians(splats, camera)
    for i in range(3):
        alone = render_gaussians(splats.sample(i), camera[i])
        assert torch.equal(each.color[i], alone.color[0])
        assert torch.equal(each.depth[i], alone.depth[0])
    assert float(each.alpha[1].max()) == 0
    chosen = render_gaussians(splats, camera, sample=torch.tensor([2, 2, 0]))
    assert torch.equal(chosen.color[0], render_gaussians(splats.sample(2), camera[0]).color[0])
    assert torch.equal(chosen.color[2], render_gaussians(splats.sample(0), camera[2]).color[0])
    one = render_gaussians(splats.sample(0), camera)
    assert one.color.shape == (3, 22, 30, 3)
    none = render_gaussians(splats, camera[:0], sample=torch.zeros(0, dtype=torch.int64), crop=(1, 2, 3, 4))
    assert none.color.shape == (0, 4, 3, 3)


def test_depth_is_the_mean_of_what_is_seen_and_infinite_where_nothing_is() -> None:
    eye = torch.tensor([[0.0, 0.0, 3.0]], dtype=torch.float64)
    camera = Camera.look_at(eye, width=31, height=31)
    flat = torch.tensor([[1.0, 0, 0, 0]] * 2, dtype=torch.float64)
    splats = Gaussians(
        torch.tensor([[0, 0, 1.0], [0, 0, -1.0]], dtype=torch.float64),
        flat,
        torch.full((2, 3), 0.05, dtype=torch.float64),
        torch.tensor([0.5, 0.9], dtype=torch.float64),
        torch.zeros(2, 1, 3, dtype=torch.float64),
    )
    out = render_gaussians(splats, camera, normals=True, background=(1.0, 0.0, 0.0))
    near, far = 0.5, 0.5 * 0.9
    assert float(out.depth[0, 15, 15]) == pytest.approx((near * 2 + far * 4) / (near + far))
    assert float(out.alpha[0, 15, 15]) == pytest.approx(near + far)
    assert float(out.color[0, 15, 15, 0]) == pytest.approx(0.5 * 0.95 + 0.05)
    assert torch.isinf(out.depth[0, 0, 0])
    assert out.color[0, 0, 0].tolist() == [1, 0, 0]
    assert out.normal is not None
    assert float(out.normal.abs().max()) == 0  # balls have none


def test_normals_are_the_shortest_axes_towards_the_camera() -> None:
    camera = cameras(2)
    turn = torch.tensor([[0.9, 0.1, -0.3, 0.2]], dtype=torch.float64)
    disc = Gaussians(
        torch.zeros(1, 3, dtype=torch.float64),
        turn,
        torch.tensor([[0.2, 0.02, 0.2]], dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.zeros(1, 1, 3, dtype=torch.float64),
    )
    out = render_gaussians(disc, camera, normals=True)
    axis = rotation_matrices(turn)[0, :, 1]
    assert out.normal is not None
    for i in range(2):
        expected = axis * torch.sign(camera.positions[i] @ axis)
        torch.testing.assert_close(out.normal[i, 11, 15], expected, rtol=0, atol=1e-12)
    assert float(out.normal[0, 0, 0].norm()) == 0


def test_gradients_reach_everything_and_are_never_nan() -> None:
    splats = some(30, 2)
    fields = ("means", "rotations", "scales", "opacities", "sh")
    leaves = {name: getattr(splats, name).clone().requires_grad_() for name in fields}
    out = render_gaussians(replace(splats, **leaves), cameras(), normals=True)
    assert out.normal is not None
    seen = torch.isfinite(out.depth)
    assert not bool(seen.all())
    total = out.color.sum() + out.depth[seen].sum() + (out.normal * torch.rand_like(out.normal)).sum()
    for name, gradient in zip(fields, torch.autograd.grad(total, list(leaves.values())), strict=True):
        assert bool(torch.isfinite(gradient).all()), name
        assert float(gradient.abs().max()) > 1e-3, name
    away = Camera.look_at(torch.tensor([[0.0, 0.0, 3.0]], dtype=torch.float64), target=(0.0, 0.0, 6.0), width=8, height=8)
    nothing = render_gaussians(replace(splats, **leaves), away, normals=True)
    assert nothing.normal is not None
    blank = nothing.color.sum() + nothing.alpha.sum() + nothing.normal.sum()
    for gradient in torch.autograd.grad(blank, list(leaves.values())):
        assert float(gradient.abs().max()) == 0


def test_degrees() -> None:
    splats, camera = some(30, 3), cameras()
    low = render_gaussians(splats, camera, sh_degree=1)
    assert torch.equal(low.color, render_gaussians(replace(splats, sh=splats.sh[:, :4].contiguous()), camera).color)
    assert not torch.equal(low.color, render_gaussians(splats, camera).color)


def test_presets() -> None:
    splats, camera = some(), cameras()
    plain = render_gaussians(splats, camera).color
    assert not torch.equal(plain, render_gaussians(splats, camera, preset="trellis").color)
    assert not torch.equal(plain, render_gaussians(splats, camera, antialiased=True).color)
    assert torch.equal(plain, render_gaussians(splats, camera, antialiased=False).color)


def test_bad_input() -> None:
    splats, camera = some(12, 1, (4, 8)), cameras(3)
    nan = splats.means.clone()
    nan[5] = torch.nan
    calls: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (DtypeError, "splats must be Gaussians", lambda: render_gaussians(splats.means, camera)),  # pyright: ignore[reportArgumentType]
        (DtypeError, "camera must be a Camera", lambda: render_gaussians(splats, None)),  # pyright: ignore[reportArgumentType]
        (ShapeError, "2 objects in 3 views", lambda: render_gaussians(splats, camera)),
        (RangeError, "sample must name", lambda: render_gaussians(splats, camera, sample=torch.tensor([0, 1, 2]))),
        (ShapeError, "sample", lambda: render_gaussians(splats, camera, sample=torch.tensor([0, 1]))),
        (RangeError, "means must be finite.* row 5", lambda: render_gaussians(replace(splats, means=nan), camera[:2])),
        (RangeError, "sh must be finite", lambda: render_gaussians(replace(splats, sh=splats.sh / 0), camera[:2])),
        (RangeError, "sh_degree", lambda: render_gaussians(splats, camera[:2], sh_degree=2)),
        (RangeError, "crop", lambda: render_gaussians(splats, camera[:2], crop=(0, 0, 0, 3))),
        (ShapeError, "background", lambda: render_gaussians(splats, camera[:2], background=(0.0, 1.0))),  # pyright: ignore[reportArgumentType]
        (RangeError, "background must be finite", lambda: render_gaussians(splats, camera[:2], background=(0.0, 1.0, float("nan")))),
        (RangeError, "preset", lambda: render_gaussians(splats, camera[:2], preset="other")),
    ]
    for error, message, call in calls:
        with pytest.raises(error, match=message):
            call()
