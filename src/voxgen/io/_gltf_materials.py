"""glTF materials, textures and samplers → core.Material."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from voxgen.core import Material, Texture
from voxgen.core.material import AlphaMode, Wrap

from ._gltf_buffers import Buffers
from ._images import decode_images
from ._json import Item
from ._source import Begin, Source

WRAPS: dict[int, Wrap] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
NEAREST = 9728
DISPLAY_ONLY = "voxgen_display_only"
"""Mark in a material's extras: it stands in for vertex attributes, and is not loaded."""
_READ_EXTENSIONS = {"KHR_materials_emissive_strength", "KHR_materials_pbrSpecularGlossiness"}


@dataclass
class MaterialSlot:
    """What a primitive needs to know of its material.

    Args:
        index: in the mesh's materials, -1 for one that is not loaded.
        transforms: (2, 3) affine map of a uv set (in glTF's orientation, v down), where its textures ask for one.
    """

    index: int
    transforms: dict[int, np.ndarray] = field(default_factory=dict)


def read_materials(source: Source, root: Item, buffers: Buffers, begin: Begin) -> tuple[list[Material], list[MaterialSlot]]:
    """All materials of a file, and what its primitives need to know of each.

    Args:
        begin: gets the number of images to decode, and gives what is to be called after each.
    """
    reader = _Reader(source, root, buffers)
    items = root.items("materials")
    display = [item.inner("extras").value.get(DISPLAY_ONLY) is True if _extras(item) else False for item in items]
    wanted = [item for item, skip in zip(items, display, strict=True) if not skip]
    reader.decode(wanted, begin)
    materials: list[Material] = []
    slots: list[MaterialSlot] = []
    for item, skip in zip(items, display, strict=True):
        slot = MaterialSlot(-1 if skip else len(materials))
        if not skip:
            materials.append(reader.material(item, slot))
        slots.append(slot)
    return materials, slots


def _extras(item: Item) -> dict[str, object]:
    """A material's extras; the format allows any value, and only objects can be kept."""
    value = item.value.get("extras")
    return value if isinstance(value, dict) else {}


