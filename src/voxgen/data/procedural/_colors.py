"""Palettes: sRGB colours in [0, 1] that fit a purpose."""

from __future__ import annotations

import colorsys

from ._chance import Chance
from ._patterns import Color


def _hsv(chance: Chance, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Color:
    return colorsys.hsv_to_rgb(chance.between(*hue) % 1, chance.between(*saturation), chance.between(*value))


def vivid(chance: Chance) -> Color:
    return _hsv(chance, (0, 1), (0.6, 0.95), (0.6, 0.95))


def soft(chance: Chance) -> Color:
    return _hsv(chance, (0, 1), (0.2, 0.45), (0.7, 0.95))


def deep(chance: Chance) -> Color:
    return _hsv(chance, (0, 1), (0.5, 0.85), (0.25, 0.5))


def light(chance: Chance) -> Color:
    return _hsv(chance, (0.05, 0.17), (0.02, 0.16), (0.85, 0.97))


def dark(chance: Chance) -> Color:
    return _hsv(chance, (0, 1), (0.0, 0.25), (0.06, 0.2))


def gray(chance: Chance) -> Color:
    return _hsv(chance, (0, 1), (0.0, 0.08), (0.3, 0.75))


def timber(chance: Chance) -> Color:
    return _hsv(chance, (0.055, 0.1), (0.4, 0.7), (0.35, 0.8))


def clay(chance: Chance) -> Color:
    return _hsv(chance, (0.02, 0.09), (0.4, 0.75), (0.5, 0.8))


def leaf(chance: Chance) -> Color:
    return _hsv(chance, (0.2, 0.4), (0.5, 0.85), (0.3, 0.65))


def petal(chance: Chance) -> Color:
    return _hsv(chance, (0.8, 1.17), (0.45, 0.9), (0.8, 0.98))


def stone(chance: Chance) -> Color:
    return _hsv(chance, (0.05, 0.65), (0.02, 0.14), (0.45, 0.8))


def skin(chance: Chance) -> Color:
    return _hsv(chance, (0.04, 0.08), (0.25, 0.6), (0.45, 0.95))


def any_color(chance: Chance) -> Color:
    return chance.pick((vivid, vivid, soft, deep, light, dark, gray))(chance)


def shaded(color: Color, factor: float) -> Color:
    """Darker below 1, lighter above."""
    return (min(1.0, color[0] * factor), min(1.0, color[1] * factor), min(1.0, color[2] * factor))
