"""Pictures of what latents decode to, whatever autoencoder they are of."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.models import SCVAE, DecodedShape, SparseFlexVAE, SparseSDFVAE, StructureVAE, TextureVAE, occupied_cells
from voxgen.models.sc_vae import MaterialContent
from voxgen.render import camera_for_bounds, render_gaussians, render_mesh
from voxgen.representations import GaussianSplats, OVoxel

from .latents import Latent
from .occupancy import boxes

SIZE = 224
"""Pixels a side."""
GREY = (0.75, 0.75, 0.75)
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Drawing:
    """Decodes a latent and draws it.

    Args:
        vae: `StructureVAE`, `SCVAE`, `SparseSDFVAE`, `SparseFlexVAE` or `TextureVAE`.
        shape: for an `SCVAE` of materials, that of the shape on which they lie.
        size: pixels a side.
    """

    vae: nn.Module
    shape: SCVAE[DecodedShape] | None = None
    size: int = SIZE

    @torch.no_grad()
    def __call__(self, latent: Latent, extra: SparseTensor | None = None) -> Tensor:
        """One object seen from above its front: (h, w, 3) in 0..1.

        Args:
            latent: of one object, as the autoencoder reads it: (1, c, x, y, z) or on cells.
            extra: the latent of the shape, as its autoencoder reads it.
        """
        size = self.size
        camera = camera_for_bounds((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), elevation=25, azimuth=35, margin=0.8, width=size, height=size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyResultWarning)  # an untrained flow makes nothing, which the picture shows
            found = self.decode(latent, extra)
        if isinstance(found, GaussianSplats):
            return render_gaussians(found, camera, background=WHITE).color[0].clamp(0, 1)
        shading = "albedo" if self.shape is not None else "pbr"
        return render_mesh(found, camera, supersample=2, normals="flat", shading=shading).color[0]

    def decode(self, latent: Latent, extra: SparseTensor | None = None) -> TriMesh | GaussianSplats:
        """The surface, or Gaussians."""
        if isinstance(self.vae, StructureVAE):
            return boxes([(self.cells(cast(Tensor, latent)), GREY)])
        z = cast(SparseTensor, latent)
        if isinstance(self.vae, SCVAE):
            return self.textured(z, extra) if isinstance(self.vae.content, MaterialContent) else _plain(self.vae.decode(z).ovoxel).to_mesh()
        if isinstance(self.vae, SparseSDFVAE):
            return self.vae.decode(z).sdf.to("cpu").to_mesh()
        if isinstance(self.vae, SparseFlexVAE):
            return self.vae.decode(z).flex.to("cpu").to_mesh()
        return cast(GaussianSplats, cast(TextureVAE, self.vae).decode(z).splats)

    def cells(self, latent: Tensor) -> VoxelGrid:
        """Of an autoencoder of occupancy."""
        grid = occupied_cells(cast(StructureVAE, self.vae).decode(latent)).to("cpu")
        return VoxelGrid.from_sorted(grid.coords, resolution=grid.resolution, batch_size=1)

    def textured(self, z: SparseTensor, extra: SparseTensor | None) -> TriMesh:
        """Materials on the shape that its own latent decodes to."""
        if self.shape is None or extra is None:
            raise ValueError("Drawing: materials lie on a shape; give its autoencoder and its latent.")
        shape = self.shape.decode(extra)
        made: Any = cast("SCVAE[Any]", self.vae).decode(z, guide=shape.logits)
        materials = made.onto(_plain(shape.ovoxel))
        return materials.replace(materials={name: value.clamp(0, 1) for name, value in materials.materials.items()}).to("cpu").to_mesh()


def _plain(ovoxel: OVoxel) -> OVoxel:
    """Without split weights, which nothing trains where there are no render terms: quads are cut by angle."""
    return ovoxel.replace(split_weight=None).to("cpu")
