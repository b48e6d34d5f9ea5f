"""What all engines read: materials resolved to lookups, vertex rows checked and decoded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.checks import FLOATS, describe, require_finite
from voxgen.core.errors import DtypeError, MeshError, MeshWarning, RangeError, ShapeError
from voxgen.core.material import srgb_to_linear
from voxgen.ops.texture import WRAP_CODES, TexturePyramid
from voxgen.ops.texture._pyramid import make_pyramid

COLORS = ("base_color", "emissive")
"""Channels that are light: encoded in sRGB where they are stored, linear while they are mixed."""


@dataclass(frozen=True, eq=False)
class Lookup:
    """One read of an image that serves one or more properties of a material.

    wrap: codes of `voxgen.ops.texture.WRAP_CODES` along u and v.   base_only: never read a reduced level.
    """

    pyramid: TexturePyramid
    wrap: tuple[int, int]
    nearest: bool
    uv_set: int
    base_only: bool


@dataclass(frozen=True, eq=False)
class Surface:
    """A material, reduced to what the requested channels need.

    places: for each textured property, which lookup holds it, and from which of its channels on.
    """

    material: Material
    lookups: tuple[Lookup, ...]
    places: dict[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Shading:
    """Everything about a mesh's looks.

    surface: (f,) int64 index into `surfaces` of each face.
    uv: the two sets, (v, 2) float64, zeros where a set is missing.   normals: (v, 3) float64, if asked for.
    color: (v, 4) float64, linear factor of base colour and alpha, or None.
    replaced: (v, c) float64 by channel: values that stand for those of the material; colours decoded to linear light.
    linear: leave colours linear in the result.
    """

    channels: tuple[str, ...]
    surfaces: tuple[Surface, ...]
    surface: Tensor
    uv: tuple[Tensor, Tensor]
    normals: Tensor | None
    color: Tensor | None
    replaced: dict[str, Tensor]
    linear: bool
    mip_offset: float


def prepare_shading(where: str, mesh: TriMesh, channels: tuple[str, ...], compat: str | None, linear: bool, mip_offset: float) -> Shading:
    """Check what a mesh carries beside its geometry, and build the pyramids. Errors as documented at `material_volume`."""
    surface, used = _surface_of_faces(mesh)
    color, replaced = (None, {}) if compat else _vertex_rows(where, mesh, channels)
    if compat and set(mesh.attributes) & {"color", *channels}:
        warnings.warn(
            f"{where}: compat='trellis2' ignores vertex attributes, as the original does; "
            f"left out: {', '.join(sorted(set(mesh.attributes) & {'color', *channels}))}.",
            MeshWarning,
            stacklevel=3,
        )
    builder = _Builder(where, mesh.device, compat)
    surfaces = tuple(builder.surface(m, _textured(m, channels, replaced), color is not None) for m in used)
    normals = None
    if "normal" in channels:
        normals = mesh.vertex_normals().detach().double()
        _require_rows(where, "normals", normals)
    return Shading(channels, surfaces, surface, _checked_uv(where, mesh, surfaces, surface), normals, color, replaced, linear, mip_offset)


def _surface_of_faces(mesh: TriMesh) -> tuple[Tensor, list[Material]]:
    """The material of each face, counting only those that faces use; faces without one get `Material.plain()`."""
    if mesh.face_material is None:
        index = torch.full((mesh.num_faces,), 0 if mesh.materials else -1, device=mesh.device)
    else:
        index = mesh.face_material.long()
    used, surface = index.unique(return_inverse=True)
    return surface, [mesh.materials[i] if i >= 0 else Material.plain() for i in used.tolist()]


def _textured(material: Material, channels: tuple[str, ...], replaced: dict[str, Tensor]) -> dict[str, Texture]:
    """The textures that the result depends on."""
    m = material
    matters = {
        "base_color": any(m.base_color_factor),
        "metallic": m.metallic_factor != 0,
        "roughness": m.roughness_factor != 0,
        "emissive": any(m.emissive_factor),
        "alpha": m.alpha_mode != "OPAQUE" and m.alpha_factor != 0,
        "normal": True,
    }
    return {s: t for s, t in m.textures.items() if s in channels and s not in replaced and matters[s]}


class _Builder:
    """Makes surfaces; textures of one image, read in one way, share a lookup, and equal pyramids are built once."""

    def __init__(self, where: str, device: torch.device, compat: str | None) -> None:
        self.where, self.device, self.compat = where, device, compat
        self.pyramids: dict[tuple[object, ...], TexturePyramid] = {}

    def surface(self, material: Material, textures: dict[str, Texture], vertex_alpha: bool) -> Surface:
        groups: dict[tuple[object, ...], list[str]] = {}
        cutoffs: dict[str, float | None] = {}
        for slot, t in textures.items():
            mask = slot == "alpha" and material.alpha_mode == "MASK" and not self.compat
            # The threshold is on texel * factor; where vertices scale it further, only the sample itself can be compared.
            cutoffs[slot] = material.alpha_cutoff / material.alpha_factor if mask and not vertex_alpha else None
            base_only = (mask and vertex_alpha) or (bool(self.compat) and t.filter == "nearest")
            key = (id(t.image), t.wrap, t.filter, t.uv_set, base_only, cutoffs[slot])
            groups.setdefault(key, []).append(slot)
        lookups: list[Lookup] = []
        places: dict[str, tuple[int, int]] = {}
        for key, slots in groups.items():
            t = textures[slots[0]]
            picked: list[int] = []
            encoded: list[bool] = []
            for slot in slots:
                places[slot] = (len(lookups), len(picked))
                picked += textures[slot].channels
                encoded += [textures[slot].srgb and slot in COLORS and not self.compat] * len(textures[slot].channels)
            pyramid = self._pyramid(material, t, tuple(picked), tuple(encoded), cutoffs[slots[0]])
            codes = (WRAP_CODES[t.wrap[0]], WRAP_CODES[t.wrap[1]])
            lookups.append(Lookup(pyramid, codes, t.filter == "nearest", t.uv_set, bool(key[4])))
        return Surface(material, tuple(lookups), places)

    def _pyramid(
        self, material: Material, texture: Texture, picked: tuple[int, ...], encoded: tuple[bool, ...], cutoff: float | None
    ) -> TexturePyramid:
        key = (id(texture.image), picked, encoded, cutoff)
        if key not in self.pyramids:
            image = texture.image.detach()
            if image.is_floating_point() and not bool(torch.isfinite(image).all()):
                raise RangeError(
                    f"{self.where}: texture {texture.name!r} of material {material.name!r} must be finite; it has NaN or infinity."
                )
            if picked != tuple(range(image.shape[2])):
                image = image[:, :, list(picked)]
            label = f"{self.where}: texture {texture.name!r} of material {material.name!r}"
            self.pyramids[key] = make_pyramid(label, image.to(self.device).contiguous(), encoded, cutoff, self.compat)
        return self.pyramids[key]


def _checked_uv(where: str, mesh: TriMesh, surfaces: tuple[Surface, ...], surface: Tensor) -> tuple[Tensor, Tensor]:
    found = []
    for number, (name, uv) in enumerate((("uv", mesh.uv), ("uv1", mesh.uv1))):
        users = [i for i, s in enumerate(surfaces) if any(k.uv_set == number for k in s.lookups)]
        if uv is None or not users:
            found.append(mesh.vertices.new_zeros((mesh.num_vertices, 2), dtype=torch.float64))
            if users:
                names = ", ".join(repr(surfaces[i].material.name) for i in users)
                warnings.warn(
                    f"{where}: the mesh has no {name}, but textures of material {names} need it; they are read at (0, 0), as glTF "
                    "viewers do. Give the mesh texture coordinates, or the materials no textures.",
                    MeshWarning,
                    stacklevel=4,
                )
            continue
        uv = uv.detach().double()
        needed = mesh.faces[torch.isin(surface, torch.tensor(users, device=surface.device))].long().unique()
        bad = needed[~torch.isfinite(uv[needed]).all(1)]
        if len(bad):
            raise MeshError(
                f"{where}: {name} must be finite where faces use it; {len(bad)} vertices are not, the first is vertex {int(bad[0])} = "
                f"{uv[bad[0]].tolist()}. Repair them, or set them to 0."
            )
        found.append(torch.where(torch.isfinite(uv), uv, 0.0))
    return found[0], found[1]


def _vertex_rows(where: str, mesh: TriMesh, channels: tuple[str, ...]) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Vertex colours (v, 4), and the attributes that replace channels, both in linear light."""
    widths = {"base_color": (3,), "metallic": (1,), "roughness": (1,), "emissive": (3,), "alpha": (1,), "color": (3, 4)}
    rows: dict[str, Tensor] = {}
    for name, allowed in widths.items():
        if name not in mesh.attributes or (name not in channels and name != "color"):
            continue
        value = mesh.attributes[name]
        label = f"attributes[{name!r}]"
        if value.shape[1] not in allowed:
            raise ShapeError(f"{where}: {label} must have {' or '.join(map(str, allowed))} columns; got {describe(value)}.")
        if value.dtype not in FLOATS:
            raise DtypeError(f"{where}: {label} must be float in 0..1; got {describe(value)}. Divide bytes by 255.")
        rows[name] = value.detach().double()
        _require_rows(where, label, rows[name])
    color = rows.pop("color", None)
    if color is not None and color.shape[1] == 3:
        color = torch.nn.functional.pad(color, (0, 1), value=1.0)
    return color, {name: srgb_to_linear(v) if name in COLORS else v for name, v in rows.items()}


def _require_rows(where: str, name: str, value: Tensor) -> None:
    try:
        require_finite(where, name, value)
    except RangeError as error:
        raise MeshError(str(error)) from None
