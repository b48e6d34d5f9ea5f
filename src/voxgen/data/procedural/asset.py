"""Assets made by rule from an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from voxgen.core import TriMesh
from voxgen.core.checks import require_choice, require_int

from . import _aircraft, _beings, _buildings, _curiosities, _furniture, _machines, _plants, _toys, _vehicles, _vessels
from ._assembly import Assembly
from ._chance import Chance

_DESIGNS: dict[str, Callable[[Chance], Assembly]] = {
    "airplane": _aircraft.airplane,
    "animal": _beings.animal,
    "basket": _vessels.basket,
    "bed": _furniture.bed,
    "birdcage": _curiosities.birdcage,
    "boat": _vehicles.boat,
    "bolt": _machines.bolt,
    "bottle": _vessels.bottle,
    "bowl": _vessels.bowl,
    "bridge": _buildings.bridge,
    "cake": _curiosities.cake,
    "car": _vehicles.car,
    "castle": _buildings.castle,
    "chair": _furniture.chair,
    "character": _beings.character,
    "chess piece": _toys.chess_piece,
    "clock": _curiosities.clock,
    "crate": _vessels.crate,
    "cup": _vessels.cup,
    "fish": _curiosities.fish,
    "gear": _machines.gear,
    "goblet": _vessels.goblet,
    "hat": _curiosities.hat,
    "helicopter": _aircraft.helicopter,
    "house": _buildings.house,
    "ice cream": _curiosities.ice_cream,
    "lamp": _furniture.lamp,
    "lantern": _vessels.lantern,
    "mushroom": _plants.mushroom,
    "plant": _plants.plant,
    "robot": _toys.robot,
    "rocket": _aircraft.rocket,
    "shelf": _furniture.shelf,
    "snowman": _toys.snowman,
    "sofa": _furniture.sofa,
    "sword": _curiosities.sword,
    "table": _furniture.table,
    "teapot": _vessels.teapot,
    "tower": _buildings.tower,
    "train": _vehicles.train,
    "tree": _plants.tree,
    "umbrella": _furniture.umbrella,
    "vase": _vessels.vase,
    "windmill": _buildings.windmill,
}
CATEGORIES: tuple[str, ...] = tuple(_DESIGNS)
"""What `procedural_asset` makes, each as often as the others."""


@dataclass(frozen=True, eq=False)
class ProceduralAsset:
    """An asset and where it comes from.

    Args:
        name: unique for its seed and index.
        category: one of `CATEGORIES`.
        mesh: y up, its front towards +z, in the cube [-0.5, 0.5]³, which its longest side fills; with normals, texture
            coordinates, named parts, and a PBR material for each face.
        parameters: what was drawn for it, by name; lengths before the mesh was fitted into the cube.
    """

    name: str
    category: str
    mesh: TriMesh
    parameters: Mapping[str, float | int | str]


def procedural_asset(index: int, *, seed: int = 0, category: str | None = None) -> ProceduralAsset:
    """The asset of an index: a textured object of one of `CATEGORIES`, with drawn proportions, parts and materials.

    Furniture, vessels, machines, figures, buildings and plants of some thousand faces. Most are put together from several closed parts
    that overlap; some are open (vases, umbrellas, sails), some hold something (crates, lanterns), some have parts of glass.

    Args:
        index: any whole number of 0 or more. Take those of `procedural_dataset` to keep test assets out of training.
        seed: another sequence of assets.
        category: one of `CATEGORIES`; None draws one.
    Returns:
        ProceduralAsset. Closed parts wind outwards; no face is degenerate; no wall or rod is thinner than 1.5 cells of a grid of 64, but
        for those that are sheets without thickness.
    Raises:
        DtypeError, RangeError: index or seed is not a whole number of 0 or more, or no such category.
    Numerics: the same (seed, index, category) gives the same asset in any process, whatever the number of threads. The last bits of
        vertices may differ between machines whose sine and cosine do.
    Example:
        >>> procedural_asset(7).name
        'animal-0-000007'
    """
    where = "procedural_asset"
    index, seed = require_int(where, "index", index, 0), require_int(where, "seed", seed, 0)
    if category is not None:
        require_choice(where, "category", category, CATEGORIES)
    chosen = CATEGORIES[Chance(seed, index).count(0, len(CATEGORIES) - 1)] if category is None else category
    chance = Chance(seed, index, CATEGORIES.index(chosen))
    mesh = _DESIGNS[chosen](chance).mesh()
    return ProceduralAsset(f"{chosen.replace(' ', '-')}-{seed}-{index:06d}", chosen, mesh, dict(chance.drawn))
