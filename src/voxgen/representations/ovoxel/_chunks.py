"""Voxels in the order of .vxz files: grouped in cubic chunks, sorted by Z-order code inside each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from voxgen.core.coords import AXIS_BITS
from voxgen.ops.space_curve import decode_z_order, encode_z_order

from ._rows import lexicographic, require_unique


class Chunks(NamedTuple):
    """n voxels in the order of a file.

    idx: of each chunk, in units of `size`; lexicographic when made by `into_chunks`.   size: side of a chunk in voxels.
    offsets: (chunks + 1,) int64 bounds of the chunks.   codes: (n,) int32 Z-order codes inside the chunk.
    coords: (n, 3) int32.   rows: (n,) int64, the caller's row of each voxel.
    """

    idx: list[tuple[int, int, int]]
    size: int
    offsets: np.ndarray
    codes: np.ndarray
    coords: np.ndarray
    rows: np.ndarray

    @property
    def depth(self) -> int:
        """Levels of inner octree nodes."""
        return self.size.bit_length() - 1


def into_chunks(where: str, coords: np.ndarray, size: int) -> Chunks:
    """Sort (n, 3) int32 coordinates in [0, 65536) into chunks.

    Raises:
        DuplicateError: a voxel in two rows.
    """
    depth = size.bit_length() - 1
    codes = encode_z_order(torch.from_numpy(coords & (size - 1))).numpy()
    bits = AXIS_BITS - depth
    x, y, z = (coords >> depth).astype(np.int64).T
    keys = ((x << bits | y) << bits | z) << 3 * depth | codes  # 48 bits: what the chunk does not take, the code does
    rows = np.argsort(keys)
    keys = keys[rows]
    if bool((keys[1:] == keys[:-1]).any()):
        require_unique(where, lexicographic(coords))
    blocks = keys >> 3 * depth
    starts = np.flatnonzero(np.append(True, blocks[1:] != blocks[:-1])[: len(keys)])
    ordered = coords[rows]
    idx = [(int(a), int(b), int(c)) for a, b, c in ordered[starts] >> depth]
    return Chunks(idx, size, np.append(starts, len(keys)), codes[rows], ordered, rows)


def from_leaves(idx: Sequence[tuple[int, int, int]], leaves: Sequence[np.ndarray], size: int) -> Chunks:
    """Chunks from the Z-order codes that their octrees hold."""
    counts = [len(codes) for codes in leaves]
    codes = np.concatenate([*leaves, np.zeros(0, np.int32)])
    coords = decode_z_order(torch.from_numpy(codes)).numpy()
    coords += np.repeat(np.array(idx, np.int32).reshape(-1, 3) * size, counts, axis=0)
    return Chunks(list(idx), size, np.append(0, np.cumsum(counts, dtype=np.int64)), codes, coords, np.arange(len(codes), dtype=np.int64))
