"""psnr, ssim and normal_psnr against closed forms, written-out windows and published constants."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.metrics import lpips, normal_psnr, psnr, ssim
from voxgen.testing.features import RandomFeatures


def hashed(shape: tuple[int, ...], stream: int) -> Tensor:
    """Fixed noise in [-1, 1]: 2 frac(sin(12.9898 n + 78.233 stream) 43758.5453) - 1."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    x = (12.9898 * n + 78.233 * stream).sin() * 43758.5453
    return (2 * (x - x.floor()) - 1).reshape(shape)


def noisy_pair() -> tuple[Tensor, Tensor]:
    shape = (1, 3, 32, 32)
    a = (hashed(shape, 1) + 1) / 2
    return a.float(), (a + 0.1 * hashed(shape, 2)).clamp(0, 1).float()


def test_known_numbers() -> None:
    # of two independent implementations; float32 inputs
    a, b = noisy_pair()
    assert float(psnr(a, b)) == pytest.approx(24.945709, abs=1e-4)
    assert float(ssim(a, b, padding="zero")) == pytest.approx(0.9824968, abs=2e-6)
    assert float(ssim(a, b)) == pytest.approx(0.9798616, abs=2e-6)


def test_psnr_of_a_constant_error() -> None:
    a = torch.rand(4, 3, 5, 7, dtype=torch.float64)
    error = torch.tensor([1.0, 0.1, 0.01, 0.0], dtype=torch.float64)
    found = psnr(a, a + error[:, None, None, None])
    assert found.tolist() == pytest.approx([0, 20, 40, math.inf], abs=1e-9)
    assert psnr(a * 255, a * 255 + 2.55, data_range=255).tolist() == pytest.approx([40] * 4, abs=1e-9)


def test_psnr_mask() -> None:
    a, b = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2:] = True
    b[1, 0, 0, 0] = math.nan  # outside of the mask
    found = psnr(a, b, mask=mask)
    expected = -10 * torch.log10((a[0, :, 1, 2:] - b[0, :, 1, 2:]).square().mean())
    torch.testing.assert_close(found[0], expected)
    assert bool(found[1].isnan())  # no pixel counts
    assert torch.equal(psnr(a, a * 0.5, mask=torch.ones_like(mask)), psnr(a, a * 0.5))


