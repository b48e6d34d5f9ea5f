"""Looking up textures: reduced levels for images of any size, bilinear and nearest samples, wrapping.

`build_pyramid` makes the levels of an image, `sample_texture` reads them at texture coordinates. `resize_to_power_of_two`
gives textures the sizes that TRELLIS.2's converter can read.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.checks import describe, require_choice, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.core.material import Wrap
from voxgen.ops._registry import Backend, Call, Op, cpu_only, no_gradient

from ._pyramid import TexturePyramid, build_pyramid
from ._resize import resize_to_power_of_two

__all__ = ["TexturePyramid", "build_pyramid", "resize_to_power_of_two", "sample_texture"]

OP = Op(
    "texture",
    [
        Backend("numba", "voxgen.ops.texture._numba:sample", (cpu_only, no_gradient)),
        Backend("reference", "voxgen.ops.texture._reference:sample"),
    ],
)

WRAP_CODES = {"repeat": 0, "clamp": 1, "mirror": 2}


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
