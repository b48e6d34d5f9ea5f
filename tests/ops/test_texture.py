"""Textures: levels of any size, samples against other people's filters, wrapping, masks, and the sizes of TRELLIS.2."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from voxgen.core import Texture
from voxgen.core.errors import DeviceError, DtypeError, RangeError, ShapeError
from voxgen.core.material import srgb_to_linear
from voxgen.ops.texture import OP, TexturePyramid, build_pyramid, resize_to_power_of_two, sample_texture

ENGINES = list(OP.backends)
GOLDEN = Path(__file__).parents[1] / "golden"


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64)


def noise_bytes(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


# Levels.


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 7), (13, 1), (1, 9), (16, 4), (31, 33)])
def test_sides_halve_down_to_one_and_the_mean_stays(shape: tuple[int, int]) -> None:
    image = noise(*shape, 3)
    levels = build_pyramid(image).levels
    assert levels[-1].shape[:2] == (1, 1)
    for before, after in pairwise(levels):
        assert after.shape == (max(1, before.shape[0] // 2), max(1, before.shape[1] // 2), 3)
        assert torch.allclose(after.mean((0, 1)), image.mean((0, 1)), atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 7), (3, 3), (9, 4), (15, 11)])
def test_a_level_is_the_exact_mean_over_equal_boxes(shape: tuple[int, int]) -> None:
    image = noise(*shape, 2)
    h, w = shape
    m, n = h // 2, w // 2
    fine = image.repeat_interleave(m, 0).repeat_interleave(n, 1)  # boxes now hold whole texels
    expected = fine.reshape(m, h, n, w, 2).mean((1, 3))
    assert torch.allclose(build_pyramid(image).levels[1], expected, atol=1e-14)


def test_bytes_are_kept_and_reduced_in_light() -> None:
    image = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8)[:, :, None]
    plain, light = build_pyramid(image), build_pyramid(image, srgb=True)
    assert plain.levels[0].data_ptr() == image.data_ptr()
    assert plain.levels[1].item() == light.levels[1].item() == 0.5  # half of the light
    grey = torch.full((4, 4, 1), 128, dtype=torch.uint8)
    assert build_pyramid(grey, srgb=True).levels[1].flatten().tolist() == pytest.approx(
        [float(srgb_to_linear(torch.tensor(128 / 255)))] * 4
    )


@pytest.mark.parametrize("shape", [(64, 64, 3), (65, 33, 4), (70, 9000, 3)])
def test_reduced_bytes_are_those_of_the_decoded_image(shape: tuple[int, int, int]) -> None:
    image = noise_bytes(*shape)  # the last one is decoded in several strips
    encoded = (True, False, True, True)[: shape[2]]
    expected = build_pyramid(image.double() / 255, srgb=encoded).levels
    for actual, wanted in zip(build_pyramid(image, srgb=encoded).levels[1:], expected[1:], strict=True):
        assert torch.allclose(actual.double(), wanted, atol=3e-7)  # float32 against float64


def test_a_mask_is_reduced_after_the_threshold() -> None:
    image = torch.tensor([[0.0, 0.9], [0.6, 0.4]])[:, :, None]
    mask = build_pyramid(image, cutoff=0.5)
    assert mask.levels[0].equal(image)
    assert mask.levels[1].item() == 0.5
    bytes_mask = build_pyramid((image * 255).byte(), cutoff=0.5)
    assert bytes_mask.levels[1].item() == 0.5


def test_compat_levels_are_floors_of_sums_of_bytes() -> None:
    image = torch.tensor([[255, 255, 1, 0], [255, 254, 0, 0], [3, 3, 3, 2], [8, 0, 0, 0]], dtype=torch.uint8)[:, :, None]
    levels = build_pyramid(image, compat="trellis2").levels
    assert (levels[1] * 255).round().flatten().tolist() == [254, 0, 3, 1]
    assert (levels[2] * 255).round().item() == 64  # (254 + 0 + 3 + 1) // 4
    assert build_pyramid(image).levels[1].flatten().tolist() == pytest.approx([1019 / 1020, 1 / 1020, 14 / 1020, 5 / 1020])


# Samples.


def by_hand(level: Tensor, u: float, v: float, wrap: tuple[str, str]) -> Tensor:
    """Bilinear lookup with plain Python indices."""
    h, w, _ = level.shape

    def index(i: int, n: int, rule: str) -> int:
        if rule == "repeat":
            return i % n
        if rule == "clamp":
            return min(max(i, 0), n - 1)
        while not 0 <= i < n:
            i = -1 - i if i < 0 else 2 * n - 1 - i
        return i

    x, y = u * w - 0.5, (1 - v) * h - 0.5
    i, j = int(np.floor(y)), int(np.floor(x))
    total = torch.zeros(level.shape[2], dtype=level.dtype)
    for di in range(2):
        for dj in range(2):
            share = (1 - abs(y - i - di)) * (1 - abs(x - j - dj))
            total += share * level[index(i + di, h, wrap[1]), index(j + dj, w, wrap[0])]
    return total


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("wrap", [("repeat", "clamp"), ("mirror", "repeat"), ("clamp", "mirror")])
def test_samples_are_bilinear_between_two_levels(backend: str, wrap: tuple[str, str]) -> None:
    pyramid = build_pyramid(noise(6, 10, 3))
    uv = noise(40, 2) * 7 - 3
    for level in (-2.0, 0.0, 0.25, 1.5, 2.0, 3.0, 9.0):
        low = min(max(level, 0.0), 3.0)
        k, f = int(low), low - int(low)
        expected = torch.stack(
            [
                (1 - f) * by_hand(pyramid.levels[k], u, v, wrap) + f * by_hand(pyramid.levels[min(k + 1, 3)], u, v, wrap)
                for u, v in uv.tolist()
            ]
        )
        actual = sample_texture(pyramid, uv, level, wrap=wrap, backend=backend)  # pyright: ignore[reportArgumentType]
        assert torch.allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize(("rule", "padding"), [("clamp", "border"), ("mirror", "reflection")])
def test_base_samples_agree_with_grid_sample(backend: str, rule: str, padding: str) -> None:
    image = noise(9, 5, 2)
    uv = noise(200, 2) * 3 - 1
    grid = torch.stack((uv[:, 0] * 2 - 1, 1 - uv[:, 1] * 2), 1)
    expected = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], grid[None, None], mode="bilinear", padding_mode=padding, align_corners=False
    )[0, :, 0].T
    actual = sample_texture(build_pyramid(image), uv, wrap=(rule, rule), backend=backend)  # pyright: ignore[reportArgumentType]
    assert torch.allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("backend", ENGINES)
def test_v_points_up_and_texel_centres_give_texels(backend: str) -> None:
    image = noise_bytes(3, 4, 3)
    rows, columns = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    uv = torch.stack(((columns + 0.5) / 4, 1 - (rows + 0.5) / 3), -1).reshape(-1, 2).double()
    for kind in ("linear", "nearest"):
        found = sample_texture(build_pyramid(image), uv, filter=kind, backend=backend)
        assert torch.allclose(found, image.reshape(-1, 3).double() / 255, atol=1e-7)  # decoded to float32


@pytest.mark.parametrize("backend", ENGINES)
def test_nearest_holds_for_level_0_only(backend: str) -> None:
    image = torch.tensor([[0.0, 1.0]])[:, :, None]
    uv = torch.tensor([[0.49, 0.5], [0.51, 0.5]])
    pyramid = build_pyramid(image)
    assert sample_texture(pyramid, uv, 0.0, filter="nearest", backend=backend).flatten().tolist() == [0, 1]
    assert sample_texture(pyramid, uv, 1.0, filter="nearest", backend=backend).flatten().tolist() == [0.5, 0.5]
    assert sample_texture(pyramid, uv, 0.5, filter="nearest", backend=backend).flatten().tolist() == [0.25, 0.75]


@pytest.mark.parametrize("backend", ENGINES)
def test_a_mask_gives_0_or_1_at_its_base_and_shares_above(backend: str) -> None:
    image = torch.tensor([[0.0, 0.4], [0.0, 0.8]])[:, :, None]
    uv = torch.tensor([[0.5, 0.5], [0.75, 0.5], [0.75, 0.25]])  # bilinear values 0.3, 0.6, 0.8
    mask = build_pyramid(image, cutoff=0.5)
    assert sample_texture(mask, uv, 0.0, wrap=("clamp", "clamp"), backend=backend).flatten().tolist() == [0, 1, 1]
    assert sample_texture(mask, uv, 1.0, wrap=("clamp", "clamp"), backend=backend).flatten().tolist() == [0.25] * 3
    half = sample_texture(mask, uv, 0.5, wrap=("clamp", "clamp"), backend=backend).flatten().tolist()
    assert half == [0.125, 0.625, 0.625]


@pytest.mark.parametrize("backend", ENGINES)
def test_levels_that_are_no_numbers_read_the_base_and_far_coordinates_are_safe(backend: str) -> None:
    image = noise(4, 4, 1)
    pyramid = build_pyramid(image)
    uv = torch.full((3, 2), 0.375, dtype=torch.float64)
    level = torch.tensor([float("nan"), float("-inf"), float("inf")], dtype=torch.float64)
    found = sample_texture(pyramid, uv, level, backend=backend).flatten()
    assert found[:2].tolist() == pytest.approx([float(image[2, 1])] * 2)
    assert float(found[2]) == pytest.approx(float(image.mean()))
    far = sample_texture(pyramid, torch.tensor([[1e30, -1e30]], dtype=torch.float64), wrap=("repeat", "mirror"), backend=backend)
    assert bool(torch.isfinite(far).all())


def test_gradients_reach_texels_and_coordinates() -> None:
    image, uv = noise(5, 4, 2).requires_grad_(), noise(6, 2).requires_grad_()
    level = torch.linspace(0, 2, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda i, p: sample_texture(build_pyramid(i, srgb=True), p, level), (image, uv))


# Wrong input.


def test_what_cannot_be_a_pyramid_is_refused() -> None:
    with pytest.raises(DtypeError, match="uint8 or float32"):
        build_pyramid(torch.zeros(4, 4, 3, dtype=torch.int32))
    with pytest.raises(ShapeError, match="h, w, c"):
        build_pyramid(torch.zeros(4, 4))
    with pytest.raises(RangeError, match="at least one texel"):
        build_pyramid(torch.zeros(0, 4, 3))
    with pytest.raises(ShapeError, match="one for each of 3"):
        build_pyramid(torch.zeros(4, 4, 3), srgb=(True, False))
    with pytest.raises(RangeError, match="trellis2"):
        build_pyramid(torch.zeros(4, 4, 3, dtype=torch.uint8), compat="trellis")  # pyright: ignore[reportArgumentType]


def test_compat_refuses_what_the_original_cannot_read_and_says_what_to_do() -> None:
    with pytest.raises(RangeError, match=r"12 × 24.*resize_to_power_of_two"):
        build_pyramid(noise_bytes(12, 24, 3), compat="trellis2")
    with pytest.raises(RangeError, match="8 × 16"):
        build_pyramid(noise_bytes(8, 16, 3), compat="trellis2")
    with pytest.raises(DtypeError, match="uint8"):
        build_pyramid(torch.rand(8, 8, 3), compat="trellis2")
    with pytest.raises(RangeError, match="srgb"):
        build_pyramid(noise_bytes(8, 8, 3), compat="trellis2", srgb=True)


def test_wrong_samples_are_refused() -> None:
    pyramid = build_pyramid(torch.rand(4, 4, 3))
    with pytest.raises(ShapeError, match="build_pyramid"):
        sample_texture(torch.rand(4, 4, 3), torch.rand(5, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="n, 2"):
        sample_texture(pyramid, torch.rand(5, 3))
    with pytest.raises(DtypeError, match="float32"):
        sample_texture(pyramid, torch.zeros(5, 2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="level"):
        sample_texture(pyramid, torch.rand(5, 2), torch.rand(4))
    with pytest.raises(RangeError, match="'clamp'"):
        sample_texture(pyramid, torch.rand(5, 2), wrap=("border", "clamp"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="nearest"):
        sample_texture(pyramid, torch.rand(5, 2), filter="cubic")
    with pytest.raises(DeviceError, match="one device"):
        sample_texture(TexturePyramid((torch.rand(4, 4, 3, device="meta"),)), torch.rand(5, 2))


# Sizes for compat.


@pytest.mark.parametrize(
    ("size", "side"), [((24, 12), 32), ((10, 10), 8), ((3, 3), 4), ((5, 2), 4), ((1, 1), 1), ((16, 8), 16), ((6, 6), 8), ((8, 47), 32)]
)
def test_sides_become_the_nearest_power_of_two_of_the_longer(size: tuple[int, int], side: int) -> None:
    resized = resize_to_power_of_two(Texture(noise_bytes(*size, 2), (1,), wrap=("clamp", "mirror"), name="t"))
    assert resized.image.shape == (side, side, 2)
    assert (resized.channels, resized.wrap, resized.name) == ((1,), ("clamp", "mirror"), "t")


def test_a_texture_of_such_a_size_is_left_alone() -> None:
    texture = Texture(torch.rand(8, 8, 3), (0, 1, 2))
    assert resize_to_power_of_two(texture) is texture
    with pytest.raises(DtypeError, match="uint8"):
        resize_to_power_of_two(Texture(torch.rand(8, 9, 3), (0, 1, 2)))


def test_resized_images_are_those_of_the_original() -> None:
    golden = np.load(GOLDEN / "ovoxel_materials_dump.npz")
    for name, channels in (("color", (0, 1, 2)), ("alpha", (0,))):
        image = torch.from_numpy(golden[f"image_{name}"])
        texture = Texture(image if image.ndim == 3 else image[:, :, None], channels)
        expected = torch.from_numpy(golden[f"resized_{name}"]).reshape(*golden[f"resized_{name}"].shape[:2], len(channels)).int()
        # Lanczos weights of other Pillow releases may round a byte differently.
        assert int((resize_to_power_of_two(texture).image.int() - expected).abs().max()) <= 1