def ssim_by_windows(x: Tensor, y: Tensor, data_range: float) -> float:
    """The definition, one window at a time, for one channel."""
    t = torch.arange(11, dtype=torch.float64) - 5
    g = torch.exp(-(t[:, None] ** 2 + t[None] ** 2) / (2 * 1.5**2))
    g = g / g.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    total, count = 0.0, 0
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mp, mq = (g * p).sum(), (g * q).sum()
            vp, vq, cov = (g * (p - mp) ** 2).sum(), (g * (q - mq) ** 2).sum(), (g * (p - mp) * (q - mq)).sum()
            total += float((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
            count += 1
    return total / count


@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_ssim_is_its_definition(data_range: float) -> None:
    x, y = torch.rand(2, 2, 13, 17, dtype=torch.float64) * data_range, torch.rand(2, 2, 13, 17, dtype=torch.float64) * data_range
    expected = [sum(ssim_by_windows(x[b, c], y[b, c], data_range) for c in range(2)) / 2 for b in range(2)]
    assert ssim(x, y, data_range=data_range).tolist() == pytest.approx(expected, abs=1e-11)


def test_ssim_zero_padding_is_valid_of_the_padded_image() -> None:
    x, y = torch.rand(1, 3, 8, 9, dtype=torch.float64), torch.rand(1, 3, 8, 9, dtype=torch.float64)
    padded = [torch.nn.functional.pad(t, (5, 5, 5, 5)) for t in (x, y)]
    torch.testing.assert_close(ssim(x, y, padding="zero"), ssim(padded[0], padded[1]))


def test_ssim_of_flat_and_equal_images() -> None:
    ones = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    a, b = 0.3, 0.7
    # no variance: only the luminance term is left
    assert float(ssim(a * ones, b * ones)) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-12)
    x = torch.rand(3, 1, 20, 20)
    assert ssim(x, x).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert float(ssim(x[:1], 1 - x[:1])) < -0.9  # equal means, opposite structure


@pytest.mark.parametrize("metric", [psnr, ssim, normal_psnr])
def test_batch_is_its_samples(metric: Callable[..., Tensor]) -> None:
    x, y = torch.rand(5, 3, 12, 14, dtype=torch.float64), torch.rand(5, 3, 12, 14, dtype=torch.float64)
    torch.testing.assert_close(metric(x, y), torch.cat([metric(x[i : i + 1], y[i : i + 1]) for i in range(5)]), rtol=1e-12, atol=1e-12)
    assert metric(x[:0], y[:0]).shape == (0,)
    torch.testing.assert_close(metric(x.transpose(2, 3), y.transpose(2, 3)), metric(x, y))
    assert metric(x.half(), y.half()).dtype == torch.float32
    torch.testing.assert_close(metric(x.half(), y.half()), metric(x.half().float(), y.half().float()))


@pytest.mark.parametrize("metric", [psnr, ssim, normal_psnr])
def test_gradients(metric: Callable[..., Tensor]) -> None:
    x = torch.rand(2, 3, 11, 12, dtype=torch.float64, requires_grad=True)
    y = torch.rand(2, 3, 11, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(metric, (x, y), fast_mode=True)


def tilted(angle: float) -> Tensor:
    n = torch.tensor([math.sin(angle), 0, math.cos(angle)], dtype=torch.float64)
    return n.view(1, 3, 1, 1).expand(1, 3, 4, 6)


@pytest.mark.parametrize("angle", [0.01, 0.3, math.pi])
def test_normal_psnr_of_a_constant_tilt(angle: float) -> None:
    # |n - n'|² = 2 - 2 cos; over three channels, and a quarter of it for colours (n + 1) / 2
    expected = -10 * math.log10((2 - 2 * math.cos(angle)) / 12)
    assert float(normal_psnr(tilted(angle), tilted(0))) == pytest.approx(expected, abs=1e-8)


def test_normal_psnr_masks() -> None:
    mask, target_mask = torch.zeros(2, 1, 4, 6, dtype=torch.bool).unbind(0)
    mask, target_mask = mask.clone(), target_mask.clone()
    mask[..., :4], target_mask[..., 2:5] = True, True  # columns 0-1 one side, 2-3 both, 4 the other side, 5 none
    tilt = 2 - 2 * math.cos(0.3)
    found = {p: float(normal_psnr(tilted(0.3), tilted(0), mask=mask, target_mask=target_mask, pixels=p)) for p in ("either", "both", "all")}
    # a missing surface is a difference of one unit vector
    expected = {"both": 2 * tilt / 2, "either": (2 * tilt + 3) / 5, "all": (2 * tilt + 3) / 6}
    for pixels, square in expected.items():
        assert found[pixels] == pytest.approx(-10 * math.log10(square / 12), abs=1e-8), pixels
    nothing = torch.zeros_like(mask)
    assert math.isnan(float(normal_psnr(tilted(0.3), tilted(0), mask=mask, target_mask=nothing, pixels="both")))


def test_bad_input() -> None:
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(ShapeError, match="image and target must have one shape"):
        psnr(x, x[:, :1])
    with pytest.raises(ShapeError, match=r"image must be \(b, c, h, w\).*got \(3, 16, 16\)"):
        ssim(x[0], x[0])
    with pytest.raises(DtypeError, match="target must be"):
        psnr(x, x.to(torch.uint8))
    with pytest.raises(RangeError, match="data_range must be positive"):
        psnr(x, x, data_range=0)
    with pytest.raises(ShapeError, match="at least 11 × 11 pixels"):
        ssim(x[..., :10], x[..., :10])
    with pytest.raises(RangeError, match="padding must be one of 'valid', 'zero'"):
        ssim(x, x, padding="same")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match=r"mask must be \(1, 16, 16\) bool"):
        psnr(x, x, mask=torch.ones(1, 1, 16, 16, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"normals must be \(b, 3, h, w\)"):
        normal_psnr(x[:, :2], x[:, :2])


def test_lpips_gives_a_number_an_image() -> None:
    a, b = noisy_pair()
    two = torch.cat((a, b)), torch.cat((b, b))
    network = RandomFeatures()
    found = lpips(*two, network=network)
    assert torch.allclose(found, network(two[0] * 2 - 1, two[1] * 2 - 1).flatten())
    assert float(found[0]) > 0
    assert float(found[1]) == 0
    hidden = torch.zeros(2, 32, 32, dtype=torch.bool)
    assert bool((lpips(*two, network=network, mask=hidden) == 0).all())
    assert lpips(a[:0], b[:0], network=network).shape == (0,)
    with pytest.raises(ShapeError, match=r"image must be \(b, 3, h, w\)"):
        lpips(a[:, :1], b[:, :1], network=network)
    with pytest.raises(ShapeError, match="one number an image, 1"):
        lpips(a, b, network=lambda x, y: x - y)
    with pytest.raises(DtypeError, match="float tensor"):
        lpips(a, b, network=lambda x, y: 3)  # pyright: ignore[reportArgumentType]
