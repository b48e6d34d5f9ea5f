"""Baking of a material volume into textures of a mesh."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import MissingDependency, RangeError
from voxgen.ops.sample import sample_trilinear

if TYPE_CHECKING:
    from ._fields import OVoxel

MIN_SQUARE = 5
"""Pixels a side that a pair of triangles needs in the grid atlas: three texels of legs and two diagonals of padding."""
CHUNK = 1 << 20
"""Texels sampled at once; about 300 bytes each."""


class Atlas(NamedTuple):
    """Where each texel lies on the surface.

    mesh: with uv.   face: (h, w) int64, -1 outside every chart.   weights: (h, w, 3) barycentric (may leave [0, 1] in paddings).
    source: (v,) the vertex of the mesh it was made for that each of its vertices is.
    """

    mesh: TriMesh
    face: Tensor
    weights: Tensor
    source: Tensor


def bake_materials(mesh: TriMesh, ovoxel: OVoxel, texture_size: int, unwrap: str) -> TriMesh:
    """Lay an atlas over `mesh`, sample the materials trilinearly at each texel's world position, and attach the images.

    Args:
        mesh: in the O-Voxel's world frame.
        texture_size: side of the square images, pixels.
        unwrap: "grid" or "xatlas", see `to_mesh`.
    Returns:
        TriMesh with uv and one material: base colour (with alpha), roughness and metallic in one image, emissive.
    Raises:
        RangeError: the images are too small for the grid atlas; the message says how large they must be.
        MissingDependency: "xatlas" is asked for and not installed.
    """
    atlas = make_atlas("OVoxel.to_mesh", mesh, texture_size, unwrap)
    images = atlas_images(atlas, ovoxel, fill=unwrap == "xatlas")
    return atlas.mesh.replace(materials=(atlas_material(images, mesh.materials[0]),), attributes={})


def make_atlas(where: str, mesh: TriMesh, texture_size: int, unwrap: str) -> Atlas:
    """A new atlas of square images, "grid" or "xatlas"; errors as `bake_materials`."""
    size = require_int(where, "texture_size", texture_size, 2 * MIN_SQUARE, 16384)
    require_choice(where, "unwrap", unwrap, ("grid", "xatlas"))
    return _grid_atlas(mesh, size) if unwrap == "grid" else _chart_atlas(mesh, size)


def atlas_images(atlas: Atlas, ovoxel: OVoxel, *, fill: bool) -> dict[str, Tensor]:
    """(h, w, c) in [0, 1] of each material, sampled trilinearly at the position of each texel.

    Args:
        fill: texels outside all charts, and those with no cell of the O-Voxel around them, take the value of the nearest other.
    """
    volume = torch.cat([*ovoxel.materials.values(), torch.ones_like(ovoxel.dual_vertices[:, :1])], 1)
    owner = atlas.face.flatten()
    texels = volume.new_zeros(len(owner), volume.shape[1])
    corners, weights = atlas.mesh.corners(), atlas.weights.reshape(-1, 3)
    for rows in (owner >= 0).nonzero()[:, 0].split(CHUNK):
        points = (corners[owner[rows]] * weights[rows, :, None]).sum(1)
        texels[rows] = sample_trilinear(volume, ovoxel.grid, ovoxel.frame.to_index(points))
    image = texels.reshape(*atlas.face.shape, -1)
    known = image[..., -1] > 0.5  # a volume of ones is 1 where there is any cell
    image = image[..., :-1]
    if fill:
        image = _bleed(image, known)
    return dict(zip(ovoxel.materials, image.clamp(0, 1).split([v.shape[1] for v in ovoxel.materials.values()], 2), strict=True))


def _grid_atlas(mesh: TriMesh, size: int) -> Atlas:
    """Two triangles to a square, squares in rows: no charts to find, so any mesh works, at the price of a seam at every edge.

    Triangle A has its right angle at the square's first texel and owns the texels with i + j <= side - 2, B the others;
    one diagonal of each is padding, so that bilinear lookups of one triangle never read the other's texels.
    """
    per_row = math.ceil(math.sqrt((mesh.num_faces + 1) // 2))
    side = size // per_row
    if side < MIN_SQUARE:
        raise RangeError(
            f"OVoxel.to_mesh: texture_size must be at least {per_row * MIN_SQUARE} for {mesh.num_faces} faces in the grid atlas; "
            f"got {size}. Enlarge it, or keep the materials as vertex attributes (materials='attributes')."
        )
    device = mesh.device
    face = torch.arange(mesh.num_faces, device=device)
    square, upper = face // 2, (face % 2 == 1)[:, None, None]
    first = torch.stack((square % per_row, square // per_row), 1)[:, None] * side
    near = torch.tensor([[0.5, 0.5], [side - 2.5, 0.5], [0.5, side - 2.5]], device=device)
    far = torch.tensor([[side - 0.5, side - 0.5], [1.5, side - 0.5], [side - 0.5, 1.5]], device=device)
    pixels = first + torch.where(upper, far, near)
    uv = torch.stack((pixels[..., 0] / size, 1 - pixels[..., 1] / size), -1).reshape(-1, 2)
    vertices = mesh.corners().reshape(-1, 3)
    flat = mesh.replace(
        vertices=vertices, faces=torch.arange(len(vertices), device=device).reshape(-1, 3), uv=uv, normals=None, attributes={}
    )

    line = torch.arange(size, device=device)
    i, j = line[None, :] % side, line[:, None] % side
    inside = (line[None, :] < per_row * side) & (line[:, None] < per_row * side)
    second = i + j > side - 2
    owner = ((line[:, None] // side) * per_row + line[None, :] // side) * 2 + second
    owner = torch.where(inside & (owner < mesh.num_faces), owner, -1)
    a = torch.stack((i / (side - 3) + 0 * j, j / (side - 3) + 0 * i), -1)
    b = torch.stack(((side - 1 - i) / (side - 2) + 0 * j, (side - 1 - j) / (side - 2) + 0 * i), -1)
    st = torch.where(second[..., None], b, a)
    return Atlas(flat, owner, torch.cat((1 - st.sum(-1, keepdim=True), st), -1), mesh.faces.flatten().long())


def _chart_atlas(mesh: TriMesh, size: int) -> Atlas:
    """Charts by the xatlas package, one texel of padding."""
    try:
        import xatlas
    except ImportError:
        raise MissingDependency("OVoxel.to_mesh: unwrap='xatlas' needs the package xatlas: pip install 'voxgen[uv]'.") from None
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.detach().float().cpu().numpy(), mesh.faces.cpu().numpy().astype("uint32"))
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = size, 2, True
    atlas.generate(pack_options=options)
    source, faces, uv = atlas[0]
    if atlas.atlas_count > 1:
        raise RangeError(
            f"OVoxel.to_mesh: the charts of {mesh.num_faces} faces do not fit one image of {size} pixels; enlarge texture_size."
        )
    uv = torch.from_numpy(uv).to(mesh.device)
    source = torch.from_numpy(source.astype("int64")).to(mesh.device)
    flat = mesh.replace(
        vertices=mesh.vertices[source], faces=torch.from_numpy(faces.astype("int64")).to(mesh.device), uv=uv, normals=None, attributes={}
    )
    return uv_atlas(flat, size, source)


def uv_atlas(mesh: TriMesh, size: int, source: Tensor) -> Atlas:
    """The atlas that a mesh's own texture coordinates are."""
    from voxgen.ops.rasterize import rasterize

    if mesh.uv is None:
        raise RangeError("OVoxel.bake: the mesh has no texture coordinates; pass unwrap='xatlas' or 'grid'.")
    uv = mesh.uv.float()
    ones = torch.ones_like(uv[:, :1])
    clip = torch.cat((uv[:, :1] * 2 - 1, 1 - 2 * uv[:, 1:], 0 * ones, ones), 1)
    raster = rasterize(clip, mesh.faces, size, size)
    return Atlas(mesh, raster.face_id[0].long(), raster.barycentrics[0], source)


