"""Render terms of losses with voxgen's renderer: what predicted shapes and materials look like against the true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from voxgen.core import SparseTensor, TriMesh
from voxgen.core.checks import require_choice, require_int, require_tensor
from voxgen.core.errors import DtypeError, RangeError
from voxgen.losses import MaterialMaps, Perceptual, RenderTarget, ShapeMaps, material_view_terms, shape_view_terms
from voxgen.ops.sample import sample_trilinear
from voxgen.render import GeometryMaps, MaterialImages, render_geometry, render_materials


def shape_maps(maps: GeometryMaps) -> ShapeMaps:
    """Maps of `render_geometry` in the layout of the losses: channels first, normals as (n + 1) / 2."""
    return ShapeMaps(maps.mask[:, None], maps.depth[:, None], (maps.normal.permute(0, 3, 1, 2) + 1) / 2)


@dataclass(frozen=True, eq=False)
class MeshRenderTerms:
    """Render terms of a shape: draws predicted and true meshes from the same cameras, with the same clip planes, and compares them.

    A `RenderTerms[Sequence[TriMesh]]` for `ShapeVAELoss` and other losses on rendered shapes. The defaults are TRELLIS.2's;
    `MeshRenderTerms.trellis()` has those of TRELLIS, TripoSF and Focusing. True maps are drawn without gradient.

    Args:
        perceptual: network of the LPIPS term (`lpips_network()`), on the meshes' device; None leaves the term out.
        face_camera: whose normals are turned to the eye: of "both" (predictions whose winding says nothing) or of the "target" alone
            (predictions that are oriented, by a signed field).
        normal_space: axes of the normals that are compared.
        within_target, depth_beta: as in `shape_view_terms`.
        supersample: samples along each side of a pixel, for both.
        outline_walk, max_faces: as in `render_geometry`; outline_walk=0 is the published antialiasing.
        backend: engine of `rasterize`.
    Raises:
        RangeError, DtypeError: an option out of range.
    Example:
        >>> loss = ShapeVAELoss(render=MeshRenderTerms())
        >>> views = RenderTarget(random_cameras(len(meshes), width=256, height=256), torch.arange(len(meshes)), meshes=meshes)
    """

    perceptual: Perceptual | None = None
    face_camera: Literal["both", "target"] = "both"
    normal_space: Literal["world", "camera"] = "camera"
    within_target: bool = False
    depth_beta: float | None = None
    supersample: int = 1
    outline_walk: int = 32
    max_faces: int = 10_000_000
    backend: str = "auto"

    def __post_init__(self) -> None:
        where = "MeshRenderTerms"
        require_choice(where, "face_camera", self.face_camera, ("both", "target"))
        require_choice(where, "normal_space", self.normal_space, ("world", "camera"))
        require_int(where, "supersample", self.supersample, 1, 16)
        require_int(where, "outline_walk", self.outline_walk, 0, 64)
        require_int(where, "max_faces", self.max_faces, 1)
        if self.depth_beta is not None and not 0 < self.depth_beta < math.inf:
            raise RangeError(f"{where}: depth_beta must be positive, or None for the absolute difference; got {self.depth_beta}.")

    @staticmethod
    def trellis(perceptual: Perceptual | None = None, *, resolution: int | None = None, supersample: int = 1) -> MeshRenderTerms:
        """The terms of TRELLIS' mesh decoder, which TripoSF and Focusing take over: normals in world axes, predictions as they are wound,
        depths and normals inside the target only.

        Args:
            perceptual, supersample: as for the class.
            resolution: of the surface's voxels: depths by smooth L1 with β = 1 / (2 resolution), as TRELLIS trains. None: L1, as
                Focusing says.
        """
        beta = None if resolution is None else 1 / (2 * require_int("MeshRenderTerms.trellis", "resolution", resolution, 1))
        return MeshRenderTerms(perceptual, "target", "world", True, beta, supersample)

    def render(self, meshes: Sequence[TriMesh], target: RenderTarget, *, is_target: bool) -> ShapeMaps:
        """The maps of `meshes` from the target's cameras, as the terms compare them."""
        maps = render_geometry(
            meshes,
            target.cameras,
            sample=target.sample,
            normal_space=self.normal_space,
            face_camera=is_target or self.face_camera == "both",
            supersample=self.supersample,
            outline_walk=self.outline_walk,
            max_faces=self.max_faces,
            backend=self.backend,
        )
        return shape_maps(maps)

    def __call__(self, prediction: Sequence[TriMesh], target: RenderTarget, /) -> dict[str, Tensor]:
        """The terms of `shape_view_terms`.

        Args:
            prediction: a mesh for each sample of the batch, with vertices that carry the graph; meshes may be empty.
            target: the views; its maps, if there are any, are taken instead of rendering its meshes. Its coverage counts.
        Raises:
            As `render_geometry`.   DtypeError: maps of materials.
        """
        if target.maps is not None and not isinstance(target.maps, ShapeMaps):
            raise DtypeError(f"MeshRenderTerms: target.maps must be ShapeMaps; got {type(target.maps).__name__}.")
        wanted = target.maps
        if wanted is None:
            with torch.no_grad():
                wanted = self.render(target.meshes or (), target, is_target=True)
        return shape_view_terms(
            self.render(prediction, target, is_target=False),
            wanted,
            self.perceptual,
            coverage=target.coverage,
            within_target=self.within_target,
            depth_beta=self.depth_beta,
        )


