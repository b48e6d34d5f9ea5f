"""Sequences of procedural assets, those to train on and those to test with."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Literal, get_args, overload

from voxgen.core.checks import require_choice, require_int

from .asset import ProceduralAsset, procedural_asset

Split = Literal["train", "test"]
HELD_OUT = 10
"""One index in this many is for tests alone: those whose remainder is `HELD_OUT` - 1."""


def split_of(index: int) -> Split:
    """To which split an index belongs. It does not depend on seed or count, so no asset is ever of both."""
    return "test" if require_int("split_of", "index", index, 0) % HELD_OUT == HELD_OUT - 1 else "train"


class ProceduralDataset:
    """The first `count` assets of a split; made when they are asked for, and not kept. See `procedural_dataset`."""

    def __init__(self, count: int, *, seed: int = 0, split: Split = "train") -> None:
        where = "procedural_dataset"
        self.count = require_int(where, "count", count, 0)
        self.seed = require_int(where, "seed", seed, 0)
        self.split: Split = split
        require_choice(where, "split", split, get_args(Split))

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"ProceduralDataset({self.count} assets, seed={self.seed}, split={self.split!r})"

    def index_at(self, position: int) -> int:
        """The index, as `procedural_asset` takes it, of the asset at a position."""
        at = operator.index(position)
        if not -self.count <= at < self.count:
            raise IndexError(f"ProceduralDataset: position must lie in [{-self.count}, {self.count}); got {position}.")
        at %= self.count
        return at * HELD_OUT + HELD_OUT - 1 if self.split == "test" else at + at // (HELD_OUT - 1)

    def __iter__(self) -> Iterator[ProceduralAsset]:
        return (self[at] for at in range(self.count))

    @overload
    def __getitem__(self, position: int) -> ProceduralAsset: ...
    @overload
    def __getitem__(self, position: slice) -> list[ProceduralAsset]: ...
    def __getitem__(self, position: int | slice) -> ProceduralAsset | list[ProceduralAsset]:
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(self.count))]
        return procedural_asset(self.index_at(position), seed=self.seed)


def procedural_dataset(count: int, *, seed: int = 0, split: Split = "train") -> ProceduralDataset:
    """A sequence of procedural assets.

    One index in ten belongs to the test split, whatever the seed and the count, so that no test asset can be trained on.

    Args:
        count: how many assets.
        seed: another sequence of assets.
        split: "train" or "test".
    Returns:
        ProceduralDataset: `len`, `[i]`, iteration; assets are made when they are asked for.
    Raises:
        DtypeError, RangeError: count or seed is not a whole number of 0 or more, or no such split.
    Example:
        >>> [asset.category for asset in procedural_dataset(3, split="test")]
        ['house', 'bolt', 'airplane']
    """
    return ProceduralDataset(count, seed=seed, split=split)
