"""Surface materials in the metallic-roughness model of glTF 2.0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .checks import require_choice, require_tensor
from .errors import RangeError

Wrap = Literal["repeat", "clamp", "mirror"]
AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]


@dataclass(frozen=True, eq=False)
class Texture:
    """Some channels of an image, and how it is laid on a surface.

    Several textures may share one image: glTF keeps roughness in the green and metallic in the blue channel of one.

    Args:
        image: (h, w, c) uint8 (0..255) or float32 (0..1), row 0 at the top, any size; v = 1 is the top edge of row 0.
        channels: which channels of the image this texture reads, in order.
        wrap: what happens outside [0, 1] along u and v.
        filter: "linear" (bilinear with reduced levels where a user of the texture wants them) or "nearest".
        uv_set: 0 reads `TriMesh.uv`, 1 reads `TriMesh.uv1`.
        srgb: True if the stored numbers are sRGB-encoded (base colour, emissive), False if they are linear.
        name: file or image name, for messages and export.
    """

    image: Tensor
    channels: tuple[int, ...]
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    filter: Literal["linear", "nearest"] = "linear"
    uv_set: int = 0
    srgb: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        require_tensor("Texture", "image", self.image, ("h", "w", "c"), (torch.uint8, torch.float32))
        h, w, c = self.image.shape
        if h == 0 or w == 0:
            raise RangeError(f"Texture: image must have at least one pixel; got {h} × {w}.")
        if not self.channels or any(k < 0 or k >= c for k in self.channels):
            raise RangeError(f"Texture: channels must name channels of an image that has {c}; got {self.channels}.")
        for w in self.wrap:
            require_choice("Texture", "wrap", w, ("repeat", "clamp", "mirror"))
        require_choice("Texture", "filter", self.filter, ("linear", "nearest"))
        if self.uv_set not in (0, 1):
            raise RangeError(f"Texture: uv_set must be 0 or 1; got {self.uv_set}.")

    @property
    def values(self) -> Tensor:
        """(h, w, len(channels)) float32 in 0..1, as stored (no decoding of sRGB)."""
        picked = self.image[:, :, list(self.channels)]
        return picked.float() / 255 if picked.dtype == torch.uint8 else picked


@dataclass(frozen=True, eq=False)
class Material:
    """glTF metallic-roughness material; each property is factor × texture, a missing texture counts as 1.

    Factors of colours are linear. `alpha_factor` and `alpha` are the fourth channel of glTF's base colour.

    Args:
        base_color, emissive, normal: textures of three channels.   metallic, roughness, alpha, occlusion: of one.
        alpha_mode: OPAQUE ignores alpha, MASK cuts at `alpha_cutoff`, BLEND mixes.
    """

    name: str = ""
    base_color_factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    base_color: Texture | None = None
    alpha_factor: float = 1.0
    alpha: Texture | None = None
    metallic_factor: float = 1.0
    metallic: Texture | None = None
    roughness_factor: float = 1.0
    roughness: Texture | None = None
    emissive_factor: tuple[float, float, float] = (0.0, 0.0, 0.0)
    emissive: Texture | None = None
    normal: Texture | None = None
    normal_scale: float = 1.0
    occlusion: Texture | None = None
    occlusion_strength: float = 1.0
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = 0.5
    double_sided: bool = False
    extras: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("Material", "alpha_mode", self.alpha_mode, ("OPAQUE", "MASK", "BLEND"))
        widths = {"base_color": 3, "emissive": 3, "normal": 3, "metallic": 1, "roughness": 1, "alpha": 1, "occlusion": 1}
        for slot, width in widths.items():
            texture: Texture | None = getattr(self, slot)
            if texture is not None and len(texture.channels) != width:
                raise RangeError(f"Material: {slot} must read {width} channels; its texture reads {texture.channels}.")

    @staticmethod
    def plain() -> Material:
        """What surfaces without a material get: light grey, not metallic, half rough, both sides."""
        return Material("plain", (0.8, 0.8, 0.8), metallic_factor=0.0, roughness_factor=0.5, double_sided=True)

    @property
    def textures(self) -> dict[str, Texture]:
        """The textures that are there, by slot."""
        slots = ("base_color", "alpha", "metallic", "roughness", "emissive", "normal", "occlusion")
        found = {slot: getattr(self, slot) for slot in slots}
        return {slot: t for slot, t in found.items() if t is not None}


def srgb_to_linear(encoded: Tensor) -> Tensor:
    """sRGB-encoded values in 0..1 → linear light (IEC 61966-2-1). Differentiable."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Linear light in 0..1 → sRGB-encoded values. Differentiable."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)
