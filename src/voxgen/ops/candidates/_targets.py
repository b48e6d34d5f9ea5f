"""The true mask: which candidates the surface touches, at any number of levels from one voxelisation."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

from voxgen.core.checks import require_int, require_same_device
from voxgen.core.errors import RangeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.resample import Structure

from ._generate import CandidateKind, Candidates, candidates

__all__ = ["Redundancy", "candidate_targets", "level_structures", "redundancy"]


class Redundancy(NamedTuple):
    """How many candidates a generator makes for nothing. Never a bare percentage: it says which generator.

    kind: of the candidates.   candidates: how many.   kept: how many of them the surface touches.
    contains_all: whether each cell of the surface is among them.
    """

    kind: CandidateKind
    candidates: int
    kept: int
    contains_all: bool

    @property
    def redundant(self) -> float:
        """Share of the candidates that the surface does not touch; 0 without candidates."""
        return 1 - self.kept / self.candidates if self.candidates else 0.0


def level_structures(finest: VoxelGrid, levels: int = 1) -> tuple[Structure, ...]:
    """The true structure of each upsampling step, coarse → fine, from the cells of the finest level alone.

    A cell of a coarser level touches the surface if and only if one of its children does (the union of eight closed boxes is the
    closed box around them), so the coarser levels are shifts of the finest; nothing is voxelised again, and no rounding can make a
    fine cell without a parent. `structure.mask()` is the true mask (p, 8) of a step, `structures[0].parents` the coarsest level.

    Args:
        finest: (n cells) of the finest level: `surface_cells`, or the grid of any representation.
        levels: number of steps; the coarsest level has resolution / 2^levels.
    Returns:
        One `Structure` a step, kept on the grids. The last one's children are `finest` itself.
    Raises:
        RangeError: levels below 1, or a resolution that does not halve that often.
    Empty grids and samples are legal.
    Source: Sparse-Up, equation 1; differences: no mapping between two orders of cells is needed.
    Example:
        >>> steps = level_structures(grid, 2)                             # grid of resolution 8
        >>> [s.parents.resolution[0] for s in steps]
        [2, 4]
    """
    where = "level_structures"
    steps = require_int(where, "levels", levels, 1, 16)
    if any(side % 2**steps for side in finest.resolution):
        raise RangeError(f"{where}: the resolution must halve {steps} times; got {finest.resolution}.")
    structures, grid = [], finest
    for _ in range(steps):
        structure = Structure.of_children(grid)
        structures.append(structure)
        grid = structure.parents
    return tuple(reversed(structures))


def candidate_targets(made: Candidates, fine: VoxelGrid) -> Bool[Tensor, " m"]:
    """M(v) = 1 if and only if v is a cell of the finer level, for candidates in any order.

    Args:
        made: the candidates.
        fine: the true cells of their level.
    Returns:
        (m,) bool, one a candidate.
    Raises:
        RangeError: another resolution or batch size.   FrameError: another frame.   DeviceError: another device.
    Source: Sparse-Up, equation 1; differences: membership of keys instead of a mapping of one order onto the other.
    """
    where = "candidate_targets"
    require_same_device(where, candidates=made.coords, fine=fine.coords)
    if fine.resolution != made.resolution or fine.batch_size != made.parents.batch_size:
        raise RangeError(
            f"{where}: fine must have the candidates' resolution {made.resolution} and batch size {made.parents.batch_size}; got {fine!r}."
        )
    fine.frame.require_close(where, made.frame)
    return lookup_cells(fine, made.coords) >= 0


def redundancy(parents: VoxelGrid, fine: VoxelGrid, kind: CandidateKind = "children8") -> Redundancy:
    """Count the candidates of a generator that a surface does not touch.

    For a surface, about half of "children8", two thirds of "kernel3" and three quarters of "corner", whatever its orientation;
    rims of open sheets add a little.

    Args:
        parents: the cells of the surface at the coarser level.
        fine: its cells at the finer level.
        kind: see `CandidateKind`.
    Raises: as `candidates` and `candidate_targets`.
    Source: Sparse-Up, "70 % of the candidates are redundant", which fits "kernel3" or "corner".
    Example:
        >>> step = level_structures(grid)[0]
        >>> redundancy(step.parents, step.children).contains_all
        True
    """
    made = candidates(parents, kind)
    kept = int(candidate_targets(made, fine).sum())
    return Redundancy(kind, len(made), kept, kept == len(fine))
