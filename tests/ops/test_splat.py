"""Gaussians on the image: against the published formulas, crops, special cases, bad input."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Camera
from voxgen.core.errors import BackendUnavailable, DtypeError, RangeError, ShapeError
from voxgen.ops.splat import PRESETS, SplatPreset, View, harmonic_colors, project_gaussians, spherical_harmonics, splat
from voxgen.ops.splat._gsplat import splat as splat_by_gsplat
from voxgen.ops.splat._reference import splat as splat_by_definition
from voxgen.testing.cases.splat import scene, views

GOLDEN = Path(__file__).parents[1] / "golden"
ENGINES = ("reference", "torch", "numba")


def golden_camera(c: dict[str, float]) -> Camera:
    k = torch.tensor([[c["fx"], 0, c["cx"]], [0, c["fy"], c["cy"]], [0, 0, 1]], dtype=torch.float64)
    return Camera(torch.tensor(c["V"], dtype=torch.float64)[None], k[None], int(c["W"]), int(c["H"]), 0.01, 1e10)


def golden(name: str) -> tuple[dict, dict[str, Tensor]]:
    with np.load(GOLDEN / f"splat_{name}.npz") as arrays:
        return json.loads((GOLDEN / f"splat_{name}.json").read_text()), {k: torch.from_numpy(arrays[k]) for k in arrays.files}


def random_inputs(count: int = 60, seed: int = 2, dtype: torch.dtype = torch.float64, **options: object) -> list[Tensor]:
    return list(scene(count, seed, dtype, **options).values())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("preset", ["gsplat", "trellis"])
def test_images_projections_and_gradients_are_those_of_the_published_formulas(preset: str, backend: str) -> None:
    about, data = golden(preset)
    for key, view in about["views"].items():
        name = key.split(".")[0]
        colour = "sh" if name == "harmonics" else "colours"
        names = ("means", "quats", "scales", "opacities", colour)
        camera = golden_camera(view["camera"])
        inputs = [data[f"{name}.{k}"].double().requires_grad_() for k in names]
        features = harmonic_colors(inputs[4], inputs[0], camera.positions[0]) if colour == "sh" else inputs[4]
        background = torch.tensor(view["background"], dtype=torch.float64)
        out = splat(*inputs[:4], features, camera, preset=preset, background=background, backend=backend)
        torch.testing.assert_close(out.image[0], data[f"{key}.image"], rtol=0, atol=1e-9)
        torch.testing.assert_close(out.alpha[0], data[f"{key}.alpha"], rtol=0, atol=1e-9)
        weight = torch.as_tensor(recipe.normal(f"{key}.weight", tuple(out.image.shape[1:]), about["seed"])).double()
        found = torch.autograd.grad((weight * out.image[0]).sum() + 0.3 * out.alpha.sum(), inputs)
        for gradient, k in zip(found, names, strict=True):
            expected = data[f"{key}.exact.d_{k}"]
            assert float((gradient - expected).abs().max() / expected.abs().max()) < 1e-9, (key, k)
        spots = project_gaussians(*inputs[:4], camera, preset=preset)
        seen = spots.visible
        for value, k in ((spots.position, "uv"), (spots.covariance, "cov2"), (spots.opacity, "opacity")):
            torch.testing.assert_close(value[seen], data[f"{key}.{k}"][seen], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ENGINES)
def test_float32_and_antialiased_images(backend: str) -> None:
    about, data = golden("gsplat")
    for key, view in about["views"].items():
        name = key.split(".")[0]
        camera = golden_camera(view["camera"])
        inputs = [data[f"{name}.{k}"] for k in ("means", "quats", "scales", "opacities")]
        features = (
            data[f"{name}.colours"]
            if name != "harmonics"
            else harmonic_colors(data["harmonics.sh"], inputs[0], camera.positions[0].float())
        )
        background = torch.tensor(view["background"])
        sure = ~data[f"{key}.uncertain"]
        out = splat(*inputs, features, camera, background=background, backend=backend)
        assert float((out.image[0] - data[f"{key}.image"])[sure].abs().max()) < 2e-5
        stand_in = replace(PRESETS["gsplat"], blur=0.1, near=0.2, compensation="determinant")
        smooth = splat(*inputs, features, camera, preset=stand_in, background=background, backend=backend)
        assert float((smooth.image[0] - data[f"{key}.image_antialiased"])[sure].abs().max()) < 2e-5
    for degree in range(4):
        for i in (0, 1):
            eye = golden_camera(about["views"][f"harmonics.{i}"]["camera"]).positions[0]
            colour = harmonic_colors(data["harmonics.sh"].double(), data["harmonics.means"].double(), eye, degree)
            torch.testing.assert_close(colour, data[f"harmonics.{i}.colour_degree_{degree}"], rtol=0, atol=1e-12)


def sheet_scene() -> tuple[list[Tensor], Camera]:
    i = torch.arange(1, 61, dtype=torch.float64)

    def f(k: int) -> Tensor:
        return torch.frac(i * math.sqrt(k))

    means = torch.stack((1.6 * f(2) - 0.8, 1.2 * f(3) - 0.6, 1.5 * f(5) + 1.5), 1)
    quats = torch.stack((f(7), f(11), f(13), f(17)), 1) - 0.5
    scales = torch.stack((f(19), f(23), f(29)), 1) * 0.12 + 0.01
    k = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64)
    camera = Camera(torch.eye(4, dtype=torch.float64)[None], k[None], 64, 48, 0.01, 1e10)
    return [means, quats, scales, 0.98 * f(31) + 0.01, torch.stack((f(37), f(41), f(43)), 1)], camera


def test_numbers_of_a_scene_that_two_implementations_agree_on() -> None:
    inputs, camera = sheet_scene()
    inputs = [t.requires_grad_() for t in inputs]
    out = splat(*inputs, camera)
    assert float(out.image.detach().sum()) == pytest.approx(1107.06209020, abs=1e-7)
    assert float(out.alpha.detach().sum()) == pytest.approx(766.86715983, abs=1e-7)
    assert out.image[0, 24, 32].tolist() == pytest.approx([0.26507304, 0.09816261, 0.20552495], abs=1e-8)
    weight = torch.frac(0.618 * torch.arange(out.image.numel(), dtype=torch.float64)).reshape(out.image.shape)
    found = torch.autograd.grad((weight * out.image).sum() + 0.3 * out.alpha.sum(), inputs)
    norms = [float(g.norm()) for g in found]
    assert norms == pytest.approx([237.39938, 367.82062, 1621.3561, 214.64274, 129.73429], rel=1e-6)
    plain = [t.detach() for t in inputs]
    assert float(splat(*plain, camera, background=torch.tensor([0.2, 0.5, 0.8]).double()).image.sum()) == pytest.approx(
        4564.76135, abs=1e-4
    )
    assert float(splat(*plain, camera, antialiased=True).image.sum()) == pytest.approx(1038.10045645, abs=1e-7)
    assert float(splat(*plain, camera, preset="trellis").image.sum()) == pytest.approx(1039.37507813, abs=1e-4)


def test_one_blob() -> None:
    k = torch.tensor([[100.0, 0, 16.5], [0, 100, 16.5], [0, 0, 1]], dtype=torch.float64)
    camera = Camera(torch.eye(4, dtype=torch.float64)[None], k[None], 33, 33)
    one = [
        torch.tensor([[0.0, 0.0, 2.0]]).double(),
        torch.eye(4)[:1].double(),
        torch.full((1, 3), 0.1, dtype=torch.float64),
        torch.tensor([0.7], dtype=torch.float64),
    ]
    spots = project_gaussians(*one, camera)
    assert spots.covariance[0].tolist() == pytest.approx([25.3, 0, 25.3])
    alpha = splat(*one, torch.zeros(1, 0).double(), camera).alpha[0, 16]
    for step in range(12):
        assert float(alpha[16 + step]) == pytest.approx(0.7 * math.exp(-step * step / 50.6), abs=1e-12)
    three = [t.repeat(3, *[1] * (t.ndim - 1)) for t in one[:3]]
    out = splat(*three, torch.ones(3).double(), torch.eye(3).double(), camera)
    assert out.image[0, 16, 16].tolist() == pytest.approx([0.999, 0, 0], abs=1e-12)


def test_harmonics() -> None:
    direction = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]], dtype=torch.float64), dim=1)
    sh = ((3 * torch.arange(16)[:, None] + torch.arange(3)) / 10.0).double()
    expected = {
        0: (0, 0.02820948, 0.05641896),
        1: (0.17768271, 0.25524849, 0.33281428),
        2: (0.41451858, 0.51453230, 0.61454601),
        3: (-0.11065150, -0.02389288, 0.06286573),
    }
    for degree, values in expected.items():
        basis = spherical_harmonics(direction, degree)[0]
        assert (basis @ sh[: len(basis)]).tolist() == pytest.approx(values, abs=1e-7)
    dense = torch.nn.functional.normalize(torch.randn(200_000, 3, dtype=torch.float64), dim=1)
    basis = spherical_harmonics(dense, 3)
    gram = 4 * math.pi * basis.T @ basis / len(dense)
    assert float((gram - torch.eye(16)).abs().max()) < 0.03  # orthonormal; a mean of 200,000 samples is good to about 0.01


@pytest.mark.parametrize("preset", ["gsplat", "trellis"])
def test_a_tile_is_the_crop_of_the_full_image(preset: str) -> None:
    about, data = golden("crop")
    camera = golden_camera(about["camera"])
    inputs = [data[k].double() for k in ("means", "quats", "scales", "opacities", "colours")]
    for backend in ENGINES:
        full = splat(*inputs, camera, preset=preset, backend=backend).image[0]
        assert float((full - data[f"{preset}.image"]).abs().max()) < 1e-6
        crops = [(7, 5, 21, 13), (0, 0, 48, 32), (47, 31, 1, 1)]
        crops += [(x * 48 // n, y * 32 // n, 48 // n, 32 // n) for n in (2, 4) for x in range(n) for y in range(n)]
        for x, y, w, h in crops:
            tile = splat(*inputs, camera, preset=preset, crop=(x, y, w, h), backend=backend).image[0]
            expected = full[y : y + h, x : x + w]
            if backend == "torch":
                torch.testing.assert_close(tile, expected, rtol=0, atol=1e-12)
            else:
                assert torch.equal(tile, expected)
    single = [t.float() for t in inputs]
    full, tile = (splat(*single, camera, preset=preset, crop=c).image[0] for c in (None, (7, 5, 21, 13)))
    assert torch.equal(tile, full[5:18, 7:28])


def test_moving_the_principal_point_is_not_a_crop() -> None:
    """The usual way to draw a tile clamps the Jacobian at the border of the tile; the golden says by how much that is wrong."""
    about, data = golden("crop")
    camera = golden_camera(about["camera"])
    inputs = [data[k].double() for k in ("means", "quats", "scales", "opacities", "colours")]
    full = splat(*inputs, camera).image[0]
    for n in (2, 4):
        w, h, worst = 48 // n, 32 // n, 0.0
        for x in range(0, 48, w):
            for y in range(0, 32, h):
                k = camera.intrinsics.clone()
                k[:, 0, 2] -= x
                k[:, 1, 2] -= y
                tile = splat(*inputs, Camera(camera.world_to_camera, k, w, h, 0.01, 1e10)).image[0]
                worst = max(worst, float((tile - full[y : y + h, x : x + w]).abs().max()))
        assert worst == pytest.approx(about["results"][f"gsplat.{n}x{n}"]["tile_clamp_difference"], rel=1e-6)


@pytest.mark.parametrize("backend", ENGINES)
def test_tiles_have_the_gradient_of_the_full_image(backend: str) -> None:
    camera = views(torch.float64)[:1]
    inputs = [t.requires_grad_() for t in random_inputs(30)]
    weight = torch.randn(1, 21, 33, 3, dtype=torch.float64)
    full = torch.autograd.grad((splat(*inputs, camera, backend=backend).image * weight).sum(), inputs)
    total = [torch.zeros_like(t) for t in inputs]
    for x, y, w, h in ((0, 0, 20, 21), (20, 0, 13, 8), (20, 8, 13, 13)):
        image = splat(*inputs, camera, crop=(x, y, w, h), backend=backend).image
        parts = torch.autograd.grad((image * weight[:, y : y + h, x : x + w]).sum(), inputs)
        total = [a + b for a, b in zip(total, parts, strict=True)]
    for a, b in zip(total, full, strict=True):
        assert float((a - b).abs().max()) <= 1e-12 * max(1.0, float(b.abs().max()))


def test_gradients_by_finite_differences() -> None:
    camera = views(torch.float64, 12, 9)[:1]
    inputs = [t.requires_grad_() for t in random_inputs(6, size=0.4)]  # so large that no pixel is near a threshold
    inputs[3].data.clamp_(0.3, 0.7)

    def drawn(*values: Tensor) -> Tensor:
        soft = SplatPreset(alpha_max=0.95)
        return splat(*values[:4], values[4], camera, preset=soft, backend="numba").image[:, 3:6, 4:8]

    assert torch.autograd.gradcheck(drawn, inputs, eps=1e-6, atol=1e-5)


def test_cameras_have_gradients_where_the_engine_has_them() -> None:
    camera = views(torch.float64)[:1]
    pose = camera.world_to_camera.clone().requires_grad_()
    moving = Camera(pose, camera.intrinsics, camera.width, camera.height, camera.near, camera.far)
    inputs = random_inputs()
    (found,) = torch.autograd.grad(splat(*inputs, moving).image.sum(), pose)
    (expected,) = torch.autograd.grad(splat(*inputs, moving, backend="reference").image.sum(), pose)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert float(found.abs().max()) > 1
    with pytest.raises(BackendUnavailable, match="no gradient for cameras"):
        splat(*inputs, moving, backend="numba")


@pytest.mark.parametrize("backend", ENGINES)
def test_no_gradient_is_nan(backend: str) -> None:
    """Points, needles, discs, huge ones, centres at the near plane and at the eye, transparent ones."""
    camera = views(torch.float64)[:2]
    for preset, antialiased in (("gsplat", None), ("gsplat", True), ("trellis", None)):
        values = random_inputs(40)
        values[2][:8] = 0
        values[2][8:12, 1] = 0
        values[2][12:16, 1:] = 0
        values[2][16:20] = 1e20
        values[0][20] = camera.positions[1]
        values[0][21] = camera.positions[1] + 0.05 * camera.forward[1]
        values[0][22] = 1e25
        values[3][23:26] = 0
        inputs = [t.requires_grad_() for t in values]
        out = splat(*inputs, camera, preset=preset, antialiased=antialiased, backend=backend)
        found = torch.autograd.grad(out.image.sum() + out.alpha.square().sum(), inputs)
        assert bool(torch.isfinite(out.image).all())
        assert all(bool(torch.isfinite(g).all()) for g in found)
        low, high = out.alpha.detach().aminmax()
        assert float(low) >= 0
        assert float(high) < 1


def test_what_cannot_be_seen_changes_nothing() -> None:
    camera = views(torch.float64)[:1]
    inputs = random_inputs()
    alone = splat(*inputs, camera).image
    hidden = random_inputs(3, seed=11)
    hidden[3][0] = 0.0039  # less than 1/255
    hidden[0][1] = camera.positions[0] - camera.forward[0]
    hidden[0][2] = camera.positions[0] + 0.049 * camera.forward[0]
    both = splat(*[torch.cat((a, b)) for a, b in zip(inputs, hidden, strict=True)], camera).image
    assert torch.equal(alone, both)
    order = torch.randperm(60)
    assert torch.equal(splat(*[t[order] for t in inputs], camera).image, alone)
    twice = [*inputs[:4], 2 * inputs[4]]
    torch.testing.assert_close(splat(*twice, camera).image, 2 * alone)


def test_a_huge_gaussian_covers_the_image_evenly() -> None:
    camera = views(torch.float32)[:1]
    for backend in ENGINES:
        out = splat(
            torch.zeros(1, 3), torch.eye(4)[:1], torch.full((1, 3), 1e15), torch.tensor([0.5]), torch.ones(1, 1), camera, backend=backend
        )
        torch.testing.assert_close(out.alpha, torch.full_like(out.alpha, 0.5))


def test_gsplat_gets_spots_of_the_full_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter, with a stand-in that draws by the definition from what it is handed."""
    camera = views(torch.float64)[:1]
    inputs = random_inputs(20)
    seen: dict[str, object] = {}

    def projection(means, covars, quats, scales, viewmats, ks, width, height, **options):
        seen.update(options, size=(width, height))
        at = Camera(viewmats.double(), ks.double(), width, height, options["near_plane"], options["far_plane"])
        spots = project_gaussians(means.double(), quats.double(), scales.double(), torch.ones(len(means)).double(), at)
        return spots.extent[None], spots.position[None], spots.depth[None], spots.conic[None], None

    def rasterise(position, conic, colors, opacity, width, height, tile, starts, flat, **options):
        seen["position"] = position
        return torch.zeros(1, height, width, colors.shape[2]), torch.zeros(1, height, width, 1)

    fake = types.SimpleNamespace(
        fully_fused_projection=projection,
        isect_tiles=lambda *a, **k: (None, torch.zeros(0), torch.zeros(0)),
        isect_offset_encode=lambda *a: None,
        rasterize_to_pixels=rasterise,
    )
    monkeypatch.setitem(sys.modules, "gsplat", fake)  # pyright: ignore[reportArgumentType]
    view = View.of(camera, 0, (5, 3, 20, 17), PRESETS["gsplat"])
    image, alpha = splat_by_gsplat(*inputs, view)
    assert (image.shape, alpha.shape, seen["size"]) == ((17, 20, 3), (17, 20), (33, 21))
    expected = project_gaussians(*inputs[:4], camera).position - torch.tensor([5, 3])
    torch.testing.assert_close(seen["position"][0], expected, rtol=0, atol=1e-3)  # pyright: ignore[reportIndexIssue, reportArgumentType]
    assert splat_by_definition(*inputs, view)[0].shape == image.shape