class _Reader:
    def __init__(self, source: Source, root: Item, buffers: Buffers) -> None:
        self.source = source
        self.buffers = buffers
        self.textures = root.items("textures")
        self.images = root.items("images")
        self.samplers = root.items("samplers")
        self.pixels: dict[int, Tensor] = {}  # by image; images with the same bytes share one tensor

    def decode(self, materials: list[Item], begin: Begin) -> None:
        """Decode each image that a material uses once."""
        used: dict[int, None] = {}
        for material in materials:
            for slot in _texture_slots(material):
                if slot.integer("index") < len(self.textures):
                    image = self._image_of(self.textures[slot.integer("index")])
                    if image is not None:
                        used[image] = None
        contents: dict[object, tuple[str, bytes]] = {}
        keys: dict[int, object] = {}
        for index in used:
            item = self.buffers.pick(self.images, index, "a texture")
            key: object = item.integer("bufferView") if item.has("bufferView") else item.text("uri")
            if key not in contents:
                content = self._content(item)
                if content is None:
                    continue
                contents[key] = self._label(item, index), content
            keys[index] = key
        decoded = decode_images(self.source, list(contents.values()), begin(len(contents)))
        by_key = dict(zip(contents, decoded, strict=True))
        self.pixels = {index: by_key[key] for index, key in keys.items()}

    def _label(self, item: Item, index: int) -> str:
        uri = item.text("uri")
        return repr(item.text("name") or (uri if uri and not uri.startswith("data:") else f"number {index}"))

    def _content(self, item: Item) -> bytes | None:
        if item.has("bufferView"):
            return bytes(self.buffers.view(item.integer("bufferView"))[0])
        uri = item.text("uri")
        content = self.buffers.uri(uri, item.where) if uri else None
        if content is None:
            self.source.warn(f"texture file {uri[:200]!r} is missing; its materials have their factors only")
        return content

    def _image_of(self, texture: Item) -> int | None:
        if texture.has("source"):
            return texture.integer("source")
        webp = texture.inner("extensions").item("EXT_texture_webp")
        if webp is not None:
            return webp.integer("source")
        self.source.warn(f"{texture.where} has no image in PNG, JPEG or WebP; its materials have their factors only")
        return None

    def texture(
        self, info: Item | None, slot: MaterialSlot, channels: Callable[[int], tuple[int, ...]], srgb: bool = False
    ) -> Texture | None:
        """The texture that a textureInfo describes; `channels` gives the channels to read for an image that has so many."""
        if info is None:
            return None
        item = self.buffers.pick(self.textures, info.integer("index"), info.where)
        image = self._image_of(item)
        if image is None or image not in self.pixels:
            return None
        transform = info.inner("extensions").item("KHR_texture_transform")
        uv_set = info.integer("texCoord", 0)
        if transform is not None:
            uv_set = transform.integer("texCoord", uv_set)
        if uv_set > 1:
            self.source.warn(f"{info.where} uses TEXCOORD_{uv_set}; two sets are read, so this texture is left out")
            return None
        self._note_transform(info, transform, uv_set, slot)
        pixels = self.pixels[image]
        wrap, nearest = self._sampler(item)
        name = self.images[image].text("name") or item.text("name")
        uri = self.images[image].text("uri")
        if not name and not uri.startswith("data:"):
            name = uri
        picked = channels(pixels.shape[2])
        return Texture(pixels, picked, wrap, "nearest" if nearest else "linear", uv_set, srgb, name)

    def _note_transform(self, info: Item, transform: Item | None, uv_set: int, slot: MaterialSlot) -> None:
        matrix = np.eye(2, 3) if transform is None else _uv_matrix(transform)
        first = slot.transforms.setdefault(uv_set, matrix)
        if not np.array_equal(first, matrix):
            self.source.warn(f"{info.where} has another KHR_texture_transform than its material's first texture; the first counts for all")

    def _sampler(self, texture: Item) -> tuple[tuple[Wrap, Wrap], bool]:
        if not texture.has("sampler"):
            return ("repeat", "repeat"), False
        sampler = self.buffers.pick(self.samplers, texture.integer("sampler"), texture.where)
        wraps: list[Wrap] = []
        for key in ("wrapS", "wrapT"):
            code = sampler.integer(key, 10497)
            if code not in WRAPS:
                sampler.fail(key, f"one of {', '.join(map(str, WRAPS))}")
            wraps.append(WRAPS[code])
        return (wraps[0], wraps[1]), sampler.integer("magFilter", 0) == NEAREST

    def material(self, item: Item, slot: MaterialSlot) -> Material:
        self._note_extensions(item)
        pbr = item.inner("pbrMetallicRoughness")
        color_key, rough, metal = "baseColorTexture", pbr.number("roughnessFactor", 1.0), pbr.number("metallicFactor", 1.0)
        factor = pbr.numbers("baseColorFactor", (1.0, 1.0, 1.0, 1.0))
        glossy = item.inner("extensions").item("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None and not item.has("pbrMetallicRoughness"):
            pbr, color_key = glossy, "diffuseTexture"
            rough, metal = 1.0 - glossy.number("glossinessFactor", 1.0), 0.0
            factor = glossy.numbers("diffuseFactor", (1.0, 1.0, 1.0, 1.0))
            self.source.warn("KHR_materials_pbrSpecularGlossiness is read as a dielectric: diffuse colour and glossiness factor only")
        color = pbr.item(color_key)
        metallic_roughness = pbr.item("metallicRoughnessTexture")
        normal, occlusion = item.item("normalTexture"), item.item("occlusionTexture")
        strength = item.inner("extensions", "KHR_materials_emissive_strength").number("emissiveStrength", 1.0)
        emissive = item.numbers("emissiveFactor", (0.0, 0.0, 0.0))
        mode = item.text("alphaMode", "OPAQUE")
        modes: dict[str, AlphaMode] = {"OPAQUE": "OPAQUE", "MASK": "MASK", "BLEND": "BLEND"}
        if mode not in modes:
            item.fail("alphaMode", "OPAQUE, MASK or BLEND")
        alpha = None
        base = self.texture(color, slot, _rgb, srgb=True)
        if base is not None and base.image.shape[2] in (2, 4):
            alpha = self.texture(color, slot, lambda count: (count - 1,))
        return Material(
            name=item.text("name"),
            base_color_factor=(factor[0], factor[1], factor[2]),
            base_color=base,
            alpha_factor=factor[3],
            alpha=alpha,
            metallic_factor=metal,
            metallic=self.texture(metallic_roughness, slot, lambda count: (2 if count > 2 else 0,)),
            roughness_factor=rough,
            roughness=self.texture(metallic_roughness, slot, lambda count: (1 if count > 2 else 0,)),
            emissive_factor=(emissive[0] * strength, emissive[1] * strength, emissive[2] * strength),
            emissive=self.texture(item.item("emissiveTexture"), slot, _rgb, srgb=True),
            normal=self.texture(normal, slot, _rgb),
            normal_scale=1.0 if normal is None else normal.number("scale", 1.0),
            occlusion=self.texture(occlusion, slot, lambda _: (0,)),
            occlusion_strength=1.0 if occlusion is None else occlusion.number("strength", 1.0),
            alpha_mode=modes[mode],
            alpha_cutoff=item.number("alphaCutoff", 0.5),
            double_sided=item.flag("doubleSided"),
            extras=dict(_extras(item)),
        )

    def _note_extensions(self, item: Item) -> None:
        unread = sorted(set(item.inner("extensions").value) - _READ_EXTENSIONS)
        if unread:
            self.source.warn(f"materials use {', '.join(unread)}, which is not read: they have their metallic-roughness part only")


def _rgb(count: int) -> tuple[int, int, int]:
    return (0, 1, 2) if count > 2 else (0, 0, 0)


def _texture_slots(material: Item) -> list[Item]:
    pbr, glossy = material.inner("pbrMetallicRoughness"), material.inner("extensions", "KHR_materials_pbrSpecularGlossiness")
    found = [pbr.item("baseColorTexture"), pbr.item("metallicRoughnessTexture"), glossy.item("diffuseTexture")]
    found += [material.item(key) for key in ("emissiveTexture", "normalTexture", "occlusionTexture")]
    return [slot for slot in found if slot is not None]


def _uv_matrix(transform: Item) -> np.ndarray:
    """KHR_texture_transform as a (2, 3) matrix: scale, then rotation, then offset.

    Counter-clockwise as seen on the image, whose v points down, as the extension's words, its example and the programs that
    read it have it; the shader listing in its text turns the other way (KhronosGroup/glTF issue 1563).
    """
    (x, y), (sx, sy) = transform.numbers("offset", (0.0, 0.0)), transform.numbers("scale", (1.0, 1.0))
    angle = transform.number("rotation", 0.0)
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c * sx, s * sy, x], [-s * sx, c * sy, y]])
