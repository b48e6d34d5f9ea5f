"""Stand-ins for the tensors of other libraries: their attributes, constructors and conventions, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from voxgen.testing.grids import random_coords


class TrellisLike:
    """Feats and coords; layout by sample from the largest batch index; a cache that `replace` hands on."""

    def __init__(self, feats: Tensor, coords: Tensor, scale: tuple[int, int, int] = (1, 1, 1), cache: dict[str, Any] | None = None) -> None:
        self.feats = feats
        self.coords = coords
        self.scale = scale
        self.cache = {} if cache is None else cache
        bounds = torch.bincount(coords[:, 0].long()).cumsum(0).tolist()
        self.layout = [slice(a, b) for a, b in zip([0, *bounds[:-1]], bounds, strict=True)] if bounds else []

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self.layout), *self.feats.shape[1:]])

    def replace(self, feats: Tensor) -> TrellisLike:
        return TrellisLike(feats, self.coords, self.scale, self.cache)


@dataclass
class TorchsparseLike:
    """torchsparse 2.1."""

    feats: Tensor
    coords: Tensor
    stride: Any = (1, 1, 1)
    spatial_range: tuple[int, ...] | None = None
    _caches: Any = field(default_factory=dict)


class OldTorchsparseLike:
    """torchsparse 1.4 and 2.0: batch index last, finest cells."""

    def __init__(self, feats: Tensor, coords: Tensor, stride: Any = (1, 1, 1)) -> None:
        self.feats, self.coords, self.stride = feats, coords, stride
        self.cmaps: dict[Any, Any] = {}
        self.kmaps: dict[Any, Any] = {}


class SpconvLike:
    """spconv.pytorch.SparseConvTensor."""

    def __init__(self, features: Tensor, indices: Tensor, spatial_shape: list[int], batch_size: int) -> None:
        self.features, self.indices, self.spatial_shape, self.batch_size = features, indices, spatial_shape, batch_size
        self.indice_dict: dict[str, Any] = {}

    def replace_feature(self, feature: Tensor) -> SpconvLike:
        result = SpconvLike(feature, self.indices, self.spatial_shape, self.batch_size)
        result.indice_dict = self.indice_dict
        return result


def rows(counts: tuple[int, ...] = (30, 0, 20), channels: int = 4, resolution: int = 8) -> tuple[Tensor, Tensor]:
    """Features that want a gradient and cells in random order, batch first."""
    coords = random_coords(counts, resolution)
    return torch.randn(len(coords), channels, generator=torch.Generator().manual_seed(1)).requires_grad_(), coords
