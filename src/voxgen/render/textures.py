"""Reading a mesh's textures at pixels, from the level that fits the pixel's footprint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor

from voxgen.core import Texture, TriMesh
from voxgen.core.errors import MeshWarning
from voxgen.ops.texture import TexturePyramid, build_pyramid, sample_texture

from .hits import Hits, View


class TextureReader:
    """The textures of one mesh. Reduced levels are built when a texture is first seen, and kept for the other views."""

    def __init__(self, where: str, mesh: TriMesh) -> None:
        self.where = where
        self.mesh = mesh
        self._pyramids: dict[tuple[object, ...], TexturePyramid] = {}

    def read(self, textures: Mapping[str, tuple[Texture, float | None]], view: View, hits: Hits) -> dict[str, Tensor]:
        """Values (n, c) in linear light of textures by name; with a cutoff, the share of the pixel's footprint that reaches it.

        Textures that read one image in one way are looked up together.
        """
        together: dict[tuple[object, ...], list[str]] = {}
        for name, (t, cutoff) in textures.items():
            together.setdefault((id(t.image), t.wrap, t.filter, t.uv_set, cutoff), []).append(name)
        found: dict[str, Tensor] = {}
        places = {uv_set: self._place(uv_set, view, hits) for uv_set in {t.uv_set for t, _ in textures.values()}}
        for names in together.values():
            group = [textures[name][0] for name in names]
            t, cutoff = textures[names[0]]
            uv, step = places[t.uv_set]
            height, width = t.image.shape[:2]
            texels = (step * step.new_tensor((width, height))[:, None]).square().sum(1).amax(1)  # square of the footprint's longer side
            level = texels.clamp(min=1e-20).log2() / 2
            values = sample_texture(self._pyramid(group, cutoff), uv, level, wrap=t.wrap, filter=t.filter)
            widths = [len(t.channels) for t in group]
            found |= dict(zip(names, values.to(self.mesh.vertices).split(widths, 1), strict=True))
        return found

    def _place(self, uv_set: int, view: View, hits: Hits) -> tuple[Tensor, Tensor]:
        """Texture coordinates (n, 2), and how they change to the next pixel right and down, (n, 2, 2)."""
        corners = self.corner_uv(uv_set, hits)
        return (corners * hits.weights[..., None].to(corners.dtype)).sum(1), view.footprints(hits, corners).detach()

    def corner_uv(self, uv_set: int, hits: Hits) -> Tensor:
        """(n, 3, 2) texture coordinates of the faces' corners; zeros, with a warning, where the mesh has none."""
        uv = self.mesh.uv if uv_set == 0 else self.mesh.uv1
        if uv is None:
            name = "uv" if uv_set == 0 else "uv1"
            warnings.warn(
                f"{self.where}: the mesh has no {name}, but its textures need it; they are read at (0, 0). "
                "Give the mesh texture coordinates, or its materials no textures.",
                MeshWarning,
                stacklevel=2,
            )
            uv = self.mesh.vertices.new_zeros(self.mesh.num_vertices, 2)
        return hits.corners(uv)

    def _pyramid(self, group: list[Texture], cutoff: float | None) -> TexturePyramid:
        channels = [c for t in group for c in t.channels]
        srgb = [t.srgb for t in group for _ in t.channels]
        key = (id(group[0].image), tuple(channels), tuple(srgb), cutoff)
        if key not in self._pyramids:
            self._pyramids[key] = build_pyramid(group[0].image[:, :, channels].to(self.mesh.device), srgb=srgb, cutoff=cutoff)
        return self._pyramids[key]
