"""What a mesh's materials and vertex attributes say about the surface at a pixel."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.checks import FLOATS, describe
from voxgen.core.errors import DtypeError, ShapeError
from voxgen.core.material import srgb_to_linear

from .hits import Hits, View
from .textures import TextureReader

Normals = Literal["map", "smooth", "flat"]
_WIDTHS = {"base_color": (3,), "emissive": (3,), "metallic": (1,), "roughness": (1,), "alpha": (1,), "color": (3, 4)}
_CLEAR = 254.5 / 255  # alpha from which on a surface counts as opaque


@dataclass(frozen=True, eq=False)
class Surface:
    """n points of a surface: base_color and emissive (n, 3) in linear light, unit normal (n, 3) and position (n, 3) in world space,
    the rest (n, 1). The normal points to the side from which the face is seen, where `two_sided` was asked for."""

    position: Tensor
    normal: Tensor
    base_color: Tensor
    emissive: Tensor
    metallic: Tensor
    roughness: Tensor
    occlusion: Tensor
    alpha: Tensor


class SurfaceReader:
    """The looks of one mesh, for all its views."""

    def __init__(self, where: str, mesh: TriMesh, normals: Normals, two_sided: bool) -> None:
        self.mesh = mesh
        self.normals = normals
        self.two_sided = two_sided
        self.textures = TextureReader(where, mesh)
        self.materials = (*mesh.materials, Material.plain())
        self.rows = _vertex_rows(where, mesh)
        self.vertex_normals = None if normals == "flat" else mesh.vertex_normals()
        own = mesh.face_material
        if own is None:
            own = torch.full((mesh.num_faces,), 0 if mesh.materials else -1, dtype=torch.int32, device=mesh.device)
        self.face_material = torch.where(own < 0, len(mesh.materials), own.long())

    def may_be_transparent(self) -> Tensor:
        """(f,) bool: faces that may let something behind them be seen."""
        alpha = self.rows.get("alpha")
        flags = torch.tensor(
            [m.alpha_mode != "OPAQUE" and (alpha is not None or m.alpha is not None or m.alpha_factor < _CLEAR) for m in self.materials]
        )
        found = flags.to(self.mesh.device)[self.face_material]
        if alpha is not None:
            found &= (alpha[:, 0] < _CLEAR)[self.mesh.faces.long()].any(1)
        if "color" in self.rows:
            blended = torch.tensor([m.alpha_mode != "OPAQUE" for m in self.materials]).to(self.mesh.device)[self.face_material]
            found |= blended & (self.rows["color"][:, 3] < _CLEAR)[self.mesh.faces.long()].any(1)
        return found

    def geometry(self, view: View, hits: Hits) -> tuple[Tensor, Tensor, Tensor]:
        """Position and normal (n, 3), without normal textures, and which of them are seen from behind (n, 1)."""
        position = hits.mix(self.mesh.vertices)
        flat = view.face_normals(hits)
        normal = flat
        if self.vertex_normals is not None:
            smooth = normalize(hits.mix(self.vertex_normals), dim=1, eps=1e-30)
            normal = torch.where((smooth == 0).all(1, keepdim=True), flat, smooth)
        behind = (flat * view.toward_viewer(position)).sum(1, keepdim=True) < 0
        return position, normal, behind

    def shading_normal(self, view: View, hits: Hits) -> Tensor:
        """(n, 3) as `Surface.normal`, without normal textures."""
        _, normal, behind = self.geometry(view, hits)
        return torch.where(behind, -normal, normal) if self.two_sided else normal

    def read(self, view: View, hits: Hits) -> Surface:
        """The surface at pixels in any order; each material is read for the pixels that show it."""
        material = self.face_material[hits.face]
        used = material.unique().tolist()
        if len(used) == 1:
            return self._read(view, hits, self.materials[used[0]])
        rows = [(material == index).nonzero()[:, 0] for index in used]
        parts = [self._read(view, hits.take(r), self.materials[index]) for index, r in zip(used, rows, strict=True)]
        back = torch.cat(rows).argsort()
        names = [field.name for field in fields(Surface)]
        return Surface(*(torch.cat([getattr(part, name) for part in parts])[back] for name in names))

    def _read(self, view: View, hits: Hits, m: Material) -> Surface:
        position, normal, behind = self.geometry(view, hits)
        values = self.textures.read(self._needed(m), view, hits)
        values |= {name: hits.mix(rows) for name, rows in self.rows.items()}
        white, black = position.new_ones(1, 1).expand(len(hits), 1), position.new_zeros(1, 3).expand(len(hits), 3)

        def factor(name: str, value: tuple[float, ...]) -> Tensor:
            if name in self.rows:
                return values[name]
            constant = position.new_tensor(value).expand(len(hits), -1)
            return constant * values[name] if name in values else constant

        base_color = factor("base_color", m.base_color_factor)
        if "color" in values:
            base_color = base_color * values["color"][:, :3]
        if "normal" in values:
            normal = self._mapped_normal(m, hits, normal, values["normal"])
        if self.two_sided:
            normal = torch.where(behind, -normal, normal)
        return Surface(
            position,
            normal,
            base_color,
            factor("emissive", m.emissive_factor) if any(m.emissive_factor) or "emissive" in self.rows else black,
            factor("metallic", (m.metallic_factor,)),
            factor("roughness", (m.roughness_factor,)),
            1 + m.occlusion_strength * (values["occlusion"] - 1) if "occlusion" in values else white,
            white if m.alpha_mode == "OPAQUE" else self._alpha(m, factor("alpha", (m.alpha_factor,)), values),
        )

    def _needed(self, m: Material) -> dict[str, tuple[Texture, float | None]]:
        """The textures that count, each with the cutoff at which to read it."""
        needed: dict[str, tuple[Texture, float | None]] = {}
        for name, texture in m.textures.items():
            if name in self.rows or (name == "normal" and self.normals != "map"):
                continue
            if name == "emissive" and not any(m.emissive_factor):
                continue
            if name == "alpha" and m.alpha_mode == "OPAQUE":
                continue
            needed[name] = (texture, m.alpha_cutoff / m.alpha_factor if name == "alpha" and self._masked_by_texture(m) else None)
        return needed

    def _masked_by_texture(self, m: Material) -> bool:
        """Whether alpha depends on a texture alone, so that its reduced levels can hold the share of texels to keep."""
        return m.alpha_mode == "MASK" and m.alpha is not None and m.alpha_factor > 0 and not {"alpha", "color"} & set(self.rows)

    def _alpha(self, m: Material, alpha: Tensor, values: dict[str, Tensor]) -> Tensor:
        if self._masked_by_texture(m):
            return values["alpha"]
        if "color" in values:
            alpha = alpha * values["color"][:, 3:]
        return (alpha >= m.alpha_cutoff).to(alpha.dtype) if m.alpha_mode == "MASK" else alpha.clamp(0, 1)

    def _mapped_normal(self, m: Material, hits: Hits, normal: Tensor, stored: Tensor) -> Tensor:
        """Turn the normal as the texture says: its x along growing u, y along growing v, z along the normal."""
        uv_set = 0 if m.normal is None else m.normal.uv_set
        a, b, c = hits.corners(self.mesh.vertices).unbind(1)
        t0, t1, t2 = self.textures.corner_uv(uv_set, hits).to(normal).unbind(1)
        (e1, e2), (s1, s2) = (b - a, c - a), (t1 - t0, t2 - t0)
        area = (s1[:, :1] * s2[:, 1:] - s2[:, :1] * s1[:, 1:]).sign()
        along_u = area * (e1 * s2[:, 1:] - e2 * s1[:, 1:])
        along_v = area * (e2 * s1[:, :1] - e1 * s2[:, :1])
        tangent = normalize(along_u - normal * (normal * along_u).sum(1, keepdim=True), dim=1, eps=1e-30)
        other = torch.linalg.cross(normal, tangent)
        other = other * torch.where((other * along_v).sum(1, keepdim=True) < 0, -1.0, 1.0)
        tilt = stored * 2 - 1
        x, y = tilt[:, :1] * m.normal_scale, tilt[:, 1:2] * m.normal_scale
        turned = normalize(x * tangent + y * other + tilt[:, 2:].clamp(min=1e-3) * normal, dim=1)
        return torch.where(area == 0, normal, turned)


def _vertex_rows(where: str, mesh: TriMesh) -> dict[str, Tensor]:
    """The attributes that say how the surface looks, colours in linear light, "color" with its fourth column."""
    rows: dict[str, Tensor] = {}
    for name, allowed in _WIDTHS.items():
        value = mesh.attributes.get(name)
        if value is None:
            continue
        if value.shape[1] not in allowed:
            raise ShapeError(f"{where}: attributes[{name!r}] must have {' or '.join(map(str, allowed))} columns; got {describe(value)}.")
        if value.dtype not in FLOATS:
            raise DtypeError(f"{where}: attributes[{name!r}] must be float in 0..1; got {describe(value)}. Divide bytes by 255.")
        value = value.to(mesh.vertices)
        rows[name] = srgb_to_linear(value) if name in ("base_color", "emissive") else value
    if "color" in rows and rows["color"].shape[1] == 3:
        rows["color"] = pad(rows["color"], (0, 1), value=1.0)
    return rows
