"""Figures: images side by side with titles, notes and colour scales, and PNG files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxgen.core.atomic import atomic_write
from voxgen.core.checks import require_tensor
from voxgen.core.errors import RangeError

from .colormaps import ColorMap, apply_colormap

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PAPER, _INK, _FAINT = (255, 255, 255), (32, 36, 44), (104, 110, 122)
# Pillow's own font knows ASCII and little more
_PLAIN = str.maketrans({"×": "x", "³": "^3", "²": "^2", "µ": "u", "–": "-", "—": "-", "−": "-", "≤": "<=", "≥": ">=", "→": "->", "≈": "~"})


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a figure.

    Args:
        image: (h, w, 3) uint8, or float sRGB-encoded in 0..1.
        title: one line above it.   notes: small lines below it.
    """

    image: Tensor
    title: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScaleBar:
    """The legend of a colour map, drawn upright beside the images of its row.

    Args:
        low, high: values at the ends, low < high.
        colormap: as given to `render_scalar` or `apply_colormap`.
        label: what the numbers are, with their unit.
    """

    low: float
    high: float
    colormap: ColorMap = "heat"
    label: str = ""


Cell = Panel | ScaleBar


def compose_figure(rows: Sequence[Sequence[Panel | ScaleBar]], *, title: str = "", caption: str = "") -> Tensor:
    """Put images and colour scales together on white paper.

    Args:
        rows: from top to bottom, each from left to right. Images keep their size in pixels; letters grow with the largest.
        title: large line at the top.   caption: text at the bottom, broken into lines as needed.
    Returns:
        (h, w, 3) uint8.
    Raises:
        RangeError: no panel at all, a panel that is not finite, or a scale whose low is not below its high.
        ShapeError, DtypeError: a panel that is no image.
    Example:
        >>> figure = compose_figure([[Panel(source, "source"), Panel(error, "error"), ScaleBar(0, 0.01, label="distance")]])
        >>> save_png("figure.png", figure)
    """
    images = {cell: to_bytes(cell.image) for row in rows for cell in row if isinstance(cell, Panel)}
    if not images:
        raise RangeError("compose_figure: rows must hold at least one Panel.")
    for bar in (cell for row in rows for cell in row if isinstance(cell, ScaleBar)):
        if not (math.isfinite(bar.low) and math.isfinite(bar.high) and bar.low < bar.high):
            raise RangeError(f"compose_figure: a ScaleBar's low must be below its high, both finite; got {bar.low} and {bar.high}.")
    return _Figure(images, [list(row) for row in rows if row], title.translate(_PLAIN), caption.translate(_PLAIN)).draw()


def save_png(path: str | os.PathLike[str], image: Tensor) -> None:
    """Write an image as PNG; the file appears only when it is whole.

    Args:
        path: the file; its folder must exist.
        image: (h, w, 3) uint8, or float sRGB-encoded in 0..1.
    Raises:
        ShapeError, DtypeError, RangeError: image is not such an image.   OSError: as `core.atomic.atomic_write`.
    """
    from PIL import Image

    picture = Image.fromarray(to_bytes(image).cpu().numpy())
    with atomic_write(path) as file:
        picture.save(file, format="PNG", optimize=True)


