"""Looking up textures: reduced levels for images of any size, bilinear and nearest samples, wrapping.

`build_pyramid` makes the levels of an image, `sample_texture` reads them at texture coordinates. `texture` reads images of
texture coordinates, as nvdiffrast does, cube maps too. `resize_to_power_of_two` gives textures the sizes that TRELLIS.2's
converter can read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.checks import describe, require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.core.material import Wrap
from voxgen.ops._registry import Backend, Call, Op, cpu_only, no_gradient

from ._cube import cube_footprint, locate_on_cube, sample_cube
from ._footprint import footprint_level
from ._pyramid import ZERO, TexturePyramid, build_pyramid, reduced_levels
from ._resize import resize_to_power_of_two

__all__ = ["TexturePyramid", "build_pyramid", "resize_to_power_of_two", "sample_texture", "texture"]

OP = Op(
    "texture",
    [
        Backend("numba", "voxgen.ops.texture._numba:sample", (cpu_only, no_gradient)),
        Backend("reference", "voxgen.ops.texture._reference:sample"),
    ],
)

WRAP_CODES = {"repeat": 0, "clamp": 1, "mirror": 2}
BOUNDARIES = {"wrap": WRAP_CODES["repeat"], "clamp": WRAP_CODES["clamp"], "zero": ZERO, "cube": -1}
FILTERS = ("nearest", "linear", "linear-mipmap-nearest", "linear-mipmap-linear")


def sample_texture(
    pyramid: TexturePyramid,
    uv: Float[Tensor, "n 2"],
    level: Float[Tensor, " n"] | float = 0.0,
    *,
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat"),
    filter: str = "linear",
    backend: str = "auto",
) -> Float[Tensor, "n c"]:
    """Read a texture at texture coordinates, between two of its levels.

    A sample lies at x = u · w, y = (1 − v) · h in each level; texel (row i, column j) has its centre at (j + 0.5, i + 0.5).
    "linear" mixes the four texels around it. "nearest" takes the texel it lies in, at level 0 only: reduced levels are
    means, and are mixed in either case.

    Args:
        pyramid: the levels, from `build_pyramid`.
        uv: (n, 2) float32 or float64, v up: v = 1 is the top edge of row 0. Any finite value.
        level: (n,) or one for all, any value: 0 and below read level 0, k reads level k (each halves the image), a
            fraction mixes two levels, beyond the last reads the last. NaN reads level 0.
        wrap: what happens outside [0, 1] along u and v: "repeat", "clamp" or "mirror".
        filter: "linear" or "nearest".
        backend: see docs/backends.md.
    Returns:
        (n, c) in the dtype of uv. For a pyramid with a cutoff: the share of the texture that reaches it (0 or 1 at level
        0). Differentiable in the levels and, where bilinear, in uv; not in `level`.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: arguments that do not fit.
    Empty uv: (0, c).
    Source: glTF 2.0, 3.8.4 (samplers); trilinear filtering.
    Numerics: reference in the dtype of uv; numba in float64, rounded at the end.
    Example:
        >>> pyramid = build_pyramid(torch.rand(5, 7, 3))
        >>> sample_texture(pyramid, torch.rand(10, 2), level=1.5).shape
        torch.Size([10, 3])
    """
    where = "sample_texture"
    if not isinstance(pyramid, TexturePyramid):
        raise ShapeError(f"{where}: pyramid must be a TexturePyramid; got {describe(pyramid)}. Make one with build_pyramid(image).")
    require_tensor(where, "uv", uv, ("n", 2), (torch.float32, torch.float64))
    levels = level if isinstance(level, Tensor) else torch.full((len(uv),), float(level), dtype=uv.dtype, device=uv.device)
    require_tensor(where, "level", levels, (len(uv),), (torch.float32, torch.float64))
    require_same_device(where, uv=uv, level=levels, pyramid=pyramid.levels[0])
    if len(wrap) != 2:
        raise RangeError(f"{where}: wrap must name one rule for u and one for v; got {wrap}.")
    for rule in wrap:
        require_choice(where, "wrap", rule, tuple(WRAP_CODES))
    require_choice(where, "filter", filter, ("linear", "nearest"))
    codes = torch.tensor([[WRAP_CODES[w] for w in wrap]], dtype=torch.int8, device=uv.device).expand(len(uv), 2)
    call = Call.of(uv, *pyramid.levels)
    return OP.run(backend, call, pyramid, uv, levels.detach(), codes, filter == "nearest")


def texture(
    tex: Float[Tensor, "b *size c"],
    uv: Float[Tensor, "b h w _"],
    uv_da: Float[Tensor, "b h w _ 2"] | None = None,
    *,
    level: Float[Tensor, "b h w"] | None = None,
    mip: Sequence[Tensor] | None = None,
    max_mip_level: int | None = None,
    filter: str = "auto",
    boundary: str = "wrap",
    backend: str = "auto",
) -> Float[Tensor, "b h w c"]:
    """Read textures at an image of texture coordinates, as nvdiffrast's `texture` does.

    The footprint of a pixel, which chooses the level, comes from the rasteriser: slopes = screen_derivatives(positions, faces,
    raster); uv_da = interpolate_derivatives(uv, faces, raster, slopes).

    Args:
        tex: (b or 1, th, tw, c) float32 or float64; for cubes (b or 1, 6, s, s, c), faces in the order +x, -x, +y, -y, +z, -z and each laid
            out as OpenGL does. Row 0 is at v = 0 (in `sample_texture`, at v = 1).
        uv: (b, h, w, 2), one texture over [0, 1]²; texel (row i, column j) has its centre at ((j + 0.5) / tw, (i + 0.5) / th). For cubes
            (b, h, w, 3) directions of any length.
        uv_da: (b, h, w, 2, 2), for cubes (b, h, w, 3, 2): d uv / d (column, row) of a pixel. The level is log2 of the longer axis of the
            pixel's footprint in texels.
        level: (b, h, w) added to that level; without uv_da, the level itself (nvdiffrast's mip_level_bias).
        mip: the reduced levels, each (b or 1, th', tw', c) or (b or 1, 6, s', s', c), instead of means that are made here.
        max_mip_level: the last level that is made; None goes down to one texel.
        filter: "nearest", "linear" (bilinear), "linear-mipmap-nearest" (bilinear in the level next to the wanted one),
            "linear-mipmap-linear" (between two levels). "auto" takes the last with uv_da or level, else "linear".
        boundary: what lies outside: "wrap" (repeats), "clamp", "zero", or "cube" for cube maps, whose faces join without a seam.
        backend: see docs/backends.md. "cube" is plain torch on every device.
    Returns:
        (b, h, w, c) in the dtype of tex. Differentiable in tex, mip and, unless the filter is "nearest", in uv; in uv_da and level for
        "linear-mipmap-linear". A cube's direction of length 0 reads 0.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit each other.   RangeError: an unknown filter or boundary, a filter
        with levels without uv_da and level, or levels given to one without.
    No pixels: an empty image.
    Source: nvdiffrast (Laine et al. 2020), section 3.3; OpenGL 4.6, 8.13 and 8.14 (cube maps, levels). Differences: textures of any size
        have levels (exact means over equal boxes); three texels that meet at a cube's corner are all three read there.
    Numerics: the reference in the dtype of uv; numba in float64, rounded at the end.
    Memory: reduced levels take a third of the texels; about 200 + 40 c bytes a pixel where a gradient is wanted.
    Example:
        >>> texture(torch.rand(1, 8, 8, 3), torch.rand(2, 5, 4, 2)).shape
        torch.Size([2, 5, 4, 3])
    """
    where = "texture"
    require_choice(where, "boundary", boundary, tuple(BOUNDARIES))
    require_choice(where, "filter", filter, ("auto", *FILTERS))
    cube = boundary == "cube"
    tex_shape = ("b", 6, "s", "s", "c") if cube else ("b", "h", "w", "c")
    images = _checked_levels(where, tex, mip, tex_shape)
    axes = 3 if cube else 2
    require_tensor(where, "uv", uv, ("b", "h", "w", axes), (torch.float32, torch.float64))
    if len(tex) not in (1, len(uv)):
        raise ShapeError(f"{where}: tex must hold one texture or one for each of the {len(uv)} images of uv; got {len(tex)}.")
    if uv_da is not None:
        require_tensor(where, "uv_da", uv_da, (*uv.shape, 2), hint="Use interpolate_derivatives(uv, faces, raster, slopes).")
    if level is not None:
        require_tensor(where, "level", level, uv.shape[:3], (torch.float32, torch.float64))
    require_same_device(where, tex=tex, uv=uv, uv_da=uv_da, level=level)
    if filter == "auto":
        filter = "linear" if uv_da is None and level is None else "linear-mipmap-linear"
    if "mipmap" not in filter:
        if uv_da is not None or level is not None or mip is not None:
            raise RangeError(f"{where}: filter {filter!r} reads one level; leave uv_da, level and mip out, or take another filter.")
        wanted, images = uv.new_zeros(uv.shape[:3]), images[:1]
    else:
        if uv_da is None and level is None:
            raise RangeError(f"{where}: filter {filter!r} needs uv_da or level, to choose the level of each pixel.")
        if mip is None:
            last = None if max_mip_level is None else require_int(where, "max_mip_level", max_mip_level, 0)
            images = reduced_levels(tex, last)
        size = uv.new_tensor((tex.shape[-2], tex.shape[-3]))
        wanted = uv.new_zeros(uv.shape[:3])
        if uv_da is not None:
            footprint = cube_footprint(uv, uv_da.to(uv.dtype)) if cube else uv_da.to(uv.dtype)
            wanted = footprint_level(footprint * size[:, None])
        if level is not None:
            wanted = wanted + level.to(uv.dtype)
        if filter == "linear-mipmap-nearest":
            wanted = (wanted.detach() + 0.5).floor()
    if cube:
        return sample_cube(images, *locate_on_cube(uv), wanted, filter == "nearest").to(tex.dtype)
    engine = OP.engine(backend, uv, *images, wanted)
    code = torch.full((1, 2), BOUNDARIES[boundary], dtype=torch.int8, device=uv.device)
    found = []
    for i in range(len(tex)):
        pyramid = TexturePyramid(tuple(image[i] for image in images))
        one, place = (uv[i], wanted[i]) if len(tex) > 1 else (uv, wanted)
        place, one = place.flatten(), one.reshape(-1, 2)
        found.append(engine(pyramid, one, place, code.expand(len(one), 2), filter == "nearest", v_up=False))
    return torch.cat(found).view(*uv.shape[:3], tex.shape[-1]).to(tex.dtype)


def _checked_levels(where: str, tex: Tensor, mip: Sequence[Tensor] | None, shape: tuple[int | str, ...]) -> list[Tensor]:
    """The texture and the reduced levels that the caller has, or an error."""
    images = [tex, *(mip or ())]
    for name, image in zip(("tex", *(f"mip[{i}]" for i in range(len(images) - 1))), images, strict=True):
        require_tensor(where, name, image, shape, (torch.float32, torch.float64))
        if image.numel() == 0:
            raise RangeError(f"{where}: {name} must have at least one texel and one channel; got {tuple(image.shape)}.")
        if (len(image), image.shape[-1], image.dtype) != (len(tex), tex.shape[-1], tex.dtype):
            raise ShapeError(f"{where}: {name} must have the textures, channels and dtype of tex {describe(tex)}; got {describe(image)}.")
        if len(shape) == 5 and image.shape[2] != image.shape[3]:
            raise ShapeError(f"{where}: {name} must have square faces; got {image.shape[2]} × {image.shape[3]}.")
    require_same_device(where, **{str(i): image for i, image in enumerate(images)})
    return images
