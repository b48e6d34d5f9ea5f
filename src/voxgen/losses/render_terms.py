"""What a renderer gives to a loss: the interface, the records that cross it, and the terms on rendered maps.

A loss does not render. It takes a `RenderTerms`: a callable that gets the prediction and a `RenderTarget`, draws both from
the same cameras, and returns named terms. `voxgen.models.MeshRenderTerms` and `MaterialRenderTerms` do it with voxgen's renderer.
Whoever has another one writes one in a few lines: render maps, then `shape_view_terms` or `material_view_terms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import RangeError

from .image import Over, Perceptual, ViewMask, image_l1, image_smooth_l1, perceptual_loss, ssim_loss

P = TypeVar("P", contravariant=True)

SHAPE_TERMS = ("mask", "depth", "normal", "normal_ssim", "normal_lpips")
"""Names that `ShapeVAELoss` has a weight for."""
MATERIAL_TERMS = ("base_color_ssim", "base_color_lpips", "surface_ssim", "surface_lpips")
"""Names that `MaterialVAELoss` has a weight for; "surface" is metallic, roughness and alpha as one picture."""


@dataclass(frozen=True, eq=False)
class RenderTarget:
    """What is to be seen, and from where.

    Args:
        cameras: v views; near and far may cut through the objects, as in the published shape losses.
        sample: (v,) int64; view i shows sample `sample[i]` of the batch. The published trainings show each sample once.
        meshes: the true meshes, one a sample, in the frame of the prediction. For materials: with their materials and uv.
        maps: maps that were rendered before, `ShapeMaps` or `MaterialMaps` of v views.
        coverage: (v, h, w) bool, pixels that count; None: all. For predictions that hold only a part of what the views show
            (`carve_by_depth` and `adaptive_zoom` say which).
    Raises:
        RangeError: neither meshes nor maps, or `sample` names a mesh that is not there.   ShapeError, DtypeError: sample is
        not (v,) int64, or coverage not (v, h, w) bool with the camera's pixels.
    """

    cameras: Camera
    sample: Tensor
    meshes: tuple[TriMesh, ...] | None = None
    maps: ShapeMaps | MaterialMaps | None = None
    coverage: Tensor | None = None

    def __post_init__(self) -> None:
        require_tensor("RenderTarget", "sample", self.sample, (len(self.cameras),), (torch.int64,))
        if self.coverage is not None:
            size = (len(self.cameras), self.cameras.height, self.cameras.width)
            require_tensor("RenderTarget", "coverage", self.coverage, size, (torch.bool,))
        if self.meshes is None and self.maps is None:
            raise RangeError("RenderTarget: meshes or maps must be given; got neither.")
        if self.meshes is not None and len(self.sample):
            low, high = int(self.sample.min()), int(self.sample.max())
            if low < 0 or high >= len(self.meshes):
                raise RangeError(f"RenderTarget: sample must lie in [0, {len(self.meshes)}), the meshes; got values from {low} to {high}.")


class RenderTerms(Protocol[P]):
    """Draws a prediction and its target, and says how far they are from each other.

    For a shape, the prediction is a `Sequence[TriMesh]`: the training mesh of each sample (`OVoxel.to_mesh(training=True)`
    with the true flags, as published), in world units, with vertices that carry the graph. A sample's mesh may have no face:
    its maps are then background (mask 0, depth 0, normal 0.5), which costs and has no gradient.
    For a material, the prediction is a `SparseTensor` with 6 channels in [−1, 1] on the voxels of the batch.

    Returns a dict of scalars by name, unweighted, differentiable in the prediction. Terms may be left out, others than the
    loss knows (`SHAPE_TERMS`, `MATERIAL_TERMS`) may not be added. With no view each term must be 0.
    """

    def __call__(self, prediction: P, target: RenderTarget, /) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, eq=False)
class ShapeMaps:
    """What v views see of a shape.

    Args:
        mask: (v, 1, h, w) coverage in [0, 1].
        depth: (v, 1, h, w) z in camera space, world units, background 0.
        normal: (v, 3, h, w) face normals in camera space, turned towards the camera, as (n + 1) / 2; background 0.5.
    Raises:
        ShapeError, DtypeError: maps that do not fit each other.
    """

    mask: Tensor
    depth: Tensor
    normal: Tensor

    def __post_init__(self) -> None:
        require_tensor("ShapeMaps", "mask", self.mask, ("v", 1, "h", "w"), FLOATS)
        v, _, h, w = self.mask.shape
        require_tensor("ShapeMaps", "depth", self.depth, (v, 1, h, w), FLOATS)
        require_tensor("ShapeMaps", "normal", self.normal, (v, 3, h, w), FLOATS)


@dataclass(frozen=True, eq=False)
class MaterialMaps:
    """What v views see of a material, unlit; zero where no surface is.

    Args:
        base_color: (v, 3, h, w) in [0, 1], sRGB-encoded.
        surface: (v, 3, h, w) in [0, 1]: metallic, roughness, alpha.
    Raises:
        ShapeError, DtypeError: maps that do not fit each other.
    """

    base_color: Tensor
    surface: Tensor

    def __post_init__(self) -> None:
        require_tensor("MaterialMaps", "base_color", self.base_color, ("v", 3, "h", "w"), FLOATS)
        require_tensor("MaterialMaps", "surface", self.surface, tuple(self.base_color.shape), FLOATS)


def shape_view_terms(
    prediction: ShapeMaps,
    target: ShapeMaps,
    perceptual: Perceptual | None = None,
    *,
    coverage: ViewMask | None = None,
    within_target: bool = False,
    depth_beta: float | None = None,
) -> dict[str, Tensor]:
    """The published render terms of a shape from rendered maps. The defaults are those of TRELLIS.2.

    Args:
        prediction, target: maps of the same views.
        perceptual: network of the LPIPS term; None leaves it out.
        coverage: (v, h, w) bool, pixels that count, in all terms; means are then over these pixels (the network's distance is
            of pictures that are black elsewhere). None: all.
        within_target: multiply depths and normals of both by the target's mask before, as TRELLIS, TripoSF and Focusing do: what
            lies beside the target costs in "mask" only.
        depth_beta: depths by `image_smooth_l1` with this beta instead of `image_l1`; TRELLIS takes 1 / (2 resolution).
    Returns:
        "mask", "depth", "normal": mean differences; "normal_ssim": 1 − SSIM; "normal_lpips". Unweighted scalars.
    Raises:
        ShapeError, DtypeError, DeviceError: maps that do not fit each other.   RangeError: depth_beta is not positive.
    Source: TRELLIS.2 (arXiv 2512.14692), shape SC-VAE; TRELLIS (arXiv 2412.01506), mesh decoder. Differences: `coverage`.
    """
    over: Over = "image" if coverage is None else "mask"
    depths, normals = (prediction.depth, target.depth), (prediction.normal, target.normal)
    if within_target:
        share = target.mask.detach()
        depths, normals = (depths[0] * share, depths[1] * share), (normals[0] * share, normals[1] * share)
    if depth_beta is None:
        depth = image_l1(*depths, mask=coverage, over=over)
    else:
        depth = image_smooth_l1(*depths, beta=depth_beta, mask=coverage, over=over)
    terms = {
        "mask": image_l1(prediction.mask, target.mask, mask=coverage, over=over),
        "depth": depth,
        "normal": image_l1(*normals, mask=coverage, over=over),
        "normal_ssim": ssim_loss(*normals, mask=coverage, over=over),
    }
    if perceptual is not None:
        terms["normal_lpips"] = perceptual_loss(*normals, perceptual, mask=coverage)
    return terms


def material_view_terms(
    prediction: MaterialMaps, target: MaterialMaps, perceptual: Perceptual | None = None, *, coverage: ViewMask | None = None
) -> dict[str, Tensor]:
    """The published render terms of the material SC-VAE from rendered maps; arguments and errors as `shape_view_terms`.

    Returns:
        "base_color_ssim", "surface_ssim": 1 − SSIM; "base_color_lpips", "surface_lpips". Unweighted scalars.
    Source: TRELLIS.2 (arXiv 2512.14692), material SC-VAE; its code compares unlit maps and has no absolute difference.
    """
    terms = {}
    over: Over = "image" if coverage is None else "mask"
    for name in ("base_color", "surface"):
        seen, wanted = getattr(prediction, name), getattr(target, name)
        terms[f"{name}_ssim"] = ssim_loss(seen, wanted, mask=coverage, over=over)
        if perceptual is not None:
            terms[f"{name}_lpips"] = perceptual_loss(seen, wanted, perceptual, mask=coverage)
    return terms
