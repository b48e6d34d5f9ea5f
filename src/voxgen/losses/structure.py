"""Terms for the occupancy of dense cubes, and the sum that the structure autoencoder is trained with."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from voxgen.core.checks import FLOATS, require_tensor

from ._reduce import mean as mean_of
from ._reduce import require_flags, single
from .latent import kl_divergence
from .vae import LossTerms, require_weights, weighted

__all__ = ["StructureVAELoss", "structure_bce", "structure_dice", "structure_l1"]

CUBE = ("b", 1, "x", "y", "z")


def structure_bce(logits: Float[Tensor, "b 1 x y z"], occupancy: Bool[Tensor, "b 1 x y z"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of which cells are occupied, mean over all cells, empty ones included.

    Args:
        logits: (b, 1, x, y, z) floats of `StructureVAE.decode`, occupied where positive.
        occupancy: (b, 1, x, y, z) bool, the truth.
    Returns:
        Scalar in float32 (float64 for float64 logits); 0 without cells. Differentiable in the logits.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.
    Source: the default of TRELLIS.2's structure trainer; differences: none.
    Example:
        >>> structure_bce(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2, dtype=torch.bool))
        tensor(0.6931)
    """
    values, truth = _pair("structure_bce", logits, occupancy)
    return mean_of("structure_bce", binary_cross_entropy_with_logits(values, truth, reduction="none"), None)


def structure_l1(logits: Float[Tensor, "b 1 x y z"], occupancy: Bool[Tensor, "b 1 x y z"]) -> Float[Tensor, ""]:
    """Absolute difference of the probability of a cell and its occupancy, mean over all cells; otherwise as `structure_bce`.

    Source: an option of TRELLIS.2's structure trainer; differences: none.
    Example:
        >>> structure_l1(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2, dtype=torch.bool))
        tensor(0.5000)
    """
    values, truth = _pair("structure_l1", logits, occupancy)
    return mean_of("structure_l1", (values.sigmoid() - truth).abs(), None)


def structure_dice(logits: Float[Tensor, "b 1 x y z"], occupancy: Bool[Tensor, "b 1 x y z"]) -> Float[Tensor, ""]:
    """1 − (2 Σ p y + 1) / (Σ p + Σ y + 1), with probabilities p and occupancy y, the sums over the whole batch.

    Occupied cells are few, and cells that are rightly empty do not count here, so the two kinds need no weights. The batch is one
    set: a sample with many occupied cells counts more. Arguments and errors as `structure_bce`; 0 without cells.

    Source: the loss that TRELLIS' published structure VAE was trained with; differences: none.
    Numerics: sums in float32 (float64 for float64 logits), also of half logits, whose sums would overflow.
    Example:
        >>> structure_dice(torch.full((1, 1, 1, 1, 3), 20.0), torch.tensor([True, True, False]).view(1, 1, 1, 1, 3))
        tensor(0.1667)
    """
    values, truth = _pair("structure_dice", logits, occupancy)
    p = values.sigmoid()
    return 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)


@dataclass(frozen=True)
class StructureVAELoss:
    """Loss of the structure VAE.

    total = bce · BCE(occupancy) + l1 · |p − y| + dice · Dice + kl · KL, by default Dice and KL as TRELLIS' published weights were
    trained. The other choices of its trainer: `StructureVAELoss(bce=1, dice=0)` and `StructureVAELoss(l1=1, dice=0)`; the trainer
    takes kl=1e-6 unless it is told otherwise.

    Args:
        bce, l1, dice, kl: weights, at least 0. The KL divergence is a mean over all values of the latent.
    Raises:
        RangeError: a weight that is negative or not finite.
    Source: TRELLIS (arXiv 2412.01506) and the structure trainer of TRELLIS.2 (arXiv 2512.14692). Differences: terms can be added up.
    Example:
        >>> vae = build("direct3d-s2/dense-vae", model_channels_encoder=(8, 16), model_channels_decoder=(16, 8), use_fp16=False)
        >>> occupancy = torch.rand(1, 1, 16, 16, 16) > 0.9
        >>> logits, posterior = vae(occupancy)
        >>> terms = StructureVAELoss()(logits=logits, occupancy=occupancy, mean=posterior.mean, logvar=posterior.logvar)
        >>> sorted(terms.terms)
        ['bce', 'dice', 'kl', 'l1']
    """

    bce: float = 0.0
    l1: float = 0.0
    dice: float = 1.0
    kl: float = 1e-3

    def __post_init__(self) -> None:
        require_weights(self)

    def __call__(
        self,
        *,
        logits: Float[Tensor, "b 1 x y z"],
        occupancy: Bool[Tensor, "b 1 x y z"],
        mean: Float[Tensor, "b c i j k"],
        logvar: Float[Tensor, "b c i j k"],
    ) -> LossTerms:
        """Compare what encoder and decoder gave with what they should have.

        Args:
            logits: (b, 1, x, y, z) of the decoder.   occupancy: (b, 1, x, y, z) bool, the truth.
            mean, logvar: (b, c, i, j, k) of the posterior.
        Returns:
            LossTerms with "bce", "l1", "dice" and "kl", those of weight 0 included.
        Raises:
            ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: no term has a weight.
        """
        where = "StructureVAELoss"
        require_tensor(where, "mean", mean, ("b", "c", "i", "j", "k"), FLOATS)
        require_tensor(where, "logvar", logvar, tuple(mean.shape), FLOATS, hint="As the mean.")
        terms = {
            "bce": structure_bce(logits, occupancy),
            "l1": structure_l1(logits, occupancy),
            "dice": structure_dice(logits, occupancy),
            "kl": kl_divergence(mean.flatten(1), logvar.flatten(1)),
        }
        return weighted(where, terms, {name: getattr(self, name) for name in terms})


def _pair(where: str, logits: Tensor, occupancy: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, half types raised to float32, and occupancy as numbers beside them."""
    require_tensor(where, "logits", logits, CUBE, FLOATS)
    require_flags(where, "occupancy", occupancy, logits)
    values = single(logits)
    return values, occupancy.to(values.dtype)