def _bleed(image: Tensor, known: Tensor) -> Tensor:
    """Give every unknown texel the value of the nearest known one, so that filtering across chart borders finds no black."""
    from scipy.ndimage import distance_transform_edt

    if bool(known.all()) or not bool(known.any()):
        return image
    nearest: Any = distance_transform_edt(~known.cpu().numpy(), return_distances=False, return_indices=True)
    rows, columns = (torch.from_numpy(index.astype("int64")).to(image.device) for index in nearest)
    return image[rows, columns]


def atlas_material(images: Mapping[str, Tensor], template: Material) -> Material:
    def to_bytes(*planes: Tensor) -> Tensor:
        return (torch.cat(planes, 2) * 255).round().to(torch.uint8).cpu()

    some = next(iter(images.values()))
    one = torch.ones_like(some[..., :1])
    color = to_bytes(images.get("base_color", one.expand(-1, -1, 3)), images.get("alpha", one))
    packed = to_bytes(one, images.get("roughness", one), images.get("metallic", one))
    return Material(
        template.name,
        base_color=Texture(color, (0, 1, 2), srgb=True, name="base_color"),
        alpha=Texture(color, (3,), name="base_color"),
        roughness=Texture(packed, (1,), name="metallic_roughness"),
        metallic=Texture(packed, (2,), name="metallic_roughness"),
        emissive=Texture(to_bytes(images["emissive"]), (0, 1, 2), srgb=True, name="emissive") if "emissive" in images else None,
        emissive_factor=(1.0, 1.0, 1.0) if "emissive" in images else (0.0, 0.0, 0.0),
        alpha_mode=template.alpha_mode,
        double_sided=True,
    )
