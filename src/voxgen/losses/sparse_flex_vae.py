"""The loss that Focusing trains the SparseFlex autoencoder with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.cube_corners import CubeCorners, corner_neighbors
from voxgen.ops.flexicubes import FlexSurface

from .dual_grid import subdivision_bce
from .latent import kl_divergence
from .render_terms import SHAPE_TERMS, RenderTarget, RenderTerms
from .sparse_flex import flex_consistency, flex_deviation, flex_weights, sparse_total_variation
from .tsdf import tsdf_l1
from .vae import LossTerms, require_render_terms, require_weights, weighted

CHANNELS = 53
WEIGHTS = slice(32, 52)
"""Channels of beta and alpha among the 53."""


@dataclass(frozen=True)
class SparseFlexVAELoss:
    """Loss of the SparseFlex autoencoder.

    total = L_render + occupancy · L_occ + kl · L_KL + L_flex + tv · L_tv + tsdf · L_tsdf, where
    L_render = mask · |mask| + depth · |depth| + normal · |normal| + normal_ssim · (1 − SSIM) + normal_lpips · LPIPS, from `render`,
    L_flex = flex_consistency · con + flex_deviation · L_dev + flex_weights · |raw α, β|, and L_tsdf counts in the first `warm_up` steps.

    Args:
        mask, depth, normal, normal_ssim, normal_lpips: TRELLIS' weights. Its depth term is smooth (β = half a voxel), Focusing's is not:
            `MeshRenderTerms.trellis(depth_beta=...)`.
        occupancy: not published; 1.
        kl: mean over channels, of all latents, also those that were carved away.
        flex_consistency, flex_deviation, flex_weights: TRELLIS' L_flex.
        tv: of `sparse_total_variation`: mean over corners, differences over the voxel size. The paper gives 0.001 and leaves the unit out.
        tsdf: of `tsdf_l1` in voxels; 1 as published.
        warm_up: steps with the tsdf term: 12,000 of 40,000.
        render: gives the render terms; see `RenderTerms`. None: none, which is what a warm-up alone needs.
    Raises:
        RangeError: a weight that is negative or not finite, a warm-up below 0.
    Source: Focusing, Eq. (7), "weights as in TRELLIS" (arXiv 2412.01506, mesh decoder; KL of its autoencoder). Differences: what the paper
        leaves out is chosen as said above.
    Example:
        >>> loss = SparseFlexVAELoss(render=MeshRenderTerms.trellis())
        >>> field = decoded.prediction()
        >>> target = geometric_tsdf(field.flex.positions, mesh, 3 / 256)
        >>> terms = loss(
        ...     step=0, mean=latent.posterior.mean.feats, logvar=latent.posterior.logvar, corners=field.flex.corners, voxel_size=1 / 256,
        ...     at_cells=field.at_cells, at_corners=field.at_corners, feats=decoded.features.feats, tsdf=target,
        ...     surface=(surface := field.flex.surface(training=True)), meshes=surface.to_meshes(), views=views,
        ... )
        >>> terms.total.backward()
    """

    mask: float = 1.0
    depth: float = 10.0
    normal: float = 1.0
    normal_ssim: float = 0.2
    normal_lpips: float = 0.2
    occupancy: float = 1.0
    kl: float = 1e-6
    flex_consistency: float = 1.0
    flex_deviation: float = 0.5
    flex_weights: float = 0.2
    tv: float = 1e-3
    tsdf: float = 1.0
    warm_up: int = 12_000
    render: RenderTerms[Sequence[TriMesh]] | None = None

    def __post_init__(self) -> None:
        require_int("SparseFlexVAELoss", "warm_up", self.warm_up, 0)
        require_weights(self)

    def __call__(
        self,
        *,
        step: int,
        mean: Float[Tensor, "t c"],
        logvar: Float[Tensor, "t c"],
        corners: CubeCorners,
        voxel_size: float,
        at_cells: Float[Tensor, "n 8 4"],
        at_corners: Float[Tensor, "m 4"],
        feats: Float[Tensor, "n 53"],
        surface: FlexSurface | None = None,
        tsdf: Float[Tensor, " m"] | None = None,
        tsdf_known: Bool[Tensor, " m"] | None = None,
        occupancy_logits: Sequence[Float[Tensor, "p 8"]] = (),
        occupancies: Sequence[Bool[Tensor, "p 8"]] = (),
        meshes: Sequence[TriMesh] | None = None,
        views: RenderTarget | None = None,
    ) -> LossTerms:
        """Compare what encoder and decoder gave with what they should have.

        Args:
            step: of the training, from 0.
            mean, logvar: (t, c) of the posterior, of all latents.
            corners: of the decoded grid.   voxel_size: its cells, world units.
            at_cells, at_corners: (n, 8, 4), (m, 4): value (world units) and raw displacement, of `SparseFlex.predict`.
            feats: (n, 53) raw.
            surface: extracted for training, for its deviation; None leaves that out.
            tsdf, tsdf_known: (m,) target of the values at the corners, and which of them count (None: all); needed in the warm-up.
            occupancy_logits, occupancies: (p, 8) a level, coarse to fine, and which children hold surface.
            meshes: predicted training meshes, one a sample.   views: the target. Both are needed with `render`.
        Returns:
            LossTerms with "occupancy_0", ..., "kl", "flex_consistency", "flex_deviation", "flex_weights", "tv", "tsdf" (in the warm-up) and
            the render terms.
        Raises:
            ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: something that the warm-up or `render`
            needs is missing, `render` gave a term of unknown name, or no term has a weight.
        """
        where = "SparseFlexVAELoss"
        require_int(where, "step", step, 0)
        require_tensor(where, "feats", feats, (len(at_cells), CHANNELS), FLOATS)
        require_tensor(where, "at_corners", at_corners, (len(corners), 4), FLOATS)
        levels = subdivision_bce(occupancy_logits, occupancies)
        sdf = at_corners[:, 0]
        terms = {
            **{f"occupancy_{i}": level for i, level in enumerate(levels.unbind())},
            "kl": kl_divergence(mean, logvar),
            "flex_consistency": flex_consistency(at_cells, corners, at_corners),
            "flex_weights": flex_weights(feats[:, WEIGHTS]),
            "tv": sparse_total_variation(sdf, corner_neighbors(corners), voxel_size=voxel_size),
        }
        if surface is not None:
            terms["flex_deviation"] = flex_deviation(surface)
        if step < self.warm_up and self.tsdf > 0:
            if tsdf is None:
                raise RangeError(f"{where}: in the first {self.warm_up} steps tsdf must be given, this is step {step}; or set warm_up=0.")
            terms["tsdf"] = tsdf_l1(sdf, tsdf, tsdf_known, voxel_size=voxel_size)
        if self.render is not None:
            if meshes is None or views is None:
                raise RangeError(f"{where}: with render, meshes and views must be given.")
            terms |= require_render_terms(where, self.render(meshes, views), SHAPE_TERMS)
        return weighted(where, terms, {name: self.occupancy if name.startswith("occupancy") else getattr(self, name) for name in terms})
