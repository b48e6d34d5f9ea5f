"""Networks that several test files read and none changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sparse_flex_vae_cases import small

from models.sdf_vae_cases import vae  # pyright: ignore[reportMissingImports]
from voxgen.models import SparseFlexVAE, SparseSDFVAE


@pytest.fixture(scope="module")
def small_sdf_vae() -> SparseSDFVAE:
    return vae()


@pytest.fixture(scope="module")
def small_flex_vae() -> SparseFlexVAE:
    return small().requires_grad_(False)


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield
