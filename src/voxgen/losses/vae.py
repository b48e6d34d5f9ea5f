"""The losses of TRELLIS.2's sparse-compression VAEs: named terms, published weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core import SparseTensor, TriMesh
from voxgen.core.aliases import Offsets
from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, RangeError

from .dual_grid import crossing_bce, dual_vertex_mse, subdivision_bce
from .latent import kl_divergence
from .material import material_l1
from .render_terms import MATERIAL_TERMS, SHAPE_TERMS, RenderTarget, RenderTerms


@dataclass(frozen=True, eq=False)
class LossTerms:
    """A loss and what it is made of.

    Attributes:
        total: scalar to call `backward` on: the weighted sum.
        terms: unweighted scalars by name, with their graph. Terms of weight 0 are listed and not in the total.
    """

    total: Tensor
    terms: Mapping[str, Tensor]

    def numbers(self) -> dict[str, float]:
        """ "total" and all terms as plain numbers, for logs. Waits for the GPU."""
        return {"total": float(self.total.detach()), **{name: float(term.detach()) for name, term in self.terms.items()}}


@dataclass(frozen=True)
class SampleBounds:
    """Where the samples of a batch begin and end in each packed tensor, for losses in which each sample counts the same.

    Args:
        latent: (b + 1,) int64 bounds among the latent's tokens.
        cells: (b + 1,) int64 bounds among the voxels.
        levels: one (b + 1,) int64 a level of the upsampling, coarse to fine: bounds among its parents.
    """

    latent: Offsets
    cells: Offsets
    levels: Sequence[Offsets] = ()


@dataclass(frozen=True)
class ShapeVAELoss:
    """Loss of the shape SC-VAE.

    total = crossing · BCE(flags) + dual_vertex · MSE(dual vertices) + subdivision · Σ_levels BCE(children) + kl · KL
    + mask · |mask| + depth · |depth| + normal · |normal| + normal_ssim · (1 − SSIM) + normal_lpips · LPIPS.
    The second line comes from `render` and is 0 without it. The weights below are the published ones, which count on the
    render terms: without these raise `dual_vertex` (to 1 or more), or the vertices hardly move.

    Args:
        crossing, dual_vertex, subdivision, kl, mask, depth, normal, normal_ssim, normal_lpips: weights, at least 0.
        per_sample: each sample counts the same in all means, instead of each voxel; needs `bounds` in the call. The original
            has no such option: there a sample with many voxels outweighs the others of its batch.
        render: gives the render terms: `voxgen.models.MeshRenderTerms()`, or another `RenderTerms`.
    Raises:
        RangeError: a weight that is negative or not finite.
    Source: TRELLIS.2 (arXiv 2512.14692), training code, both stages. The paper adds the render terms in the second stage
        only; the code has them in both. Differences: `per_sample`.
    Example:
        >>> loss = ShapeVAELoss(dual_vertex=1.0)
        >>> n, t = 6, 2
        >>> result = loss(
        ...     crossing_logits=torch.zeros(n, 3), dual_vertices=torch.zeros(n, 3), subdivision_logits=[torch.zeros(t, 8)],
        ...     mean=torch.zeros(t, 4), logvar=torch.zeros(t, 4), crossings=torch.ones(n, 3, dtype=torch.bool),
        ...     target_vertices=torch.full((n, 3), 0.5), subdivisions=[torch.ones(t, 8, dtype=torch.bool)],
        ... )
        >>> {name: round(value, 4) for name, value in result.numbers().items()}
        {'total': 0.3886, 'crossing': 0.6931, 'dual_vertex': 0.25, 'subdivision_0': 0.6931, 'kl': 0.0}
    """

    crossing: float = 0.1
    dual_vertex: float = 0.01
    subdivision: float = 0.1
    kl: float = 1e-6
    mask: float = 1.0
    depth: float = 10.0
    normal: float = 1.0
    normal_ssim: float = 0.2
    normal_lpips: float = 0.2
    per_sample: bool = False
    render: RenderTerms[Sequence[TriMesh]] | None = None

    def __post_init__(self) -> None:
        require_weights(self)

    def __call__(
        self,
        *,
        crossing_logits: Float[Tensor, "n 3"],
        dual_vertices: Float[Tensor, "n 3"],
        subdivision_logits: Sequence[Float[Tensor, "p 8"]],
        mean: Float[Tensor, "t c"],
        logvar: Float[Tensor, "t c"],
        crossings: Bool[Tensor, "n 3"],
        target_vertices: Float[Tensor, "n 3"],
        subdivisions: Sequence[Bool[Tensor, "p 8"]],
        bounds: SampleBounds | None = None,
        meshes: Sequence[TriMesh] | None = None,
        views: RenderTarget | None = None,
    ) -> LossTerms:
        """Compare what encoder and decoder gave with what they should have.

        Args:
            crossing_logits, dual_vertices: (n, 3) of the decoder's head, decoded on the true structure.
            subdivision_logits: (p, 8) a level, coarse to fine.
            mean, logvar: (t, c) of the posterior.
            crossings, target_vertices: (n, 3) of the true O-Voxel, rows as the decoder's.
            subdivisions: (p, 8) bool a level: which children exist (`Structure.mask()`).
            bounds: of the samples; needed with `per_sample`.
            meshes: predicted training meshes, one a sample.   views: the target. Both are needed with `render`.
        Returns:
            LossTerms with "crossing", "dual_vertex", "subdivision_0", "subdivision_1", ..., "kl" and the render terms.
        Raises:
            ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: something that
            `per_sample` or `render` needs is missing, `render` gave a term of unknown name, or no term has a weight.
        """
        where = "ShapeVAELoss"
        own = require_bounds(where, self.per_sample, bounds)
        levels = subdivision_bce(subdivision_logits, subdivisions, own.levels if own else None)
        terms = {
            "crossing": crossing_bce(crossing_logits, crossings, own.cells if own else None),
            "dual_vertex": dual_vertex_mse(dual_vertices, target_vertices, own.cells if own else None),
            **{f"subdivision_{i}": level for i, level in enumerate(levels.unbind())},
            "kl": kl_divergence(mean, logvar, own.latent if own else None),
        }
        weights = {name: self.subdivision if name.startswith("subdivision") else getattr(self, name) for name in terms}
        if self.render is not None:
            if meshes is None or views is None:
                raise RangeError(f"{where}: with render, meshes and views must be given.")
            drawn = require_render_terms(where, self.render(meshes, views), SHAPE_TERMS)
            terms |= drawn
            weights |= {name: getattr(self, name) for name in drawn}
        return weighted(where, terms, weights)


@dataclass(frozen=True)
class MaterialVAELoss:
    """Loss of the material SC-VAE.

    total = l1 · |x − y| + kl · KL, in the first stage; the second adds render terms:
    + base_color_ssim · (1 − SSIM) + base_color_lpips · LPIPS on the base colour, and the same (surface_*) on metallic,
    roughness and alpha as one picture.

    Args:
        l1, kl, base_color_ssim, base_color_lpips, surface_ssim, surface_lpips: weights, at least 0; the published ones.
        per_sample: each sample counts the same, instead of each voxel; needs `bounds` in the call. Not in the original.
        render: gives the render terms of the second stage: `voxgen.models.MaterialRenderTerms()`, or another `RenderTerms`. None:
            first stage.
    Raises:
        RangeError: a weight that is negative or not finite.
    Source: TRELLIS.2 (arXiv 2512.14692). Differences: `per_sample`.
    Example:
        >>> x, z = torch.zeros(6, 6), torch.zeros(2, 4)
        >>> float(MaterialVAELoss()(prediction=SparseTensor(grid, x), target=x + 0.5, mean=z, logvar=z).total)
        0.5
    """

    l1: float = 1.0
    kl: float = 1e-6
    base_color_ssim: float = 0.2
    base_color_lpips: float = 0.2
    surface_ssim: float = 0.2
    surface_lpips: float = 0.2
    per_sample: bool = False
    render: RenderTerms[SparseTensor] | None = None

    def __post_init__(self) -> None:
        require_weights(self)

    def __call__(
        self,
        *,
        prediction: SparseTensor,
        target: Float[Tensor, "n c"],
        mean: Float[Tensor, "t k"],
        logvar: Float[Tensor, "t k"],
        bounds: SampleBounds | None = None,
        views: RenderTarget | None = None,
    ) -> LossTerms:
        """Compare what encoder and decoder gave with what they should have.

        Args:
            prediction: (n cells, c) of the decoder, in [−1, 1] nominally.
            target: (n, c), rows as the prediction's: `OVoxel.material_tensor().feats`.
            mean, logvar: (t, k) of the posterior.
            bounds: of the samples; needed with `per_sample` (its levels are not read).
            views: the target of the render terms; needed with `render`.
        Returns:
            LossTerms with "l1", "kl" and the render terms.
        Raises: as `ShapeVAELoss`.
        """
        where = "MaterialVAELoss"
        own = require_bounds(where, self.per_sample, bounds)
        terms = {
            "l1": material_l1(prediction.feats, target, own.cells if own else None),
            "kl": kl_divergence(mean, logvar, own.latent if own else None),
        }
        if self.render is not None:
            if views is None:
                raise RangeError(f"{where}: with render, views must be given.")
            terms |= require_render_terms(where, self.render(prediction, views), MATERIAL_TERMS)
        return weighted(where, terms, {name: getattr(self, name) for name in terms})


def require_weights(loss: Any) -> None:
    for field in fields(loss):
        value = getattr(loss, field.name)
        if field.name not in ("per_sample", "render", "perceptual") and not (math.isfinite(value) and value >= 0):
            raise RangeError(f"{type(loss).__name__}: {field.name} must be a finite weight, at least 0; got {value}.")


def require_bounds(where: str, per_sample: bool, bounds: SampleBounds | None) -> SampleBounds | None:
    if per_sample and bounds is None:
        raise RangeError(f"{where}: with per_sample=True, bounds must say where the samples begin and end; got None.")
    return bounds if per_sample else None


def require_render_terms(where: str, terms: Mapping[str, Tensor], known: Sequence[str]) -> dict[str, Tensor]:
    for name, term in terms.items():
        if name not in known:
            raise RangeError(f"{where}: render must give terms among {', '.join(known)}; got {name!r}.")
        if not isinstance(term, Tensor) or term.ndim != 0:
            raise DtypeError(f"{where}: render must give scalars; got {name} = {describe(term)}.")
    return dict(terms)


def weighted(where: str, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> LossTerms:
    counted = [weights[name] * term for name, term in terms.items() if weights[name] != 0]  # 0 · inf is NaN
    if not counted:
        raise RangeError(f"{where}: at least one of the terms {', '.join(terms)} must have a positive weight.")
    return LossTerms(torch.stack(counted).sum(), dict(terms))
