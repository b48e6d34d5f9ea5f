"""Pictures of an asset for models that are conditioned on images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.aliases import Float3
from voxgen.core.checks import require_int, require_tensor
from voxgen.core.errors import RangeError
from voxgen.core.material import linear_to_srgb
from voxgen.render import Lighting, random_cameras, render_mesh
from voxgen.render.shading import soft_clip


@dataclass(frozen=True, eq=False)
class ConditionImages:
    """v pictures of one asset and from where they were taken.

    Args:
        images: (v, h, w, 4) uint8: sRGB-encoded red, green, blue, not multiplied by the fourth, which is opacity; (0, 0, 0, 0) where
            nothing is seen.
        camera: v views of h × w pixels.
    Raises:
        ShapeError, DtypeError: images is not (v, h, w, 4) uint8 with v, h and w those of the camera.
    """

    images: Tensor
    camera: Camera

    def __post_init__(self) -> None:
        size = (len(self.camera), self.camera.height, self.camera.width, 4)
        require_tensor("ConditionImages", "images", self.images, size, (torch.uint8,), hint="One image a view of the camera.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, views: int | slice | Tensor) -> ConditionImages:
        """Some of the views."""
        pick = slice(views, views + 1 or None) if isinstance(views, int) else views
        return ConditionImages(self.images[pick], self.camera[pick])

    @property
    def silhouettes(self) -> Tensor:
        """(v, h, w) float32 in [0, 1]: the share of each pixel that the asset covers, times its opacity."""
        return self.images[..., 3].float() / 255

    def over(self, background: Float3 = (0.0, 0.0, 0.0)) -> Tensor:
        """(v, 3, h, w) float32 in [0, 1], as image encoders take them: over a colour, mixed as stored (in sRGB).

        Raises:
            RangeError: background is not three numbers in [0, 1].
        """
        if len(background) != 3 or not all(0 <= c <= 1 for c in background):
            raise RangeError(f"ConditionImages.over: background must be three numbers in [0, 1]; got {background}.")
        pixels = self.images.float() / 255
        alpha = pixels[..., 3:]
        return (pixels[..., :3] * alpha + (1 - alpha) * torch.tensor(background)).permute(0, 3, 1, 2).contiguous()


def condition_images(
    mesh: TriMesh,
    count: int,
    *,
    size: int = 256,
    azimuth: tuple[float, float] = (-75.0, 75.0),
    elevation: tuple[float, float] = (-5.0, 45.0),
    fov: float | tuple[float, float] = (10.0, 70.0),
    lighting: Lighting | None = None,
    supersample: int = 1,
    generator: Generator | None = None,
) -> ConditionImages:
    """Render an asset in the unit cube from random sides, as the flows that are conditioned on images see it in training.

    The eye stands where the sphere around the unit cube touches the border of the image: at (√3 / 2) / sin(fov / 2), and the field of
    view is drawn so that 1 / distance² is spread evenly.

    Args:
        mesh: in the cube [-0.5, 0.5]³; what is outside may be cut off by the image.
        count: number of views, at least 1.
        size: width and height in pixels.
        azimuth: degrees, the smaller end first: 0 looks at the front (+z where y is up), 90 from +x. (-180, 180): all around.
        elevation: degrees above the horizon, the smaller end first. Directions are spread evenly by area.
        fov: full field of view in degrees, or a range.
        lighting: None takes `Lighting()`, whose lights move with the camera.
        supersample: s × s samples a pixel.
        generator: on the CPU; the same state gives the same pictures. None takes torch's.
    Returns:
        ConditionImages on the CPU. Not differentiable.
    Raises:
        MeshError: no faces, or a vertex that is not finite.   RangeError, DtypeError: a count, size, angle or field of view out of range.
    Source: TRELLIS.2's condition images: fov 10 to 70°, all around, path-traced with 1024² pixels. Here they are rasterised, and by default
        from the front, since small models learn that sooner.
    Example:
        >>> condition_images(procedural_asset(0).mesh, 4, size=128).images.shape
        torch.Size([4, 128, 128, 4])
    """
    where = "condition_images"
    count, size = require_int(where, "count", count, 1), require_int(where, "size", size, 1)
    mesh.validate(where)
    camera = random_cameras(
        count,
        radius=None,
        fov=fov,
        sampling="uniform",
        azimuth=azimuth,
        elevation=elevation,
        up=mesh.up,
        width=size,
        height=size,
        generator=generator,
    )
    with torch.no_grad():
        seen = render_mesh(
            mesh, camera.to(mesh.device), lighting=lighting, background=(0.0, 0.0, 0.0), supersample=supersample, encoding="linear"
        )
        alpha = seen.mask[..., None].clamp(0, 1)
        light = seen.color / alpha.clamp(min=1e-6)  # over black, color is light times opacity
        pixels = torch.cat((linear_to_srgb(soft_clip(light)), alpha), -1)
        images = (255 * pixels).round().to(torch.uint8)
        images = torch.where(images[..., 3:] > 0, images, 0)
    return ConditionImages(images.cpu(), camera)
