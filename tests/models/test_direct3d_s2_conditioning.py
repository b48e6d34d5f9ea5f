"""What the flows are conditioned on: the original's image preparation, patches and tokens, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from voxgen.attention import CrossAttention
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.models.direct3d_s2 import foreground_patches, image_tokens, prepare_image, sparse_condition
from voxgen.testing.compare import assert_same


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.read("direct3d_s2_conventions")


def test_preparation_of_the_original(golden: Golden) -> None:
    image = prepare_image(golden.arrays["in/rgba"].numpy())
    assert_same(image[:, ::37, ::37], golden.arrays["out/preprocessed_every_37"], "every 37th pixel", golden.tolerance)
    expected = golden.about["checkpoints"]["preprocessed"]
    assert image.mean().item() == pytest.approx(expected["mean"], abs=1e-6)
    assert image.std(correction=0).item() == pytest.approx(expected["std"], abs=1e-6)
    assert torch.equal(foreground_patches(image[3]), golden.arrays["out/preprocessed_patch_mask"].bool())


def test_tokens_and_positions_of_the_original(golden: Golden) -> None:
    numbers = torch.arange(2 * 1374, dtype=torch.float32).view(2, 1374, 1)
    condition = sparse_condition(numbers, golden.arrays["in/patch_mask"])
    assert torch.equal(torch.cat(condition.tokens)[:, 0], golden.arrays["out/condition_tokens"])
    coords = golden.arrays["out/condition_coords"]
    for i, positions in enumerate(condition.positions):
        assert torch.equal(positions, coords[coords[:, 0] == i, 1:])
    nothing = condition.unconditional()
    assert not torch.cat(nothing.tokens).any()
    assert nothing.positions is condition.positions


def test_tokens_without_an_object_and_gradients() -> None:
    tokens = torch.randn(2, 1374, 8, requires_grad=True)
    mask = torch.zeros(2, 37, 37, dtype=torch.bool)
    mask[1, 3, 30] = True
    condition = sparse_condition(image_tokens(tokens), mask)
    assert [len(part) for part in condition.tokens] == [5, 6]
    assert condition.positions[1][-1].tolist() == [30, 3, 0]
    CrossAttention(12, 8, 2)(torch.randn(2, 4, 12), condition.tokens).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[1].any(1).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5 + 3 * 37 + 30]
    assert sparse_condition(tokens[:0], mask[:0]).tokens == []


def test_an_object_of_a_few_pixels_is_not_cropped_to() -> None:
    image = np.zeros((100, 100, 4), dtype=np.uint8)
    image[50, 50] = 255
    assert int(foreground_patches(prepare_image(image)[3]).sum()) <= 4
    image[40:60, 30:70] = 255
    assert int(foreground_patches(prepare_image(image)[3]).sum()) > 500


def test_conditions_in_bad_form() -> None:
    image = np.zeros((40, 60, 4), dtype=np.uint8)
    with pytest.raises(RangeError, match="no object"):
        prepare_image(image)
    with pytest.raises(DtypeError, match="uint8"):
        prepare_image(image.astype(np.float32))
    with pytest.raises(ShapeError, match="RGBA"):
        prepare_image(image[..., :3])
    with pytest.raises(ShapeError, match="prepare_image"):
        foreground_patches(torch.zeros(512, 512))
    with pytest.raises(ShapeError, match="1374"):
        sparse_condition(torch.zeros(1, 1369, 8), torch.zeros(1, 37, 37, dtype=torch.bool))
    with pytest.raises(DtypeError, match="bool"):
        sparse_condition(torch.zeros(1, 1374, 8), torch.zeros(1, 37, 37))
