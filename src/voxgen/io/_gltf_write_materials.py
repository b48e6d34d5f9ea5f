"""core.Material → glTF materials, textures, samplers, images; images are packed in glTF's channels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import Material, Texture

from ._gltf_materials import NEAREST, WRAPS
from ._images import encode_png
from ._source import Begin, Note

_WRAP_CODES = {name: code for code, name in WRAPS.items()}
_LINEAR, _LINEAR_MIPMAP_LINEAR = 9729, 9987


@dataclass(frozen=True)
class _Channel:
    """Which channel of which texture goes to a place of a packed image."""

    texture: Texture
    channel: int


class MaterialWriter:
    """Collects materials and writes each image once, however many of them use it."""

    def __init__(self, note: Note, view: Callable[[bytes], int]) -> None:
        self.note = note
        self.view = view
        self.materials: list[dict[str, object]] = []
        self.textures: list[dict[str, int]] = []
        self.samplers: list[dict[str, int]] = []
        self.images: list[tuple[str, Tensor]] = []
        self.image_entries: list[dict[str, object]] = []
        self.extensions: set[str] = set()
        self._image_by_key: dict[object, int] = {}

    def add(self, material: Material, extras: Mapping[str, object] | None = None) -> int:
        """Append a material and return its index."""
        m = material
        pbr: dict[str, object] = {
            "baseColorFactor": [*m.base_color_factor, m.alpha_factor],
            "metallicFactor": m.metallic_factor,
            "roughnessFactor": m.roughness_factor,
        }
        entry: dict[str, object] = {"name": m.name, "pbrMetallicRoughness": pbr, "alphaMode": m.alpha_mode, "doubleSided": m.double_sided}
        if m.alpha_mode == "MASK":
            entry["alphaCutoff"] = m.alpha_cutoff
        color = _channels(m.base_color, (0, 1, 2)) | _channels(m.alpha, (3,))
        self._put(pbr, "baseColorTexture", color, {0, 1, 2, 3} - set(color), m)  # what is missing counts as 1
        metallic_roughness = _channels(m.roughness, (1,)) | _channels(m.metallic, (2,))
        self._put(pbr, "metallicRoughnessTexture", metallic_roughness, {1, 2} - set(metallic_roughness), m)
        self._put(entry, "occlusionTexture", _channels(m.occlusion, (0,)), set(), m, strength=m.occlusion_strength)
        self._put(entry, "normalTexture", _channels(m.normal, (0, 1, 2)), set(), m, scale=m.normal_scale)
        self._put(entry, "emissiveTexture", _channels(m.emissive, (0, 1, 2)), set(), m)
        self._emissive(entry, m)
        kept = {key: value for key, value in m.extras.items() if _is_json(value)} | dict(extras or {})
        if kept:
            entry["extras"] = kept
        self.materials.append(entry)
        return len(self.materials) - 1

    def _emissive(self, entry: dict[str, object], material: Material) -> None:
        strength = max(1.0, *material.emissive_factor)
        entry["emissiveFactor"] = [v / strength for v in material.emissive_factor]
        if strength > 1:
            entry["extensions"] = {"KHR_materials_emissive_strength": {"emissiveStrength": strength}}
            self.extensions.add("KHR_materials_emissive_strength")

    def _put(
        self, target: dict[str, object], key: str, wanted: dict[int, _Channel], ones: set[int], material: Material, **numbers: float
    ) -> None:
        """Add a textureInfo.

        Args:
            wanted: by place in the image (0 red .. 3 alpha), what a reader must find there.
            ones: places where a reader must find 1.
        """
        if not wanted:
            return
        lead = next(iter(wanted.values())).texture
        for part in wanted.values():
            if (part.texture.wrap, part.texture.filter, part.texture.uv_set) != (lead.wrap, lead.filter, lead.uv_set):
                self.note(
                    f"material {material.name!r}: the textures packed in {key} differ in wrap, filter or uv set; the first counts for all"
                )
                break
        image = self._image(wanted, ones)
        texture = {"sampler": self._sampler(lead), "source": image}
        if texture not in self.textures:
            self.textures.append(texture)
        info: dict[str, object] = {"index": self.textures.index(texture), "texCoord": lead.uv_set}
        target[key] = info | {name: value for name, value in numbers.items() if value != 1.0}

    def _sampler(self, texture: Texture) -> int:
        wraps = {"wrapS": _WRAP_CODES[texture.wrap[0]], "wrapT": _WRAP_CODES[texture.wrap[1]]}
        nearest = texture.filter == "nearest"
        sampler = wraps | {"magFilter": NEAREST if nearest else _LINEAR, "minFilter": NEAREST if nearest else _LINEAR_MIPMAP_LINEAR}
        if sampler not in self.samplers:
            self.samplers.append(sampler)
        return self.samplers.index(sampler)

    def _image(self, wanted: dict[int, _Channel], ones: set[int]) -> int:
        lead = next(iter(wanted.values())).texture
        count = lead.image.shape[2]
        as_it_is = count <= 4 and all(
            part.texture.image is lead.image and _read_at(count, place) == part.channel for place, part in wanted.items()
        )
        as_it_is = as_it_is and all(_read_at(count, place) is None for place in ones)
        key = id(lead.image) if as_it_is else tuple((place, id(part.texture.image), part.channel) for place, part in wanted.items())
        if key not in self._image_by_key:
            self._image_by_key[key] = len(self.images)
            self.images.append((lead.name, lead.image if as_it_is else _packed(wanted)))
        return self._image_by_key[key]

    def write_images(self, begin: Begin) -> None:
        """Encode and store the collected images, several at a time."""
        advance = begin(len(self.images))
        for name, image in self.images:
            if image.is_floating_point() and not bool(((image >= 0) & (image <= 1)).all()):
                self.note(f"image {name!r} has values outside [0, 1], which are cut off")

        def encode(named: tuple[str, Tensor]) -> bytes:
            content = encode_png(named[1])
            advance()
            return content

        with ThreadPoolExecutor() as pool:
            for (name, _), content in zip(self.images, pool.map(encode, self.images), strict=True):
                self.image_entries.append({"name": name, "mimeType": "image/png", "bufferView": self.view(content)})

    def sections(self) -> dict[str, object]:
        """The top-level entries of the JSON document; empty ones are not allowed."""
        found: dict[str, object] = {
            "materials": self.materials,
            "textures": self.textures,
            "samplers": self.samplers,
            "images": self.image_entries,
            "extensionsUsed": sorted(self.extensions),
        }
        return {name: value for name, value in found.items() if value}


def _channels(texture: Texture | None, places: tuple[int, ...]) -> dict[int, _Channel]:
    if texture is None:
        return {}
    return {place: _Channel(texture, channel) for place, channel in zip(places, texture.channels, strict=True)}


def _read_at(count: int, place: int) -> int | None:
    """The channel of an image with `count` channels that a reader of PNG finds at a place; None where it finds 1."""
    if place == 3:
        return count - 1 if count in (2, 4) else None
    return place if count > 2 else 0


def _packed(wanted: dict[int, _Channel]) -> Tensor:
    """A new image with the wanted channels at their places and 1 elsewhere."""
    parts = {place: _plane(part) for place, part in wanted.items()}
    height, width = max(p.shape[0] for p in parts.values()), max(p.shape[1] for p in parts.values())
    wide = any(part.texture.image.is_floating_point() for part in wanted.values())
    places = 4 if 3 in wanted else 1 if set(wanted) == {0} else 3
    image = torch.ones(height, width, places)
    for place, plane in parts.items():
        if plane.shape != (height, width):
            plane = torch.nn.functional.interpolate(plane[None, None], (height, width), mode="bilinear")[0, 0]
        image[:, :, place] = plane
    return image if wide else (image * 255).round().to(torch.uint8)


def _plane(part: _Channel) -> Tensor:
    plane = part.texture.image[:, :, part.channel].detach().cpu()
    return plane if plane.is_floating_point() else plane.float() / 255


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
