"""Images cut in overlapping tiles, so that the memory of a training step does not grow with the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.checks import FLOATS, describe, require_int, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError

from ._tile_layout import Tile as Tile
from ._tile_layout import check_mask, origins, region_box, tile_side

SMALLEST_SHARE = 0.01
"""Tiles with less foreground than this share of their pixels are not drawn by `sample`."""


@dataclass(frozen=True)
class ViewTiling:
    """Overlapping tiles that cover a region of an image, from top left to bottom right, all of one size.

    A renderer that draws a tile as the crop of the full image (`render_gaussians(crop=tile)`, `rasterize(window=tile.window)`) makes the
    sum over tiles exactly the full image: `part_of_mean` of all tiles add up to the mean over the region, and so do their gradients.

    Make one with `ViewTiling.of`.

    Args:
        width, height: of the full image.
        region: what the tiles cover.
        tiles: in rows.
        overlap: pixels that neighbouring tiles share, at least.
    """

    width: int
    height: int
    region: Tile
    tiles: tuple[Tile, ...]
    overlap: int

    @staticmethod
    def of(
        image: Camera | tuple[int, int],
        tiles: int | tuple[int, int] | None = None,
        *,
        side: int | None = None,
        overlap: int = 16,
        region: Tensor | tuple[int, int, int, int] | None = None,
        multiple: int = 16,
    ) -> ViewTiling:
        """Cut an image in tiles.

        Args:
            image: a camera, or (width, height).
            tiles: how many along each axis, k or (across, down). The side is ceil((L + (k - 1) overlap) / k), rounded up to a multiple, at
                most the length L of the region; so large tiles may leave out some, and never two are the same.
            side: instead, the side of the tiles in pixels; as many as are needed.
            overlap: pixels that neighbours share, at least.
            region: what to cover: (left, top, width, height), or an (h, w) mask or alpha, of which the bounding box of what is above 0 is
                taken and widened by the overlap; the whole image where nothing is. None: the whole image.
            multiple: sides are rounded up to a multiple of this.
        Raises:
            RangeError: a number out of range, an overlap that is not less than the side, a region outside the image; both or none of
            `tiles` and `side`.   ShapeError, DtypeError: a region of another size or kind.
        Source: Sparse-Up, view-domain partitioning (the paper gives no rule; this one covers every pixel, and the first and last tile
            touch the border of the region).
        Example:
            >>> [tuple(t) for t in ViewTiling.of((100, 60), (2, 1), overlap=8).tiles]
            [(0, 0, 64, 60), (36, 0, 64, 60)]
        """
        where = "ViewTiling.of"
        width, height = (image.width, image.height) if isinstance(image, Camera) else image
        width, height = require_int(where, "width", width, 1), require_int(where, "height", height, 1)
        require_int(where, "overlap", overlap, 0)
        require_int(where, "multiple", multiple, 1)
        if (tiles is None) == (side is None):
            raise RangeError(f"{where}: give either tiles, how many, or side, in pixels; got tiles={tiles}, side={side}.")
        box = region_box(where, width, height, region, overlap)
        if side is not None:
            require_int(where, "side", side, 1)
            if overlap >= side:
                raise RangeError(f"{where}: overlap must be less than the side of a tile, {side}; got {overlap}.")
            lengths = [min(side, length) for length in (box.width, box.height)]
            counts = [
                math.ceil((length - overlap) / (own - overlap)) if length > own else 1
                for length, own in zip((box.width, box.height), lengths, strict=True)
            ]
        else:
            pair = tiles if isinstance(tiles, tuple) else (tiles, tiles)
            if len(pair) != 2:
                raise ShapeError(f"{where}: tiles must be one number or two; got {describe(tiles)}.")
            counts = [require_int(where, "tiles", k, 1) for k in pair]
            lengths = [tile_side(length, k, overlap, multiple) for length, k in zip((box.width, box.height), counts, strict=True)]
        across = origins(box.left, box.width, counts[0], lengths[0])
        down = origins(box.top, box.height, counts[1], lengths[1])
        found = tuple(Tile(x, y, lengths[0], lengths[1]) for y in down for x in across)
        return ViewTiling(width, height, box, found, overlap)

    def __len__(self) -> int:
        return len(self.tiles)

    def cover(self, device: torch.device | str = "cpu") -> Int64[Tensor, "h w"]:
        """How many tiles show each pixel of the image: at least 1 in the region, 0 outside."""
        return self._cover(Tile(0, 0, self.width, self.height)).to(device)

    def part_of_mean(self, error: Float[Tensor, "... h w"], index: int) -> Float[Tensor, ""]:
        """What tile `index` adds to the mean of an error over the region; each pixel counts by 1 / (tiles that show it).

        The sum over all tiles is the mean over the region. For one tile drawn uniformly, `len(tiling)` times this is an unbiased estimate.

        Args:
            error: (..., tile height, tile width) of any float dtype; axes in front are averaged over.
            index: of the tile.
        Raises:
            ShapeError: an error of another size.   RangeError: no such tile.
        """
        where = "ViewTiling.part_of_mean"
        tile = self.tiles[require_int(where, "index", index, 0, len(self) - 1)]
        if not isinstance(error, Tensor) or error.ndim < 2 or tuple(error.shape[-2:]) != (tile.height, tile.width):
            raise ShapeError(f"{where}: error must be (..., {tile.height}, {tile.width}), the size of tile {index}; got {describe(error)}.")
        weight = 1 / self._cover(tile).to(error)
        front = max(1, math.prod(error.shape[:-2]))
        return (error * weight).sum() / (front * self.region.width * self.region.height)

    def sample(self, generator: torch.Generator | None = None, *, foreground: Tensor | None = None) -> int:
        """Index of a random tile.

        Args:
            generator: of random numbers, on the CPU; None is torch's own.
            foreground: (h, w) mask or alpha of the image; tiles are drawn in proportion to it then, those with less than 1 % never. None,
                or nothing in any tile: uniformly.
        """
        weight = torch.ones(len(self), dtype=torch.float64)
        if foreground is not None:
            check_mask("ViewTiling.sample", "foreground", foreground, self.width, self.height)
            shown = foreground.detach().double().clamp(0, 1).cpu()
            share = torch.stack([tile.cut(shown, 0).mean() for tile in self.tiles])
            share = torch.where(share < SMALLEST_SHARE, 0, share)
            weight = share if float(share.sum()) > 0 else weight
        return int(torch.multinomial(weight, 1, generator=generator))

    def stitch(self, parts: Sequence[Tensor], *, dim: int = 1, blend: bool = False, outside: float = 0.0) -> Tensor:
        """Put drawn tiles together to the full image.

        Args:
            parts: one image a tile, rows along `dim`, columns along the next axis.
            dim: axis of the rows; 1 fits (v, h, w) and (v, h, w, c).
            blend: False takes each pixel from the one tile in whose middle it lies more, which is exact where tiles are crops of one
                image. True mixes across the overlap, for parts that disagree there; the weights of a pixel add up to 1.
            outside: value beyond the region.
        Returns:
            The image, in the dtype of the parts. Differentiable.
        Raises:
            ShapeError, DtypeError: parts that do not fit the tiles.
        """
        where = "ViewTiling.stitch"
        if len(parts) != len(self):
            raise ShapeError(f"{where}: one part for each of the {len(self)} tiles is needed; got {len(parts)}.")
        for i, (part, tile) in enumerate(zip(parts, self.tiles, strict=True)):
            require_tensor(where, f"parts[{i}]", part, None, FLOATS)
            if not 0 <= dim < part.ndim - 1 or tuple(part.shape[dim : dim + 2]) != (tile.height, tile.width):
                raise ShapeError(
                    f"{where}: parts[{i}] must have {tile.height} rows along axis {dim}, then {tile.width} columns; got {describe(part)}."
                )
        weights = self._blend_weights() if blend else self._own_weights()
        total: Tensor | None = None
        tail = (1,) * (parts[0].ndim - dim - 2)
        for part, tile, weight in zip(parts, self.tiles, weights, strict=True):
            if not blend:  # zero times infinity (a depth) is not a number
                kept = torch.where(weight.reshape(*weight.shape, *tail).to(part.device) > 0, part, 0)
            else:
                kept = part * weight.reshape(*weight.shape, *tail).to(part)
            below, right = self.height - tile.top - tile.height, self.width - tile.left - tile.width
            padded = torch.nn.functional.pad(kept, (0, 0) * len(tail) + (tile.left, right, tile.top, below))
            total = padded if total is None else total + padded
        if total is None:
            raise ShapeError(f"{where}: the tiling has no tiles.")
        if outside != 0.0:
            seen = self.cover(total.device).reshape(self.height, self.width, *tail) > 0
            total = torch.where(seen, total, outside)
        return total

    def accumulate(self, shared: Tensor | Sequence[Tensor], loss: Callable[..., Tensor], *, tiles: Sequence[int] | None = None) -> Tensor:
        """One backward pass for many tiles: what comes before the tiles (`shared`) is run once, what comes after is freed tile by tile.

        For each tile `loss(index, *shared)` is computed on detached copies, and its gradient added to theirs at once; at the end the sum
        goes backward through what made `shared`. Memory is that of the shared part plus one tile; the gradient is
        that of the sum of the losses.

        Args:
            shared: tensors that require a gradient, such as the output of a network's trunk.
            loss: (index of the tile, *detached shared tensors) → scalar. Parameters that it uses itself get their gradients too.
            tiles: which ones; None takes all. Some of them, drawn uniformly: scale the loss by len(tiling) / len(tiles).
        Returns:
            The sum of the losses, detached. Gradients are in `.grad`, added to what was there.
        Raises:
            DtypeError, ShapeError: a loss that is no scalar.   RangeError: no such tile, no tensor that requires a gradient.
        Source: exact form of Sparse-Up's step, which takes the gradient of one random tile only.
        """
        where = "ViewTiling.accumulate"
        tensors = [shared] if isinstance(shared, Tensor) else list(shared)
        chosen = range(len(self)) if tiles is None else [require_int(where, "tiles", i, 0, len(self) - 1) for i in tiles]
        if not any(t.requires_grad for t in tensors):
            raise RangeError(f"{where}: at least one shared tensor must require a gradient.")
        leaves = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
        total = torch.zeros((), dtype=torch.float64)
        for index in chosen:
            value = loss(index, *leaves)
            if not isinstance(value, Tensor):
                raise DtypeError(f"{where}: loss must give a tensor; got {describe(value)}.")
            if value.ndim:
                raise ShapeError(f"{where}: loss must give a scalar; got {describe(value)}.")
            if value.requires_grad:
                value.backward()
            total += value.detach().double().cpu()
        pairs = [(t, leaf.grad) for t, leaf in zip(tensors, leaves, strict=True) if leaf.grad is not None]
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
        return total

    def _axes(self) -> tuple[list[int], list[int]]:
        return sorted({t.left for t in self.tiles}), sorted({t.top for t in self.tiles})

    def _cover(self, tile: Tile) -> Tensor:
        """(tile height, tile width) int64, how many tiles show each pixel; tiles are a lattice, so rows and columns count apart."""

        def counts(starts: list[int], side: int, first: int, length: int) -> Tensor:
            at = torch.arange(first, first + length)[:, None]
            begin = torch.tensor(starts)
            return ((at >= begin) & (at < begin + side)).sum(1)

        across, down = self._axes()
        rows = counts(down, self.tiles[0].height, tile.top, tile.height)
        return rows[:, None] * counts(across, self.tiles[0].width, tile.left, tile.width)

    def _own_weights(self) -> list[Tensor]:
        """(tile height, tile width) 1 where the tile owns the pixel, else 0; borders lie in the middle of overlaps."""

        def owned(starts: list[int], start: int, side: int) -> Tensor:
            i = starts.index(start)
            low = start if i == 0 else (starts[i - 1] + side + start) // 2
            high = start + side if i == len(starts) - 1 else (start + side + starts[i + 1]) // 2
            at = torch.arange(start, start + side)
            return ((at >= low) & (at < high)).float()

        across, down = self._axes()
        return [owned(down, t.top, t.height)[:, None] * owned(across, t.left, t.width) for t in self.tiles]

    def _blend_weights(self) -> list[Tensor]:
        """(tile height, tile width) float64, falling linearly over the overlap; those of a pixel add up to 1."""

        def ramp(side: int) -> Tensor:
            at = torch.arange(side, dtype=torch.float64) + 0.5
            return torch.minimum(at, side - at).div(max(1, self.overlap)).clamp_max(1)

        raw = [ramp(t.height)[:, None] * ramp(t.width) for t in self.tiles]
        total = torch.zeros(self.height, self.width, dtype=torch.float64)
        for tile, weight in zip(self.tiles, raw, strict=True):
            tile.cut(total, 0).add_(weight)
        return [weight / tile.cut(total, 0) for tile, weight in zip(self.tiles, raw, strict=True)]
