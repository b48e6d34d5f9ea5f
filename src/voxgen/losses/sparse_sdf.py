"""Terms for sparse signed distances, and the sum that Direct3D-S2's autoencoder is trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import RangeError

from ._reduce import mean as mean_of
from ._reduce import require_pair
from .dual_grid import subdivision_bce
from .latent import kl_divergence
from .vae import LossTerms, SampleBounds, require_bounds, require_weights, weighted

__all__ = ["SparseSDFLoss", "sdf_mse"]


def sdf_mse(
    prediction: Float[Tensor, "n 1"], target: Float[Tensor, "n 1"], among: Bool[Tensor, " n"] | None = None, offsets: Offsets | None = None
) -> Float[Tensor, ""]:
    """Squared error of distances, mean over a set of voxels.

    Args:
        prediction, target: (n, 1) floats in one unit.
        among: (n,) bool, the voxels that count; None is all. Others have no influence, not even if they are NaN.
        offsets: (b + 1,) int64 bounds of the samples among all n voxels: each sample that has voxels in the set counts the same.
            None: each voxel does, as published.
    Returns:
        Scalar in float32 (float64 if an input is), 0 where the set is empty. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: offsets of another number of rows.
    Source: Direct3D-S2 (arXiv 2505.17412), L_in, L_ext and L_sharp of the SS-VAE; differences: `offsets`.
    Example:
        >>> x, y = torch.tensor([[0.0], [0.5]]), torch.zeros(2, 1)
        >>> float(sdf_mse(x, y)), float(sdf_mse(x, y, torch.tensor([True, False])))
        (0.125, 0.0)
    """
    where = "sdf_mse"
    one, other = require_pair(where, ("prediction", "target"), prediction, target, ("n", 1))
    if among is None:
        return mean_of(where, (one - other).square(), offsets)
    require_tensor(where, "among", among, (len(one),), (torch.bool,), hint="One entry a voxel.")
    require_same_device(where, prediction=one, among=among, offsets=offsets)
    errors = (one[among] - other[among]).square()
    if offsets is None:
        return mean_of(where, errors, None)
    require_tensor(where, "offsets", offsets, ("b + 1",), (torch.int64,), hint="VoxelGrid.offsets are such bounds.")
    if len(offsets) == 0 or int(offsets[-1]) != len(one):
        ends = int(offsets[-1]) if len(offsets) else "nothing"
        raise RangeError(f"{where}: offsets must end at the number of rows, {len(one)}; got {ends}. Are they of another level?")
    before = torch.nn.functional.pad(among.cumsum(0), (1, 0))  # voxels of the set before each row
    return mean_of(where, errors, before[offsets])


@dataclass(frozen=True)
class SparseSDFLoss:
    """Loss of the sparse SDF autoencoder.

    total = inside · MSE(active) + extra · MSE(extra) + sharp · MSE(sharp) + kl · KL + subdivision · Σ_levels BCE(children):
    each mean over its own set of voxels. Active voxels are those of the input, extra ones those that the decoder made besides,
    sharp ones active voxels near sharp edges; these count in both their sets.

    Args:
        inside, extra, sharp, kl: weights, at least 0; the published ones.
        subdivision: weight of the prediction of children, for a decoder with early pruning, which the original lacks. 0.1 as in
            TRELLIS.2.
        per_sample: each sample counts the same in all means, instead of each voxel; needs `bounds` in the call. Not in the original.
    Raises:
        RangeError: a weight that is negative or not finite.
    Source: Direct3D-S2 (arXiv 2505.17412), loss of the SS-VAE: L_in, L_ext, L_sharp, KL. Differences: `subdivision`, `per_sample`.
    Example:
        >>> ones, z = torch.ones(4, 1), torch.zeros(2, 3)
        >>> active = torch.tensor([True, True, True, False])
        >>> result = SparseSDFLoss()(prediction=0.5 * ones, target=ones, active=active, mean=z, logvar=z)
        >>> {name: round(value, 4) for name, value in result.numbers().items()}
        {'total': 0.275, 'inside': 0.25, 'extra': 0.25, 'kl': 0.0}
    """

    inside: float = 1.0
    extra: float = 0.1
    sharp: float = 1.0
    kl: float = 1e-3
    subdivision: float = 0.1
    per_sample: bool = False

    def __post_init__(self) -> None:
        require_weights(self)

    def __call__(
        self,
        *,
        prediction: Float[Tensor, "n 1"],
        target: Float[Tensor, "n 1"],
        active: Bool[Tensor, " n"],
        mean: Float[Tensor, "t c"],
        logvar: Float[Tensor, "t c"],
        sharp: Bool[Tensor, " n"] | None = None,
        subdivision_logits: Sequence[Float[Tensor, "p 8"]] = (),
        subdivisions: Sequence[Bool[Tensor, "p 8"]] = (),
        bounds: SampleBounds | None = None,
    ) -> LossTerms:
        """Compare what encoder and decoder gave with what they should have.

        Args:
            prediction: (n, 1) of the decoder, over the band.
            target, active, sharp: (n, 1), (n,), (n,), rows as the prediction's: `voxgen.models.sdf_targets`. Without `sharp` there is
                no such term.
            mean, logvar: (t, c) of the posterior.
            subdivision_logits, subdivisions: (p, 8) a level, of a decoder with early pruning, and which children exist.
            bounds: of the samples; needed with `per_sample`.
        Returns:
            LossTerms with "inside", "extra", "sharp" (if given), "kl", "subdivision_0", ....
        Raises:
            ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: no bounds with `per_sample`;
            sharp voxels that are not active; no term has a weight.
        """
        where = "SparseSDFLoss"
        own = require_bounds(where, self.per_sample, bounds)
        cells = own.cells if own else None
        n = len(require_tensor(where, "prediction", prediction, ("n", 1)))
        require_tensor(where, "active", active, (n,), (torch.bool,), hint="One entry a voxel.")
        terms = {"inside": sdf_mse(prediction, target, active, cells), "extra": sdf_mse(prediction, target, ~active, cells)}
        if sharp is not None:
            require_tensor(where, "sharp", sharp, (n,), (torch.bool,), hint="One entry a voxel.")
            if bool((sharp & ~active).any()):
                raise RangeError(f"{where}: sharp voxels must be active; {int((sharp & ~active).sum())} of {int(sharp.sum())} are not.")
            terms["sharp"] = sdf_mse(prediction, target, sharp, cells)
        terms["kl"] = kl_divergence(mean, logvar, own.latent if own else None)
        levels = subdivision_bce(subdivision_logits, subdivisions, own.levels if own else None)
        terms |= {f"subdivision_{i}": level for i, level in enumerate(levels.unbind())}
        weights = {name: self.subdivision if name.startswith("subdivision") else getattr(self, name) for name in terms}
        return weighted(where, terms, weights)