def test_bad_input() -> None:
    camera = views(torch.float64)[:1]
    inputs = random_inputs(5)

    def changed(index: int, row: int, value: float) -> list[Tensor]:
        values = [t.clone() for t in inputs]
        values[index][row] = value
        return values

    for index, name in enumerate(("means", "rotations", "scales", "opacities", "features")):
        with pytest.raises(RangeError, match=f"{name} must be finite.* row 3"):
            splat(*changed(index, 3, math.nan), camera)
    with pytest.raises(RangeError, match="scales must not be negative"):
        splat(*changed(2, 1, -0.1), camera)
    with pytest.raises(RangeError, match="scales must not exceed"):
        splat(*changed(2, 1, 1e31), camera)
    with pytest.raises(RangeError, match=r"opacities must lie in \[0, 1\]"):
        splat(*changed(3, 1, 1.5), camera)
    with pytest.raises(RangeError, match="row 2 is 0"):
        splat(*changed(1, 2, 0.0), camera)
    with pytest.raises(RangeError, match="preset must be one of 'gsplat', 'trellis'"):
        splat(*inputs, camera, preset="inria")
    with pytest.raises(DtypeError, match="preset"):
        splat(*inputs, camera, preset=3)  # pyright: ignore[reportArgumentType]
    for crop in ((0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (30, 0, 4, 5), (0, 20, 4, 2)):
        with pytest.raises(RangeError, match="crop"):
            splat(*inputs, camera, crop=crop)
    with pytest.raises(ShapeError, match="crop"):
        splat(*inputs, camera, crop=(0, 0, 5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="features"):
        splat(*inputs[:4], inputs[4][:4], camera)
    with pytest.raises(DtypeError, match="opacities"):
        splat(*inputs[:3], inputs[3].float(), inputs[4], camera)
    with pytest.raises(ShapeError, match="background"):
        splat(*inputs, camera, background=torch.zeros(2).double())
    with pytest.raises(BackendUnavailable, match="runs on cuda"):
        splat(*inputs, camera, backend="gsplat")
    for place, value in (((0, 0, 1), 0.1), ((0, 0, 0), 0.0), ((0, 1, 2), math.inf)):
        k = camera.intrinsics.clone()
        k[place] = value
        with pytest.raises(RangeError, match="fx, fy > 0; those of view 0"):
            splat(*inputs, Camera(camera.world_to_camera, k, camera.width, camera.height))
    with pytest.raises(ShapeError, match="must have one view"):
        project_gaussians(*inputs[:4], views(torch.float64))
    with pytest.raises(RangeError, match="sh holds"):
        harmonic_colors(torch.zeros(5, 4, 3), torch.zeros(5, 3), torch.zeros(3), 2)
    with pytest.raises(ShapeError, match="1, 4, 9 or 16"):
        harmonic_colors(torch.zeros(5, 5, 3), torch.zeros(5, 3), torch.zeros(3))
    with pytest.raises(RangeError, match="alpha_max"):
        SplatPreset(alpha_max=1.0)
