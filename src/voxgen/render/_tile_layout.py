"""Where tiles lie: their sides, where they begin, and the region that they cover."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core.checks import FLOATS, describe, require_int, require_tensor
from voxgen.core.errors import ShapeError


class Tile(NamedTuple):
    """A rectangle of pixels; it is a `crop=` of `render_gaussians` as it stands."""

    left: int
    top: int
    width: int
    height: int

    @property
    def window(self) -> tuple[int, int, int, int]:
        """(top, left, rows, columns), which `rasterize` takes as `window=`."""
        return self.top, self.left, self.height, self.width

    def cut(self, image: Tensor, dim: int = 1) -> Tensor:
        """The tile of an image whose rows lie along `dim` and whose columns along the next axis; a view."""
        return image.narrow(dim, self.top, self.height).narrow(dim + 1, self.left, self.width)


def tile_side(length: int, count: int, overlap: int, multiple: int) -> int:
    needed = math.ceil((length + (count - 1) * overlap) / count)
    return min(length, math.ceil(needed / multiple) * multiple)


def origins(start: int, length: int, count: int, side: int) -> list[int]:
    """Where tiles begin, evenly from the start of the region to its end, each once."""
    if count == 1:
        return [start]
    return sorted({start + round(i * (length - side) / (count - 1)) for i in range(count)})


def region_box(where: str, width: int, height: int, region: Tensor | tuple[int, int, int, int] | None, overlap: int) -> Tile:
    whole = Tile(0, 0, width, height)
    if region is None:
        return whole
    if not isinstance(region, Tensor):
        if not isinstance(region, (tuple, list)) or len(region) != 4:
            raise ShapeError(f"{where}: region must be (left, top, width, height), or an (h, w) mask; got {describe(region)}.")
        left = require_int(where, "region[0] (left)", region[0], 0, width - 1)
        top = require_int(where, "region[1] (top)", region[1], 0, height - 1)
        columns = require_int(where, "region[2] (width)", region[2], 1, width - left)
        return Tile(left, top, columns, require_int(where, "region[3] (height)", region[3], 1, height - top))
    check_mask(where, "region", region, width, height)
    rows, columns = ((region > 0).any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return whole
    left, top = max(0, columns[0] - overlap), max(0, rows[0] - overlap)
    return Tile(left, top, min(width, columns[-1] + 1 + overlap) - left, min(height, rows[-1] + 1 + overlap) - top)


def check_mask(where: str, name: str, mask: Tensor, width: int, height: int) -> None:
    require_tensor(where, name, mask, (height, width), (torch.bool, torch.uint8, *FLOATS))