def to_bytes(image: Tensor) -> Tensor:
    """(h, w, 3) uint8 as it is, or float in 0..1 rounded to it; numbers outside are moved to the nearer end.

    Raises:
        ShapeError, DtypeError: image is not (h, w, 3) of these dtypes.   RangeError: no pixel, NaN or infinity.
    """
    require_tensor("to_bytes", "image", image, ("h", "w", 3), (torch.uint8, torch.float32, torch.float64))
    if image.numel() == 0:
        raise RangeError(f"to_bytes: image must have at least one pixel; got {tuple(image.shape)}.")
    if image.dtype == torch.uint8:
        return image
    if not bool(torch.isfinite(image).all()):
        raise RangeError("to_bytes: image must be finite; it has NaN or infinity. Colour depths with apply_colormap before.")
    return (image.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Four to nine round numbers (1, 2 or 5 times a power of ten apart) between two ends, with their text."""
    power = 10.0 ** math.floor(math.log10(high - low))
    for step in (power, power / 2, power / 5, power / 10):
        first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
        if last - first >= 3:
            break
    numbers = [k * step for k in range(first, last + 1)]
    place = math.floor(math.log10(step) + 1e-9)  # of the last digit that changes
    largest = max(abs(low), abs(high))
    if 1e-3 < largest < 1e5 and place >= -5:
        return [(v, f"{v:.{max(0, -place)}f}") for v in numbers]
    return [(v, _scientific(v, place)) for v in numbers]


def _scientific(value: float, place: int) -> str:
    if abs(value) < 10.0**place / 2:
        return "0"
    mantissa, exponent = f"{value:.{max(0, math.floor(math.log10(abs(value)) + 1e-9) - place)}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


class _Figure:
    """Sizes and places of everything, from the largest panel's width."""

    def __init__(self, images: dict[Panel, Tensor], rows: list[list[Cell]], title: str, caption: str) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.images, self.rows, self.title, self.caption = images, rows, title, caption
        widest = max(image.shape[1] for image in images.values())
        unit = min(max(widest / 24, 12.0), 40.0)
        self.font: Font = ImageFont.load_default(unit)
        self.small: Font = ImageFont.load_default(unit * 0.8)
        self.large: Font = ImageFont.load_default(unit * 1.5)
        self.gap, self.margin = round(unit * 0.8), round(unit * 1.4)
        self._ruler: ImageDraw.ImageDraw = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def draw(self) -> Tensor:
        from PIL import Image, ImageDraw

        widths = [sum(self._cell_width(cell) for cell in row) + self.gap * (len(row) - 1) for row in self.rows]
        inner = max(widths)
        if self.title:
            inner = max(inner, math.ceil(self._length(self.title, self.large)))
        caption = self._wrapped(self.caption, self.small, inner)
        title_height = self._line(self.large) + self.gap if self.title else 0
        heights = [self._row_height(row) for row in self.rows]
        caption_height = self.gap + len(caption) * self._line(self.small) if caption else 0
        height = 2 * self.margin + title_height + sum(heights) + self.gap * (len(heights) - 1) + caption_height
        paper = Image.new("RGB", (inner + 2 * self.margin, height), _PAPER)
        pen = ImageDraw.Draw(paper)
        y = self.margin
        if self.title:
            pen.text((self.margin, y), self.title, _INK, font=self.large)
            y += title_height
        for row, row_height, row_width in zip(self.rows, heights, widths, strict=True):
            x = self.margin + (inner - row_width) // 2
            for cell in row:
                self._draw_cell(paper, pen, cell, x, y, row)
                x += self._cell_width(cell) + self.gap
            y += row_height + self.gap
        for line in caption:
            pen.text((self.margin, y), line, _FAINT, font=self.small)
            y += self._line(self.small)
        return torch.frombuffer(bytearray(paper.tobytes()), dtype=torch.uint8).reshape(paper.height, paper.width, 3)

    def _draw_cell(self, paper: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, x: int, y: int, row: list[Cell]) -> None:
        from PIL import Image

        top = y + self._title_height(row)
        tallest = self._image_height(row)
        if isinstance(cell, ScaleBar):
            self._draw_bar(paper, pen, cell, x, top, tallest)
            return
        image = self.images[cell]
        if cell.title:
            title = self._fitted(cell.title.translate(_PLAIN), self.font, image.shape[1])
            pen.text((x + image.shape[1] / 2, y), title, _INK, font=self.font, anchor="ma")
        top += (tallest - image.shape[0]) // 2
        paper.paste(Image.fromarray(image.cpu().numpy()), (x, top))
        below = top + image.shape[0] + self.gap // 2
        for note in cell.notes:
            text = self._fitted(note.translate(_PLAIN), self.small, image.shape[1])
            pen.text((x + image.shape[1] / 2, below), text, _FAINT, font=self.small, anchor="ma")
            below += self._line(self.small)

    def _draw_bar(self, paper: Image.Image, pen: ImageDraw.ImageDraw, bar: ScaleBar, x: int, top: int, height: int) -> None:
        from PIL import Image

        label = self._line(self.small) + self.gap // 2 if bar.label else 0
        inset = round(height * 0.06) + self._line(self.small) // 2
        start, stop = top + inset + label, top + height - inset
        length, breadth = max(2, stop - start), self._bar_breadth()
        values = torch.linspace(bar.high, bar.low, length, dtype=torch.float64)
        colors = to_bytes(apply_colormap(values, bar.low, bar.high, bar.colormap)[:, None].expand(-1, breadth, -1))
        paper.paste(Image.fromarray(colors.contiguous().numpy()), (x, start))
        pen.rectangle((x - 1, start - 1, x + breadth, start + length), outline=_FAINT)
        if bar.label:
            pen.text((x, start - self.gap // 2), bar.label.translate(_PLAIN), _INK, font=self.small, anchor="ld")
        for value, text in ticks(bar.low, bar.high):
            place = start + (length - 1) * (bar.high - value) / (bar.high - bar.low)
            pen.line((x + breadth, place, x + breadth + self.gap // 2, place), fill=_FAINT)
            pen.text((x + breadth + self.gap, place), text, _INK, font=self.small, anchor="lm")

    def _cell_width(self, cell: Cell) -> int:
        if isinstance(cell, Panel):
            return self.images[cell].shape[1]
        numbers = max(self._length(text, self.small) for _, text in ticks(cell.low, cell.high))
        return math.ceil(max(self._bar_breadth() + self.gap + numbers, self._length(cell.label.translate(_PLAIN), self.small)))

    def _row_height(self, row: list[Cell]) -> int:
        notes = max((len(cell.notes) for cell in row if isinstance(cell, Panel)), default=0)
        return self._title_height(row) + self._image_height(row) + (self.gap // 2 + notes * self._line(self.small) if notes else 0)

    def _title_height(self, row: list[Cell]) -> int:
        titled = any(cell.title for cell in row if isinstance(cell, Panel))
        return self._line(self.font) + self.gap // 3 if titled else 0

    def _image_height(self, row: list[Cell]) -> int:
        """Of the row's tallest image; a row of scales only gets a height that suits them."""
        return max((self.images[cell].shape[0] for cell in row if isinstance(cell, Panel)), default=12 * self._line(self.small))

    def _bar_breadth(self) -> int:
        return self._line(self.font)

    def _line(self, font: Font) -> int:
        """Height of a line."""
        box = self._ruler.textbbox((0, 0), "Ág", font=font)
        return math.ceil((box[3] - box[1]) * 1.25)

    def _length(self, text: str, font: Font) -> float:
        return self._ruler.textlength(text, font=font)

    def _fitted(self, text: str, font: Font, width: int) -> str:
        """The text, shortened if it is wider than its image."""
        if self._length(text, font) <= width:
            return text
        while text and self._length(text + "...", font) > width:
            text = text[:-1]
        return text.rstrip() + "..."

    def _wrapped(self, text: str, font: Font, width: int) -> list[str]:
        lines: list[str] = []
        for word in text.split():
            if lines and self._length(f"{lines[-1]} {word}", font) <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines
