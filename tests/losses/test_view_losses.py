"""Losses on views: parts of pictures, normals of unknown side, PSNR, the network of LPIPS."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from golden.recipe import normal  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen import losses
from voxgen.core import Camera
from voxgen.core.errors import DtypeError, MissingDependency, RangeError, ShapeError
from voxgen.losses import RenderTarget, ShapeMaps, face_camera, lpips_network, psnr_loss, shape_view_terms
from voxgen.metrics import psnr
from voxgen.testing.features import RandomFeatures

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def half_mask(v: int = 2, size: int = 12) -> Tensor:
    mask = torch.zeros(v, size, size, dtype=torch.bool)
    mask[:, : size // 2] = True
    return mask


@pytest.mark.parametrize("name", ["image_l1", "image_l2", "image_smooth_l1", "ssim_loss"])
def test_mean_over_the_mask(name: str) -> None:
    options = {"beta": 0.1} if name == "image_smooth_l1" else {}
    term = getattr(losses, name)
    a, b, mask = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 12, 12), half_mask()
    everywhere = torch.ones_like(mask)
    assert torch.allclose(term(a, b, mask=everywhere, over="mask", **options), term(a, b, **options))
    assert torch.allclose(term(a, b, over="mask", **options), term(a, b, **options))  # no mask: all
    covered = term(a, b, mask=mask, over="mask", **options)
    if name != "ssim_loss":  # its windows reach over the border
        assert torch.allclose(covered, 2 * term(a, b, mask=mask, **options))
        assert torch.allclose(covered, term(a[:, :, :6], b[:, :, :6], **options))
    poisoned = torch.where(mask[:, None], a, math.nan).requires_grad_()
    found = term(poisoned, b, mask=mask, over="mask", **options)
    assert torch.allclose(found, covered)
    (gradient,) = torch.autograd.grad(found, poisoned)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient[:, :, 6:] == 0).all())
    nothing = term(a.requires_grad_(), b, mask=~everywhere, over="mask", **options)
    assert float(nothing.detach()) == 0
    nothing.backward()
    with pytest.raises(RangeError, match="over must be one of"):
        term(a, b, mask=mask, over="half", **options)


def test_psnr_loss_is_the_negative_metric() -> None:
    a, b = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    assert float(psnr_loss(a, b)) == pytest.approx(-float(psnr(a, b)), abs=1e-4)
    mask = half_mask(1, 8)
    assert float(psnr_loss(a, b, mask=mask, over="mask")) == pytest.approx(-float(psnr(a, b, mask=mask)), abs=1e-4)
    equal = a.clone().requires_grad_()
    best = psnr_loss(equal, a)
    best.backward()
    assert float(best.detach()) == pytest.approx(-80, abs=1e-3)
    assert equal.grad is not None
    assert bool((equal.grad == 0).all())
    assert float(psnr_loss(a[:0], b[:0])) == 0
    with pytest.raises(RangeError, match="floor"):
        psnr_loss(a, b, floor=0.0)


def test_flipped_normals_are_those_of_trellis() -> None:
    info = json.loads((GOLDEN / "focusing_trellis_losses.json").read_text())
    arrays = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "focusing_trellis_losses.npz").items()}
    image = torch.nn.functional.normalize(torch.from_numpy(normal("normal", (2, 3, 48, 48), 0)).float(), dim=1)
    intrinsics = arrays["in/intrinsics"] * torch.tensor([48.0, 48.0, 1.0])[:, None]
    camera = Camera(arrays["in/extrinsics"].expand(2, 4, 4), intrinsics.expand(2, 3, 3), 48, 48)
    found = face_camera(image, camera)
    kept = (found == image).all(1).float().mean((1, 2))
    assert torch.allclose(kept, arrays["out/kept_normals"])
    packed = (found + 1) / 2
    assert torch.allclose(packed[:, :, ::8, ::8], arrays["out/flipped_rows"], atol=info["tolerance"])
    assert float(packed.mean()) == pytest.approx(info["checkpoints"]["flipped"]["mean"], abs=info["tolerance"])
    assert float(packed.std(correction=0)) == pytest.approx(info["checkpoints"]["flipped"]["std"], abs=info["tolerance"])
    turned = torch.einsum("ij,vjhw->vihw", arrays["in/extrinsics"][:3, :3], image)
    in_camera = torch.einsum("ji,vjhw->vihw", arrays["in/extrinsics"][:3, :3], face_camera(turned, camera, space="camera"))
    assert torch.allclose(in_camera, found, atol=1e-5)


def test_face_camera_of_parallel_views_and_zero() -> None:
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=3, height=2, orthographic_height=1.0)
    toward = torch.tensor([0.6, 0.0, 0.8])[None, :, None, None].expand(1, 3, 2, 3)
    assert torch.equal(face_camera(toward, camera), toward)
    assert torch.equal(face_camera(-toward, camera), toward)
    assert bool((face_camera(torch.zeros(1, 3, 2, 3), camera) == 0).all())
    with pytest.raises(ShapeError, match=r"normals must be \(1, 3, 2, 3\)"):
        face_camera(torch.zeros(1, 3, 3, 2), camera)
    with pytest.raises(RangeError, match="space must be one of"):
        face_camera(toward, camera, space="eye")  # pyright: ignore[reportArgumentType]


def maps(seed: int, v: int = 2, size: int = 12) -> ShapeMaps:
    draw = torch.Generator().manual_seed(seed)
    return ShapeMaps(*(torch.rand(v, c, size, size, generator=draw) for c in (1, 1, 3)))


def test_shape_terms_of_trellis_count_inside_the_target() -> None:
    one, target = maps(0), maps(1)
    target = ShapeMaps((target.mask > 0.5).float(), target.depth, target.normal)
    inside = target.mask[:, 0] > 0
    found = shape_view_terms(one, target, RandomFeatures(), within_target=True, depth_beta=1 / 48)
    assert torch.allclose(found["mask"], losses.image_l1(one.mask, target.mask))
    assert torch.allclose(found["depth"], losses.image_smooth_l1(one.depth, target.depth, beta=1 / 48, mask=inside))
    assert torch.allclose(found["normal"], losses.image_l1(one.normal, target.normal, mask=inside))
    assert torch.allclose(found["normal_ssim"], losses.ssim_loss(one.normal, target.normal, mask=inside))
    assert torch.allclose(found["normal_lpips"], losses.perceptual_loss(one.normal, target.normal, RandomFeatures(), mask=inside))
    assert set(shape_view_terms(one, target)) == {"mask", "depth", "normal", "normal_ssim"}


def test_terms_under_coverage_do_not_see_the_rest() -> None:
    one, target, coverage = maps(0), maps(1), half_mask()
    spoiled = ShapeMaps(*(torch.where(coverage[:, None], m, 9.0) for m in (one.mask, one.depth, one.normal)))
    found, again = (shape_view_terms(m, target, RandomFeatures(), coverage=coverage) for m in (one, spoiled))
    for name, term in found.items():
        assert torch.equal(term, again[name]), name
    assert torch.allclose(found["depth"], losses.image_l1(one.depth[:, :, :6], target.depth[:, :, :6]))
    colors = losses.MaterialMaps(one.normal, one.normal.flip(0)), losses.MaterialMaps(target.normal, target.normal)
    terms = losses.material_view_terms(*colors, RandomFeatures(), coverage=coverage)
    assert torch.equal(terms["base_color_ssim"], losses.ssim_loss(one.normal, target.normal, mask=coverage, over="mask"))
    with pytest.raises(ShapeError, match="coverage must be"):
        RenderTarget(Camera.look_at(torch.rand(2, 3), width=8, height=8), torch.zeros(2).long(), maps=target, coverage=coverage)


def test_random_features_are_a_fixed_distance() -> None:
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    network = RandomFeatures()
    assert network(a, b).shape == (2, 1, 1, 1)
    assert bool((network(a, a) == 0).all())
    assert bool((network(a, b) > 0).all())
    assert torch.equal(network(a, b), RandomFeatures()(a, b))
    assert not torch.equal(network(a, b), RandomFeatures(seed=1)(a, b))


class PretendLPIPS(nn.Module):
    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        self.options = (net, verbose)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.weight * (one - other).abs().mean((1, 2, 3), keepdim=True)


def pretend_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lpips", "torchvision"):
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)  # pyright: ignore[reportAttributeAccessIssue]
        module.LPIPS = PretendLPIPS  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, name, module)


def test_lpips_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingDependency, match=r"voxgen\[train\]"):
        lpips_network()
    pretend_packages(monkeypatch)
    with pytest.raises(MissingDependency, match=r"vgg16-397923af\.pth"):
        lpips_network()
    with pytest.raises(RangeError, match="net must be one of"):
        lpips_network("resnet")  # pyright: ignore[reportArgumentType]


def test_lpips_is_frozen_and_serves_the_perceptual_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    pretend_packages(monkeypatch)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    network = lpips_network("alex")
    assert isinstance(network, PretendLPIPS)
    assert network.options == ("alex", False)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    a, b = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    assert torch.allclose(losses.perceptual_loss(a, b, network), 2 * losses.image_l1(a, b))


@pytest.mark.skipif("lpips" not in sys.modules and __import__("importlib").util.find_spec("lpips") is None, reason="lpips is not installed")
def test_lpips_itself() -> None:
    try:
        network = lpips_network()
    except MissingDependency as missing:
        pytest.skip(str(missing))
    a = torch.rand(1, 3, 64, 64)
    assert float(losses.perceptual_loss(a, a, network)) == pytest.approx(0, abs=1e-6)
    assert float(losses.perceptual_loss(a, 1 - a, network)) > 0.01


def test_half_normals_are_raised() -> None:
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=3, height=2)
    assert face_camera(torch.zeros(1, 3, 2, 3).half(), camera).dtype == torch.float32
    with pytest.raises(DtypeError, match="normals must be"):
        face_camera(torch.zeros(1, 3, 2, 3).int(), camera)
