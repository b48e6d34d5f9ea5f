"""gsplat's CUDA kernels (nerfstudio-project/gsplat, 1.5), where they are installed. Written to its documented signatures, not run.

The image is not drawn by `gsplat.rasterization`, which takes the clamp of the Jacobian from the size of what it draws. Projection
gets the full image, and its spots are moved before tiles are listed, so a crop is what the full image has there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._view import View

TILE = 16


def splat(means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """See `_reference.splat`; computes in float32. A Gaussian exactly at the far plane is dropped."""
    import gsplat  # pyright: ignore[reportMissingImports]

    left, top, width, height = view.crop
    nothing = features.sum() * 0 + means.sum() * 0
    if len(means) == 0:
        return nothing.expand(height, width, features.shape[1]), nothing.expand(height, width)
    pose = torch.eye(4, device=means.device)
    pose[:3, :3], pose[:3, 3] = view.rotation.float(), view.translation.float()
    radii, position, depth, conic, compensation = gsplat.fully_fused_projection(
        means.float(),
        None,
        rotations.float(),
        scales.float(),
        pose[None],
        view.intrinsics.float()[None],
        *view.size,
        eps2d=view.preset.blur,
        near_plane=view.near,
        far_plane=view.far,
        packed=False,
        calc_compensations=view.preset.compensation != "none",
        camera_model="ortho" if view.orthographic else "pinhole",
    )
    opacity = opacities.float()[None]
    if compensation is not None:
        opacity = opacity * compensation
    position = position - position.new_tensor((left, top))
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    _, pairs, flat = gsplat.isect_tiles(position.detach(), radii, depth.detach(), TILE, tiles_x, tiles_y, packed=False)
    starts = gsplat.isect_offset_encode(pairs, 1, tiles_x, tiles_y)
    image, alpha = gsplat.rasterize_to_pixels(
        position, conic, features.float()[None], opacity, width, height, TILE, starts, flat, packed=False
    )
    return image[0].double(), alpha[0, ..., 0].double()
