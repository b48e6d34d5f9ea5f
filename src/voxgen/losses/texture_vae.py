"""The loss that Sparse-Up trains its texture autoencoder with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import RangeError

from .anchoring import mask_bce
from .gaussians import gaussian_opacity, gaussian_volume
from .image import Perceptual, image_l1, perceptual_loss, ssim_loss
from .latent import kl_divergence
from .vae import LossTerms, require_weights, weighted


@dataclass(frozen=True)
class TextureVAELoss:
    """Loss of the texture autoencoder.

    total = l1 · |x − y| + ssim · (1 − SSIM) + lpips · LPIPS + kl · KL + volume · mean product of scales + opacity · mean (o − 1)²
    + mask · Σ_levels BCE. The last is the paper's equation 2, apart from its equation 3; it counts where logits are given.

    Args:
        l1, ssim, lpips, kl, volume, opacity: weights, at least 0. The paper gives none; these are TRELLIS', whose codec it takes, for
            Gaussians of cells of 64³: `GaussianActivation.volume_weight(resolution)` gives `volume` for others.
        mask: weight of the mask's cross-entropy.
        perceptual: the network of the LPIPS term (`lpips_network`); None leaves the term out.
    Raises:
        RangeError: a weight that is negative or not finite.
    Source: Sparse-Up (Xiao et al.), equations 2 and 3; TRELLIS (arXiv 2412.01506), trainer of its Gaussian autoencoder, golden values of
        |x − y|, SSIM and KL. Differences: none.
    Example:
        >>> loss = TextureVAELoss()
        >>> x, z = torch.full((2, 3, 16, 16), 0.5), torch.zeros(4, 8)
        >>> terms = loss(image=x, target=x, scales=torch.full((5, 3), 0.0041), opacities=torch.ones(5), mean=z, logvar=z)
        >>> round(float(terms.total), 7)                                  # volume alone: 1e4 · 0.0041³
        0.0006892
    """

    l1: float = 1.0
    ssim: float = 0.2
    lpips: float = 0.2
    kl: float = 1e-6
    volume: float = 1e4
    opacity: float = 1e-3
    mask: float = 1.0
    perceptual: Perceptual | None = None

    def __post_init__(self) -> None:
        require_weights(self)

    def __call__(
        self,
        *,
        image: Float[Tensor, "v 3 h w"],
        target: Float[Tensor, "v 3 h w"],
        scales: Float[Tensor, "n 3"],
        opacities: Float[Tensor, " n"],
        mean: Float[Tensor, "t c"],
        logvar: Float[Tensor, "t c"],
        mask_logits: Sequence[Float[Tensor, "p 8"]] = (),
        mask_targets: Sequence[Bool[Tensor, "p 8"]] = (),
    ) -> LossTerms:
        """Compare what encoder and decoder gave with what they should have.

        Args:
            image: (v, 3, h, w) of the drawn Gaussians, in [0, 1] nominally.
            target: the true views on the same background (`composite`).
            scales, opacities: of all Gaussians, activated.
            mean, logvar: (t, c) of the posterior.
            mask_logits, mask_targets: one a level, as `mask_bce` takes them; none leaves the term out.
        Returns:
            LossTerms with "l1", "ssim", "lpips" (with a network), "kl", "volume", "opacity" and "mask" (with logits).
        Raises:
            ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: no weight is positive.
        """
        terms = {"l1": image_l1(image, target), "ssim": ssim_loss(image, target)}
        if self.perceptual is not None:
            terms["lpips"] = perceptual_loss(image, target, self.perceptual)
        terms["kl"] = kl_divergence(mean, logvar)
        terms["volume"] = gaussian_volume(scales)
        terms["opacity"] = gaussian_opacity(opacities)
        if mask_logits or mask_targets:
            terms["mask"] = mask_bce(mask_logits, mask_targets)
        return weighted("TextureVAELoss", terms, {name: getattr(self, name) for name in terms})


def composite(rgba: Float[Tensor, "v h w 4"], background: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3 h w"]:
    """Views on a background: rgb · alpha + (1 − alpha) · background.

    Args:
        rgba: (v, h, w, 4) floats, not premultiplied.
        background: (v, 3), one colour a view; TRELLIS draws black or white with equal chance, the same in the picture of the Gaussians.
    Returns:
        (v, 3, h, w). Differentiable.
    Raises:
        ShapeError, DtypeError: tensors that do not fit each other.
    Example:
        >>> composite(torch.zeros(1, 2, 2, 4), torch.ones(1, 3)).mean().item()
        1.0
    """
    require_tensor("composite", "rgba", rgba, ("v", "h", "w", 4), FLOATS)
    require_tensor("composite", "background", background, (len(rgba), 3), FLOATS)
    if not bool(torch.isfinite(background).all()):
        raise RangeError("composite: background must be finite.")
    alpha = rgba[..., 3:]
    return (rgba[..., :3] * alpha + (1 - alpha) * background[:, None, None]).permute(0, 3, 1, 2)
