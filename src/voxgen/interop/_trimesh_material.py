"""core.Material ↔ the materials of trimesh, which are those of glTF with Pillow images."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from trimesh.visual.material import MultiMaterial, PBRMaterial, SimpleMaterial

from voxgen.core import Material, Texture
from voxgen.core.errors import MeshError, MeshWarning

if TYPE_CHECKING:
    from trimesh.visual.material import Material as TrimeshMaterial


def from_material(material: TrimeshMaterial | None) -> tuple[Material, ...]:
    """Our material, or none where trimesh has none or one for each face."""
    if isinstance(material, MultiMaterial):
        warnings.warn("from_trimesh: materials of single faces are left out.", MeshWarning, stacklevel=4)
        return ()
    metallic = 1.0
    if isinstance(material, SimpleMaterial):  # shininess, not metal
        material, metallic = material.to_pbr(), 0.0
    if not isinstance(material, PBRMaterial):
        return ()
    color = np.ones(4) if material.baseColorFactor is None else np.asarray(material.baseColorFactor) / 255
    emission = np.zeros(3) if material.emissiveFactor is None else np.asarray(material.emissiveFactor)
    base = _pixels(material.baseColorTexture)
    rough = _pixels(material.metallicRoughnessTexture)
    mode: Any = material.alphaMode or "OPAQUE"
    return (
        Material(
            name=material.name or "",
            base_color_factor=(float(color[0]), float(color[1]), float(color[2])),
            base_color=_texture(base, (0, 1, 2), srgb=True),
            alpha_factor=float(color[3]),
            alpha=None if base is None or base.shape[2] < 4 else _texture(base, (3,)),
            metallic_factor=metallic if material.metallicFactor is None else float(material.metallicFactor),
            metallic=_texture(rough, (2,)),
            roughness_factor=1.0 if material.roughnessFactor is None else float(material.roughnessFactor),
            roughness=_texture(rough, (1,)),
            emissive_factor=(float(emission[0]), float(emission[1]), float(emission[2])),
            emissive=_texture(_pixels(material.emissiveTexture), (0, 1, 2), srgb=True),
            normal=_texture(_pixels(material.normalTexture), (0, 1, 2)),
            occlusion=_texture(_pixels(material.occlusionTexture), (0,)),
            alpha_mode=mode,
            alpha_cutoff=0.5 if material.alphaCutoff is None else float(material.alphaCutoff),
            double_sided=bool(material.doubleSided),
        ),
    )


def to_pbr(m: Material) -> tuple[PBRMaterial, list[str]]:
    """trimesh's material, and what it has no place for."""
    lost = []
    if any(t.wrap != ("repeat", "repeat") or t.filter != "linear" or t.uv_set for t in m.textures.values()):
        lost.append("wrap, filter or uv set of textures")
    if m.normal_scale != 1 or m.occlusion_strength != 1:
        lost.append("normal scale or occlusion strength")
    if max(m.emissive_factor) > 1:
        lost.append("emission above 1")
    pbr = PBRMaterial(
        name=m.name or None,
        baseColorFactor=[round(255 * min(max(v, 0.0), 1.0)) for v in (*m.base_color_factor, m.alpha_factor)],
        metallicFactor=m.metallic_factor,
        roughnessFactor=m.roughness_factor,
        emissiveFactor=[min(v, 1.0) for v in m.emissive_factor],
        baseColorTexture=_image("base colour", {(0, 1, 2): m.base_color, (3,): m.alpha}),
        metallicRoughnessTexture=_image("metallic and roughness", {(1,): m.roughness, (2,): m.metallic}),
        emissiveTexture=_image("emission", {(0, 1, 2): m.emissive}),
        normalTexture=_image("normals", {(0, 1, 2): m.normal}),
        occlusionTexture=_image("occlusion", {(0, 1, 2): m.occlusion}),
        doubleSided=m.double_sided,
        alphaMode=m.alpha_mode,
        alphaCutoff=m.alpha_cutoff if m.alpha_mode == "MASK" else None,
    )
    return pbr, lost


def _image(what: str, places: dict[tuple[int, ...], Texture | None]) -> Image.Image | None:
    """Textures packed in one image; channels without a texture are 1."""
    present = {place: t.values for place, t in places.items() if t is not None}
    if not present:
        return None
    sizes = {tuple(v.shape[:2]) for v in present.values()}
    if len(sizes) > 1:
        raise MeshError(
            f"to_trimesh: the textures of {what} are packed in one image and must have one size; got {sorted(sizes)}. Resize them."
        )
    height, width = sizes.pop()
    pixels = torch.ones(height, width, 4 if (3,) in present else 3)
    for place, values in present.items():
        pixels[:, :, list(place)] = values
    return Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())


def _pixels(image: Any) -> Tensor | None:
    """(h, w, 3 or 4) uint8."""
    if image is None:
        return None
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return torch.from_numpy(np.array(image))


def _texture(image: Tensor | None, channels: tuple[int, ...], srgb: bool = False) -> Texture | None:
    return None if image is None else Texture(image, channels, srgb=srgb)
