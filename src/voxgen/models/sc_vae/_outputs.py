"""What a decoder gives, and warnings of samples that vanish on the way."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from voxgen.core import SparseTensor
from voxgen.core.batching import counts_from_offsets
from voxgen.core.errors import EmptyResultWarning
from voxgen.ops.resample import Structure

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class DecoderOutput:
    """What a decoder gives.

    Attributes:
        head: (n, out_channels) the last layer's raw output on the finest grid.
        logits: one a step, coarse → fine: (p, 8) raw logits on the level that the step leaves; empty for a decoder that does
            not predict. Targets for them are `structure.mask()`; as `guide` they make another decoder follow.
        structures: one a step, coarse → fine.
    """

    head: SparseTensor
    logits: tuple[SparseTensor, ...]
    structures: tuple[Structure, ...]


def bar(items: Iterable[T], title: str, total: int, shown: bool) -> Iterable[T]:
    """The items, with a progress bar if it is to be shown."""
    if not shown:
        return items
    from tqdm import tqdm

    return tqdm(items, desc=title, total=total)


def warn_of_emptied(where: str, structure: Structure, step: int, partly_only: bool) -> None:
    """Warn of samples that have parents and no children. With `partly_only` not if all are such: whoever made that mask has said so."""
    before, after = counts_from_offsets(structure.parents.offsets), counts_from_offsets(structure.children.offsets)
    emptied = ((before > 0) & (after == 0)).nonzero().flatten().tolist()
    if emptied and not (partly_only and len(structure.children) == 0):
        shown = ", ".join(map(str, emptied[:10])) + (", …" if len(emptied) > 10 else "")
        warnings.warn(
            f"{where}: step {step} keeps no child of sample {shown}, which is empty from there on.", EmptyResultWarning, stacklevel=3
        )
