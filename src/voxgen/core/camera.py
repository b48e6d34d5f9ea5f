"""Camera: a batch of pinhole or orthographic views."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from .aliases import Float3
from .checks import require_int, require_same_device, require_tensor
from .errors import RangeError


@dataclass(frozen=True, eq=False)
class Camera:
    """v views. Camera axes are those of OpenCV: x right, y down, z forward; depth is z in camera space, positive in front.

    Args:
        world_to_camera: (v, 4, 4) rigid transforms.
        intrinsics: (v, 3, 3) in pixels, pixel (row i, column j) has its centre at (j + 0.5, i + 0.5). Perspective:
            column = fx x / z + cx, row = fy y / z + cy. Orthographic: the same without the division by z.
        width, height: image size in pixels.
        near, far: clip distances along z, in world units.
        orthographic: parallel instead of central projection.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: fields that do not fit each other.
    """

    world_to_camera: Tensor
    intrinsics: Tensor
    width: int
    height: int
    near: float = 0.01
    far: float = 100.0
    orthographic: bool = False

    def __post_init__(self) -> None:
        floats = (torch.float32, torch.float64)
        require_tensor("Camera", "world_to_camera", self.world_to_camera, ("v", 4, 4), floats)
        require_tensor("Camera", "intrinsics", self.intrinsics, (len(self.world_to_camera), 3, 3), floats)
        require_same_device("Camera", world_to_camera=self.world_to_camera, intrinsics=self.intrinsics)
        require_int("Camera", "width", self.width, 1)
        require_int("Camera", "height", self.height, 1)
        if not (math.isfinite(self.near) and math.isfinite(self.far) and self.near < self.far):
            raise RangeError(f"Camera: near must be less than far; got near={self.near}, far={self.far}.")
        if not self.orthographic and self.near <= 0:
            raise RangeError(f"Camera: near must be positive for a perspective camera; got {self.near}.")

    def __len__(self) -> int:
        return len(self.world_to_camera)

    def __getitem__(self, views: int | slice | Tensor) -> Camera:
        """Some of the views, as a camera batch."""
        pick = slice(views, views + 1 or None) if isinstance(views, int) else views
        return Camera(self.world_to_camera[pick], self.intrinsics[pick], self.width, self.height, self.near, self.far, self.orthographic)

    def to(self, device: torch.device | str) -> Camera:
        return Camera(
            self.world_to_camera.to(device),
            self.intrinsics.to(device),
            self.width,
            self.height,
            self.near,
            self.far,
            self.orthographic,
        )

    @staticmethod
    def look_at(
        eyes: Tensor,
        target: Tensor | Float3 = (0.0, 0.0, 0.0),
        *,
        up: Tensor | Float3 = (0.0, 1.0, 0.0),
        fov: float = 40.0,
        width: int = 512,
        height: int = 512,
        near: float = 0.01,
        far: float = 100.0,
        orthographic_height: float | None = None,
    ) -> Camera:
        """Views from `eyes` (v, 3) towards `target`.

        Args:
            up: the world direction that points up in the images.
            fov: full vertical field of view in degrees; ignored with `orthographic_height`.
            orthographic_height: world height of the image; makes the camera orthographic.
        Raises:
            RangeError: an eye at the target, `up` along the viewing direction, or a field of view outside (0, 180).
        """
        require_tensor("Camera.look_at", "eyes", eyes, ("v", 3), (torch.float32, torch.float64))
        if orthographic_height is None and not 0 < fov < 180:
            raise RangeError(f"Camera.look_at: fov must lie in (0, 180) degrees; got {fov}.")
        forward = torch.as_tensor(target).to(eyes) - eyes
        right = torch.linalg.cross(forward, torch.as_tensor(up).to(eyes).expand_as(forward))
        if bool((right.norm(dim=1) <= 1e-9 * forward.norm(dim=1).clamp(min=1e-30)).any()):
            raise RangeError("Camera.look_at: eyes must differ from target, and up must not lie along the viewing direction.")
        forward = torch.nn.functional.normalize(forward, dim=1)
        right = torch.nn.functional.normalize(right, dim=1)
        down = torch.linalg.cross(forward, right)
        rotation = torch.stack((right, down, forward), 1)
        pose = torch.eye(4, dtype=eyes.dtype, device=eyes.device).repeat(len(eyes), 1, 1)
        pose[:, :3, :3] = rotation
        pose[:, :3, 3] = -(rotation @ eyes[:, :, None])[:, :, 0]
        if orthographic_height is None:
            focal = height / (2 * math.tan(math.radians(fov) / 2))
        else:
            focal = height / orthographic_height
        k = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=eyes.dtype, device=eyes.device)
        return Camera(pose, k.repeat(len(eyes), 1, 1), width, height, near, far, orthographic_height is not None)

    @property
    def positions(self) -> Tensor:
        """(v, 3) camera centres in world space."""
        r, t = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3:]
        return -(r.transpose(1, 2) @ t)[:, :, 0]

    @property
    def forward(self) -> Tensor:
        """(v, 3) viewing directions in world space."""
        return self.world_to_camera[:, 2, :3]

    def to_camera(self, points: Tensor) -> Tensor:
        """World points (p, 3) → (v, p, 3) in each camera's frame. Differentiable."""
        r, t = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return points @ r.transpose(1, 2).to(points) + t[:, None].to(points)

    def clip_matrices(self) -> Tensor:
        """(v, 4, 4): world → clip space. After division by w: x and y in [-1, 1] to the right and *down*, z in [-1, 1] from near to far.

        Row 0 of an image is at clip y = -1, so an image needs no flip; this differs from OpenGL, where clip y points up.
        """
        k, n, f = self.intrinsics, self.near, self.far
        m = torch.zeros_like(self.world_to_camera)
        m[:, 0, 0] = 2 * k[:, 0, 0] / self.width
        m[:, 0, 1] = 2 * k[:, 0, 1] / self.width
        m[:, 1, 1] = 2 * k[:, 1, 1] / self.height
        offset_x, offset_y = 2 * k[:, 0, 2] / self.width - 1, 2 * k[:, 1, 2] / self.height - 1
        column = 3 if self.orthographic else 2
        m[:, 0, column] = offset_x
        m[:, 1, column] = offset_y
        if self.orthographic:
            m[:, 2, 2], m[:, 2, 3], m[:, 3, 3] = 2 / (f - n), -(f + n) / (f - n), 1.0
        else:
            m[:, 2, 2], m[:, 2, 3], m[:, 3, 2] = (f + n) / (f - n), -2 * f * n / (f - n), 1.0
        return m @ self.world_to_camera

    @staticmethod
    def batched(cameras: list[Camera]) -> Camera:
        """Join cameras of one image size, clip range and kind."""
        if not cameras:
            raise RangeError("Camera.batched: at least one camera is needed; got none.")
        kinds = {(c.width, c.height, c.near, c.far, c.orthographic) for c in cameras}
        if len(kinds) > 1:
            raise RangeError(f"Camera.batched: size, near, far and projection must agree; got {sorted(kinds)}.")
        w, h, n, f, o = cast(tuple[int, int, float, float, bool], next(iter(kinds)))
        poses = torch.cat([c.world_to_camera for c in cameras])
        return Camera(poses, torch.cat([c.intrinsics for c in cameras]), w, h, n, f, o)
