"""Maps of normals whose sides are not known."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.checks import FLOATS, require_choice, require_same_device, require_tensor

from ._reduce import single


def face_camera(
    normals: Float[Tensor, "v 3 h w"], camera: Camera, *, space: Literal["world", "camera"] = "world"
) -> Float[Tensor, "v 3 h w"]:
    """Turn normals round that point away from the eye, pixel by pixel, as is done for targets whose winding may be anything.

    `render_geometry(face_camera=True)` does the same while it renders; this is for maps that exist already.

    Args:
        normals: (v, 3, h, w) vectors, in [−1, 1]; maps that are stored as (n + 1) / 2 must be unpacked: `2 * map - 1`. Zero stays.
        camera: the v views, of h × w pixels.
        space: axes of the normals: the world's or the camera's.
    Returns:
        (v, 3, h, w): normals where n · (direction from the eye through the pixel's centre) < 0, else −normals. In float32 (float64
        for float64 normals). Differentiable; the choice is taken as given.
    Raises:
        ShapeError, DtypeError, DeviceError: normals and camera that do not fit each other.   RangeError: an unknown space.
    Source: TRELLIS, training of the mesh decoder. Differences: works in camera axes too, and for parallel views.
    """
    where = "face_camera"
    require_choice(where, "space", space, ("world", "camera"))
    require_tensor(
        where, "normals", normals, (len(camera), 3, camera.height, camera.width), FLOATS, hint="One pixel for each of the camera's."
    )
    require_same_device(where, normals=normals, camera=camera.world_to_camera)
    values = single(normals)
    k = camera.intrinsics.to(values)[:, :, :, None, None]
    column = torch.arange(camera.width, device=values.device).to(values) + 0.5
    row = (torch.arange(camera.height, device=values.device).to(values) + 0.5)[:, None]
    ahead = torch.ones(1, camera.height, camera.width).to(values).expand(len(camera), -1, -1)
    if camera.orthographic:
        rays = torch.stack((torch.zeros_like(ahead), torch.zeros_like(ahead), ahead), 1)
    else:
        y = (row - k[:, 1, 2]) / k[:, 1, 1] * ahead
        x = (column - k[:, 0, 2] - k[:, 0, 1] * y) / k[:, 0, 0]
        rays = torch.stack((x, y, ahead), 1)
    if space == "world":
        rays = torch.einsum("vij,vihw->vjhw", camera.world_to_camera[:, :3, :3].to(values), rays)
    return torch.where((values.detach() * rays).sum(1, keepdim=True) < 0, values, -values)
