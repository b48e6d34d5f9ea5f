"""Gaussians: a ragged batch of activated 3D Gaussians, as plain tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from .aliases import Offsets
from .batching import counts_from_offsets, offsets_from_counts
from .checks import require_int, require_same_device, require_tensor
from .errors import RangeError, ShapeError

Self = TypeVar("Self", bound="Gaussians")

HARMONICS = (1, 4, 9, 16)
"""Coefficients a channel for spherical harmonics of degree 0, 1, 2, 3."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    """n Gaussians of b objects, all values activated: what a renderer reads, without where they come from.

    Args:
        means: (n, 3) centres, world units.
        rotations: (n, 4) quaternions [w, x, y, z] of any positive length; they are normalised where they are used.
        scales: (n, 3) standard deviations along the rotated axes, world units, >= 0.
        opacities: (n,) in [0, 1].
        sh: (n, k, 3) spherical harmonics of the colour, k = 1, 4, 9 or 16 (degree 0 to 3). Colours are display-referred (sRGB-encoded):
            0.5 + Σ Y_k sh_k, cut at 0.
        offsets: (b + 1,) int64 bounds of the objects; None is one object. Object s is rows offsets[s]:offsets[s + 1].
    Raises:
        ShapeError, DtypeError, DeviceError: fields that do not fit each other. All floats are float32, or all float64.
    No Gaussians, no objects, and empty objects are legal. Values are not read here; a renderer checks them.
    """

    means: Float[Tensor, "n 3"]
    rotations: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    sh: Float[Tensor, "n k 3"]
    offsets: Offsets | None = None

    def __post_init__(self) -> None:
        where = "Gaussians"
        require_tensor(where, "means", self.means, ("n", 3), (torch.float32, torch.float64))
        n, dtype = len(self.means), (self.means.dtype,)
        require_tensor(where, "rotations", self.rotations, (n, 4), dtype)
        require_tensor(where, "scales", self.scales, (n, 3), dtype)
        require_tensor(where, "opacities", self.opacities, (n,), dtype)
        require_tensor(where, "sh", self.sh, (n, "k", 3), dtype)
        if self.sh.shape[1] not in HARMONICS:
            raise ShapeError(f"{where}: sh must have 1, 4, 9 or 16 coefficients a channel (degree 0 to 3); got {self.sh.shape[1]}.")
        if self.offsets is None:
            object.__setattr__(self, "offsets", offsets_from_counts([n]).to(self.means.device))
        bounds = require_tensor(where, "offsets", self.offsets, ("b + 1",), (torch.int64,), hint="Lengths? Use offsets_from_counts().")
        require_same_device(
            where,
            means=self.means,
            rotations=self.rotations,
            scales=self.scales,
            opacities=self.opacities,
            sh=self.sh,
            offsets=bounds,
        )
        if len(bounds) == 0:
            raise ShapeError(f"{where}: offsets must have one entry more than there are objects, at least one; got none.")
        if not bounds.is_cuda and (int(bounds[0]) != 0 or int(bounds[-1]) != n or bool((bounds.diff() < 0).any())):
            raise RangeError(f"{where}: offsets must rise from 0 to the number of Gaussians, {n}; got {bounds.tolist()[:8]}.")

    def __len__(self) -> int:
        return len(self.means)

    def replace(self: Self, **fields: object) -> Self:
        """A copy with some fields changed."""
        return replace(self, **fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} Gaussians, batch_size={self.batch_size}, degree={self.degree}, device={self.device})"

    @property
    def bounds(self) -> Offsets:
        """`offsets`, which is never None after construction."""
        if self.offsets is None:
            raise ShapeError("Gaussians: offsets are missing.")
        return self.offsets

    @property
    def batch_size(self) -> int:
        return len(self.bounds) - 1

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return HARMONICS.index(self.sh.shape[1])

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def dtype(self) -> torch.dtype:
        return self.means.dtype

    def to(self: Self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same Gaussians on another device, or in another float dtype."""
        floats = {name: getattr(self, name).to(device=device, dtype=dtype) for name in FIELDS}
        return replace(self, **floats, offsets=self.bounds.to(device))

    def select(self: Self, keep: Tensor) -> Self:
        """The kept Gaussians, each in its object; keep is (n,) bool, or (m,) int64 ascending rows. Differentiable."""
        rows = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        offsets = torch.searchsorted(rows, self.bounds)
        return replace(self, **{name: getattr(self, name).index_select(0, rows) for name in FIELDS}, offsets=offsets)

    def sample(self: Self, index: int) -> Self:
        """Object `index` alone, as a batch of one; views of the same memory."""
        i = require_int("Gaussians.sample", "index", index, 0, self.batch_size - 1)
        start, end = self.bounds[i : i + 2].tolist()
        bounds = torch.tensor([0, end - start], device=self.device)
        return replace(self, **{name: getattr(self, name)[start:end] for name in FIELDS}, offsets=bounds)

    @staticmethod
    def batched(items: Sequence[Self]) -> Self:
        """Objects behind each other in one batch.

        Raises:
            RangeError: no items.   ShapeError: different degrees.   DtypeError: different dtypes.
        """
        if not items:
            raise RangeError("Gaussians.batched: at least one item is needed; got none.")
        if any(item.degree != items[0].degree for item in items):
            raise ShapeError(f"Gaussians.batched: all items must have one degree; got {[item.degree for item in items]}.")
        counts = torch.cat([counts_from_offsets(item.bounds) for item in items])
        columns = {name: torch.cat([getattr(item, name) for item in items]) for name in FIELDS}
        return replace(items[0], **columns, offsets=offsets_from_counts(counts))


FIELDS = ("means", "rotations", "scales", "opacities", "sh")
"""The tensors of `Gaussians` that have one row a Gaussian."""