@dataclass(frozen=True, eq=False)
class MaterialRenderTerms:
    """Render terms of a material on voxels: draws it, unlit, on the true mesh, and compares it with the mesh's own textures.

    A `RenderTerms[SparseTensor]` for `MaterialVAELoss`. Each pixel reads the prediction, trilinearly, where it sees the true
    surface. True maps are drawn without gradient; geometry has none here.

    Args:
        perceptual: network of the LPIPS terms, on the prediction's device; None leaves them out.
        backend: engine of `rasterize`.
    Source: TRELLIS.2 (arXiv 2512.14692), material SC-VAE, second stage.
    """

    perceptual: Perceptual | None = None
    backend: str = "auto"

    def __call__(self, prediction: SparseTensor, target: RenderTarget, /) -> dict[str, Tensor]:
        """The terms of `material_view_terms`.

        Args:
            prediction: 6 channels in [−1, 1]: base colour (sRGB-encoded), metallic, roughness, alpha, as `OVoxel.material_tensor`
                gives them, in the frame of the meshes.
            target: views with the true meshes; its maps, if there are any, are taken instead of the meshes' textures.
        Raises:
            As `render_materials`.   ShapeError: prediction has not 6 channels.   RangeError: no meshes, or a view of a sample that the
            prediction does not have.   DtypeError: maps of shapes.
        """
        where = "MaterialRenderTerms"
        require_tensor(where, "prediction.feats", prediction.feats, (len(prediction), 6), hint="Base colour, metallic, roughness, alpha.")
        if target.meshes is None:
            raise RangeError(f"{where}: target.meshes must be there, because the material is read on their surface; got None.")
        if target.maps is not None and not isinstance(target.maps, MaterialMaps):
            raise DtypeError(f"{where}: target.maps must be MaterialMaps; got {type(target.maps).__name__}.")
        samples = prediction.grid.batch_size
        if len(target.sample) and int(target.sample.max()) >= samples:
            raise RangeError(
                f"{where}: target.sample must name some of the prediction's {samples} samples; got {int(target.sample.max())}."
            )
        with torch.no_grad():
            images = render_materials(target.meshes, target.cameras, sample=target.sample, backend=self.backend)
            wanted = target.maps or MaterialMaps(
                images.base_color.permute(0, 3, 1, 2), torch.stack((images.metallic, images.roughness, images.alpha), 1)
            )
        return material_view_terms(_read(prediction, images, target.sample), wanted, self.perceptual, coverage=target.coverage)


def _read(prediction: SparseTensor, images: MaterialImages, sample: Tensor) -> MaterialMaps:
    """The prediction where each pixel sees the surface; zero elsewhere."""
    seen = images.mask.flatten().nonzero()[:, 0]
    points = prediction.grid.frame.to_index(images.position.reshape(-1, 3)[seen])
    batch = sample.to(seen.device)[seen // images.mask[0].numel()] if len(seen) else seen
    feats = prediction.feats if prediction.dtype == torch.float64 else prediction.feats.float()
    values = (sample_trilinear(feats, prediction.grid, points, batch) + 1) / 2
    full = values.new_zeros(images.mask.numel(), 6).index_copy(0, seen, values)
    full = full.reshape(*images.mask.shape, 6).permute(0, 3, 1, 2)
    return MaterialMaps(full[:, :3], full[:, 3:])
