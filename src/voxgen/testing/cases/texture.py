"""Inputs for `voxgen.ops.texture`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from voxgen.core.material import Wrap
from voxgen.ops.texture import build_pyramid, sample_texture, texture

from . import Case

DTYPES = (torch.float32, torch.float64)

WRAPS: tuple[tuple[Wrap, Wrap], ...] = (("repeat", "mirror"), ("clamp", "repeat"), ("mirror", "clamp"))


def cases(dtype: torch.dtype) -> list[Case]:
    """Sizes odd and even, bytes and floats, every wrapping and filter, levels below the first and beyond the last."""
    g = torch.Generator().manual_seed(7)
    made = []

    def add(name: str, image: Tensor, count: int = 500, pyramid: dict[str, Any] | None = None, **sampling: Any) -> None:
        uv = (torch.rand(count, 2, generator=g, dtype=torch.float64) * 5 - 2).to(dtype)
        level = (torch.rand(count, generator=g, dtype=torch.float64) * 8 - 2).to(dtype)
        run = partial(_run, pyramid=pyramid or {}, sampling=sampling)
        made.append(Case(name, {"uv": uv, "level": level, "image": image}, run))

    def floats(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g)

    def data(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)

    add("odd-sides", floats(13, 9, 3))
    add("power-of-two", floats(16, 16, 1))
    add("one-texel", floats(1, 1, 4))
    add("one-row", floats(1, 12, 2), wrap=("repeat", "clamp"))
    add("no-samples", floats(4, 4, 3), 0)
    add("not-contiguous", floats(3, 8, 6).permute(2, 1, 0))
    add("bytes", data(11, 16, 3))
    add("bytes-some-encoded", data(12, 10, 4), pyramid={"srgb": (True, True, True, False)})
    add("bytes-compat", data(16, 16, 3), pyramid={"compat": "trellis2"})
    add("mask", data(16, 11, 1), pyramid={"cutoff": 0.4})
    add("float-mask", floats(7, 5, 1), pyramid={"cutoff": 0.6})
    for wrap in WRAPS:
        for kind in ("linear", "nearest"):
            add(f"{wrap[0]}-{wrap[1]}-{kind}", floats(6, 10, 3), wrap=wrap, filter=kind)
    for kind in ("nearest", "linear", "linear-mipmap-nearest", "linear-mipmap-linear"):
        for boundary in ("wrap", "clamp", "zero", "cube"):
            made.append(_images(f"images-{boundary}-{kind}", g, dtype, kind, boundary))
    return made


def _images(name: str, g: torch.Generator, dtype: torch.dtype, kind: str, boundary: str) -> Case:
    """Two images of texture coordinates, each with its texture; a level of its own where the filter has levels."""
    cube = boundary == "cube"
    tex = torch.rand((2, 6, 5, 5, 3) if cube else (2, 7, 12, 3), generator=g, dtype=torch.float64).to(dtype)
    uv = (torch.rand((2, 6, 8, 3 if cube else 2), generator=g, dtype=torch.float64) * 4 - 2).to(dtype)
    level = (torch.rand((2, 6, 8), generator=g, dtype=torch.float64) * 6 - 1).to(dtype)
    return Case(name, {"tex": tex, "uv": uv, "level": level}, partial(_run_images, kind=kind, boundary=boundary))


def _run_images(backend: str, inputs: Mapping[str, Tensor], *, kind: str, boundary: str) -> Mapping[str, Tensor]:
    level = inputs["level"] if "mipmap" in kind else None
    return {"values": texture(inputs["tex"], inputs["uv"], level=level, filter=kind, boundary=boundary, backend=backend)}


def _run(backend: str, inputs: Mapping[str, Tensor], *, pyramid: dict[str, Any], sampling: dict[str, Any]) -> Mapping[str, Tensor]:
    levels = build_pyramid(inputs["image"], **pyramid)
    return {"values": sample_texture(levels, inputs["uv"], inputs["level"], **sampling, backend=backend)}
