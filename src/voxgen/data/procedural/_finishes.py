"""Finishes: a material and how large its picture lies on a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from voxgen.core import Material, Texture
from voxgen.core.material import srgb_to_linear

from . import _colors as colors
from . import _patterns as patterns
from ._chance import Chance
from ._patterns import Color

Pattern = Callable[[Chance, Color, Color], np.ndarray]
CLOTH: tuple[Pattern, ...] = (patterns.stripes, patterns.checks, patterns.dots, patterns.zigzag, patterns.clouds)
GLAZE: tuple[Pattern, ...] = (patterns.stripes, patterns.dots, patterns.zigzag, patterns.gradient, patterns.patches, patterns.clouds)


@dataclass(frozen=True, eq=False)
class Finish:
    """What a part is made of.

    Args:
        material: the same for all parts that share the finish.
        tile: length that the picture covers, in the units of the design; None: it covers the part once.
    """

    material: Material
    tile: float | None = None


def plain(name: str, color: Color, *, roughness: float, metallic: float = 0.0, alpha: float = 1.0) -> Finish:
    linear = srgb_to_linear(torch.tensor(color, dtype=torch.float64)).tolist()
    return Finish(
        Material(
            name,
            (linear[0], linear[1], linear[2]),
            alpha_factor=alpha,
            metallic_factor=metallic,
            roughness_factor=roughness,
            alpha_mode="OPAQUE" if alpha == 1 else "BLEND",
            double_sided=True,
        )
    )


def pictured(name: str, picture: np.ndarray, *, tile: float | None, roughness: float, metallic: float = 0.0) -> Finish:
    texture = Texture(torch.from_numpy(patterns.texels(picture)), (0, 1, 2), srgb=True, name=name)
    return Finish(Material(name, base_color=texture, metallic_factor=metallic, roughness_factor=roughness, double_sided=True), tile)


def timber(chance: Chance, *, tile: float = 0.5, planks: bool = False) -> Finish:
    """Wood, its grain along v."""
    color = colors.timber(chance)
    picture = (patterns.planks if planks else patterns.wood)(chance, color, colors.shaded(color, chance.between(0.5, 0.75)))
    return pictured("wood", picture, tile=tile, roughness=chance.between(0.45, 0.85))


def paint(chance: Chance, color: Color | None = None) -> Finish:
    return plain("paint", colors.any_color(chance) if color is None else color, roughness=chance.between(0.3, 0.8))


def plastic(chance: Chance, color: Color | None = None) -> Finish:
    return plain("plastic", colors.vivid(chance) if color is None else color, roughness=chance.between(0.15, 0.45))


def rubber(chance: Chance) -> Finish:
    return plain("rubber", colors.dark(chance), roughness=chance.between(0.8, 1.0))


METALS: tuple[tuple[str, Color], ...] = (
    ("steel", (0.72, 0.73, 0.75)),
    ("steel", (0.72, 0.73, 0.75)),
    ("iron", (0.42, 0.41, 0.42)),
    ("gold", (1.0, 0.84, 0.45)),
    ("brass", (0.88, 0.75, 0.42)),
    ("copper", (0.93, 0.66, 0.54)),
    ("bronze", (0.62, 0.46, 0.28)),
)


def metal(chance: Chance) -> Finish:
    """Bare, or in one of six with spots that have rusted or lost their shine."""
    name, color = chance.pick(METALS)
    roughness = chance.between(0.12, 0.55)
    if not chance.likely(0.17):
        return plain(name, color, roughness=roughness, metallic=1.0)
    clean = patterns.patches(chance, patterns.BLACK, patterns.WHITE)[..., 0]
    spots = chance.pick(((0.43, 0.22, 0.1), (0.32, 0.2, 0.13), (0.3, 0.5, 0.42)))
    return partly_metal(f"worn {name}", spots, color, clean, tile=0.7, roughness=(0.9, roughness))


def partly_metal(
    name: str, ground: Color, color: Color, share: np.ndarray, *, tile: float | None, roughness: tuple[float, float]
) -> Finish:
    """Metal where `share` (h, w) is 1 on a ground that is none; roughness of the ground and of the metal."""
    base = Texture(torch.from_numpy(patterns.texels(patterns.mixed(ground, color, share))), (0, 1, 2), srgb=True, name=name)
    rest = np.stack((np.ones_like(share), roughness[0] + (roughness[1] - roughness[0]) * share, share), -1)
    packed = torch.from_numpy(patterns.texels(rest))  # green and blue, as glTF packs them
    rough, metallic = (Texture(packed, (channel,), name=f"{name}, metallic and roughness") for channel in (1, 2))
    return Finish(Material(name, base_color=base, metallic=metallic, roughness=rough, double_sided=True), tile)


def stone(chance: Chance, *, tile: float = 0.8) -> Finish:
    color = colors.stone(chance)
    picture = patterns.clouds(chance, color, colors.shaded(color, chance.between(0.6, 0.85)))
    return pictured("stone", picture, tile=tile, roughness=chance.between(0.6, 0.95))


def cloth(chance: Chance, *, tile: float = 0.5) -> Finish:
    picture = chance.pick(CLOTH)(chance, colors.any_color(chance), colors.any_color(chance))
    return pictured("cloth", picture, tile=tile, roughness=chance.between(0.75, 1.0))


def glaze(chance: Chance, *, tile: float | None = 0.6) -> Finish:
    """Ceramics: one colour, or a picture laid around."""
    first = chance.pick((colors.light, colors.soft, colors.clay, colors.vivid, colors.deep))(chance)
    roughness = chance.between(0.1, 0.6)
    if chance.likely(0.25):
        return plain("ceramic", first, roughness=roughness)
    if chance.likely(0.15):
        share = chance.pick((patterns.stripes, patterns.dots, patterns.zigzag))(chance, patterns.BLACK, patterns.WHITE)[..., 0]
        return partly_metal("gilded ceramic", first, (1.0, 0.84, 0.45), share, tile=tile, roughness=(roughness, 0.25))
    pattern = chance.pick(GLAZE)
    picture = pattern(chance, first, colors.any_color(chance))
    return pictured("ceramic", picture, tile=None if pattern is patterns.gradient else tile, roughness=roughness)


def glass(chance: Chance) -> Finish:
    color = chance.pick((colors.light, colors.soft, colors.vivid))(chance)
    return plain("glass", color, roughness=chance.between(0.03, 0.15), alpha=chance.between(0.25, 0.55))


def leaves(chance: Chance, *, tile: float = 0.5) -> Finish:
    color = colors.leaf(chance)
    picture = patterns.clouds(chance, color, colors.shaded(color, chance.between(0.5, 0.8)))
    return pictured("leaves", picture, tile=tile, roughness=chance.between(0.6, 0.9))
