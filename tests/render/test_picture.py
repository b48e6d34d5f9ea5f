"""Colour maps, scales, figures and PNG files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.material import srgb_to_linear
from voxgen.render import Panel, ScaleBar, apply_colormap, compose_figure, save_png, value_range
from voxgen.render.picture import ticks, to_bytes


def luminance(color: torch.Tensor) -> torch.Tensor:
    return srgb_to_linear(color) @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=color.dtype)


@pytest.mark.parametrize("name", ["heat", "sea"])
def test_lightness_grows_along_the_map(name) -> None:
    color = apply_colormap(torch.linspace(-2, 3, 400, dtype=torch.float64), -2.0, 3.0, name)
    assert bool((luminance(color).diff() > 0).all())
    assert float(luminance(color)[0]) < 0.05
    assert float(luminance(color)[-1]) > 0.7
    assert bool(((color >= 0) & (color <= 1)).all())


def test_colormap_ends_missing_values_and_gradient() -> None:
    values = torch.tensor([-9.0, 0.0, 1.0, 9.0, torch.nan, torch.inf])
    color = apply_colormap(values, 0.0, 1.0, "diverging")
    assert torch.equal(color[0], color[1])
    assert torch.equal(color[2], color[3])
    assert torch.equal(color[5], color[2])
    assert len(set(color[4].tolist())) == 1
    middle = apply_colormap(torch.tensor(0.5), 0.0, 1.0, "diverging")
    assert float(middle.max() - middle.min()) < 0.05  # nearly white
    assert float(color[1][2]) > float(color[1][0])  # blue below
    assert float(color[2][0]) > float(color[2][2])  # red above
    x = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: apply_colormap(v, 0.0, 1.0), (x,), eps=1e-7)
    with pytest.raises(RangeError, match="colormap must be one of 'heat'"):
        apply_colormap(values, 0.0, 1.0, "jet")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.47, 0.47, ["-0.4", "-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3", "0.4"]),
        (0.0, 0.03, ["0.00", "0.01", "0.02", "0.03"]),
        (0.0, 7e-4, ["0", "1e-4", "2e-4", "3e-4", "4e-4", "5e-4", "6e-4", "7e-4"]),
        (0.0, 3e7, ["0", "1e7", "2e7", "3e7"]),
        (100.0, 101.0, ["100.0", "100.2", "100.4", "100.6", "100.8", "101.0"]),
    ],
)
def test_ticks(low: float, high: float, texts: list[str]) -> None:
    found = ticks(low, high)
    assert [text for _, text in found] == texts
    assert all(float(text) == pytest.approx(value, abs=1e-12) for value, text in found)


def test_value_range() -> None:
    values = torch.tensor([torch.nan, 0.5, -2.0, torch.inf])
    assert value_range(values, None, None) == (-2.0, 0.5)
    assert value_range(values, 0.0, None) == (0.0, 0.5)
    assert value_range(torch.zeros(4), 0.0, None) == (0.0, 1.0)
    assert value_range(torch.zeros(4), None, 0.0) == (-1.0, 0.0)
    assert value_range(torch.zeros(0), None, None) == (0.0, 1.0)
    with pytest.raises(RangeError, match="low must be below high"):
        value_range(values, 1.0, 1.0)
    with pytest.raises(RangeError, match="both finite"):
        value_range(values, 0.0, torch.inf)


def find(figure: torch.Tensor, image: torch.Tensor) -> tuple[int, int]:
    """Where an image lies in a figure."""
    h, w = image.shape[:2]
    windows = figure.unfold(0, h, 1).unfold(1, w, 1)  # (y, x, 3, h, w)
    places = (windows == image.permute(2, 0, 1)).all(-1).all(-1).all(-1).nonzero()
    assert len(places) == 1
    return int(places[0, 0]), int(places[0, 1])


def test_figure_holds_its_images_in_order() -> None:
    a, b, c = (torch.randint(0, 256, (24, w, 3), dtype=torch.uint8) for w in (30, 40, 35))
    figure = compose_figure([[Panel(a, "first"), Panel(b, "second", ("a note",))], [Panel(c)]], title="Title", caption="word " * 30)
    assert figure.dtype == torch.uint8
    (ya, xa), (yb, xb), (yc, _) = find(figure, a), find(figure, b), find(figure, c)
    assert ya == yb < yc
    assert xa + 30 < xb
    assert bool((figure[:10] == 255).all())
    assert bool((figure[yb + 24 : yc, xb : xb + 40] < 200).any()), "the note"
    assert bool((figure[: ya - 1, xa : xa + 30] < 200).any()), "the title above it"
    assert torch.equal(
        figure, compose_figure([[Panel(a, "first"), Panel(b, "second", ("a note",))], [Panel(c)]], title="Title", caption="word " * 30)
    )
    plain = compose_figure([[Panel(a)]])
    assert find(plain, a)[0] * 2 + 24 == plain.shape[0]


def test_scale_bar_runs_from_low_at_the_bottom_to_high_at_the_top() -> None:
    image = torch.full((200, 100, 3), 0.9)
    figure = compose_figure([[Panel(image), ScaleBar(0.0, 2.0, "sea", "depth (m)")]])
    bottom, top = to_bytes(apply_colormap(torch.tensor([[0.0, 2.0]], dtype=torch.float64), 0.0, 2.0, "sea"))[0]
    low, high = ((figure == end).all(-1).nonzero()[:, 0].float().mean() for end in (bottom, top))
    assert low > high + 100


def test_characters_that_the_font_lacks_are_spelled() -> None:
    image = torch.zeros(8, 300, 3)
    assert torch.equal(compose_figure([[Panel(image, "512³ × 2")]]), compose_figure([[Panel(image, "512^3 x 2")]]))


def test_png_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = torch.rand(5, 7, 3)
    save_png(path, image)
    with Image.open(path) as found:
        assert found.size == (7, 5)
        assert found.tobytes() == to_bytes(image).numpy().tobytes()
    before = path.read_bytes()
    with pytest.raises(RangeError, match="finite"):
        save_png(path, image * torch.nan)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(OSError, match="Create the folder first"):
        save_png(tmp_path / "missing" / "a.png", image)


def test_bytes_are_rounded_and_bounded() -> None:
    image = torch.tensor([[[-1.0, 0.0, 0.5], [1.0, 2.0, 0.499]]])
    assert to_bytes(image).tolist() == [[[0, 0, 128], [255, 255, 127]]]


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([], RangeError, "at least one Panel"),
        ([[ScaleBar(0.0, 1.0)]], RangeError, "at least one Panel"),
        ([[Panel(torch.zeros(4, 4))]], ShapeError, r"\(h, w, 3\)"),
        ([[Panel(torch.zeros(4, 4, 3).int())]], DtypeError, "uint8 or float32"),
        ([[Panel(torch.zeros(0, 4, 3))]], RangeError, "at least one pixel"),
        ([[Panel(torch.zeros(4, 4, 3)), ScaleBar(1.0, 1.0)]], RangeError, "low must be below"),
        ([[Panel(torch.full((4, 4, 3), torch.inf))]], RangeError, "finite"),
    ],
)
def test_bad_figures(rows, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        compose_figure(rows)
