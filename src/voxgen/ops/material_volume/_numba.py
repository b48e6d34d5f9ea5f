"""Compiled CPU engine: bricks of cells on threads; in each, the triangles that reach it, one after another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import get_num_threads, njit
from tqdm import tqdm

from voxgen.ops.voxelize._bricks import (
    BITS,
    SIDE,
    VOLUME,
    bin_triangles,
    brick_shape,
    corners_in_cells,
    group_by_brick,
    load_corners,
)
from voxgen.ops.voxelize._numba import triangle_cells
from voxgen.ops.voxelize._prepare import Scene

from ._evaluate import CANCELLED
from ._numba_look import LOOKUPS, PLAN, READ, cross, length, look, look_normal, plan_columns, plan_textures, read_textures
from ._numba_pieces import CORNERS, cut_to_slab, reach
from ._numba_trellis2 import add_pairs
from ._record import CHANNELS, MaterialVolume
from ._record import columns as columns_of
from ._samples import SLIVER, rescue_margin
from ._shading import COLORS, Shading
from ._tables import flatten

MARGIN = 1e-9
"""Slack, in cells, of the search for cells that a polygon may touch; the exact cut decides after it."""
STEPS = 50
"""Parts in which the work is done while a bar is shown."""


def material_volume(scene: Scene, shading: Shading, compat: str | None, progress: bool) -> MaterialVolume:
    """See `voxgen.ops.material_volume.material_volume`."""
    cells, triangle, row = triangle_cells(scene)
    texels, looks, corners = flatten(shading)
    places = columns_of(shading.channels)
    result = np.zeros((len(cells), sum(CHANNELS[name] for name in places)), np.float32)
    mesh, touched, offset = (scene.vertices.numpy(), scene.faces.numpy(), scene.voxel_size), cells.numpy(), shading.mip_offset
    if compat:
        pairs = triangle.numpy()
        bounds = torch.searchsorted(row, torch.arange(len(cells) + 1, dtype=torch.int32)).numpy()

        def work(begin: int, end: int, step: int) -> None:
            add_pairs(mesh, texels, looks, corners, touched, pairs, bounds, offset, begin, end, step, result)

        _on_threads(work, len(cells), progress)
    else:
        del triangle, row
        mine = group_by_brick(_brick_of(touched, scene.resolution), np.arange(len(cells), dtype=np.int32), scene.resolution)
        theirs = bin_triangles(scene)
        match = np.searchsorted(_flat(theirs.bricks, scene.resolution), _flat(mine.bricks, scene.resolution))
        rescue, kinds = rescue_margin(scene), _kinds(shading)

        def work(begin: int, end: int, step: int) -> None:
            _do_bricks(
                mesh, texels, looks, corners, touched, mine, theirs, match, offset, rescue, kinds, begin, end, step, result
            )  # fmt: skip

        _on_threads(work, len(match), progress)
    found = torch.from_numpy(result)
    return MaterialVolume(cells, {name: found[:, place].contiguous() for name, place in places.items()})


def _on_threads(work: Callable[[int, int, int], None], count: int, progress: bool) -> None:
    """Call work(begin, end, step) on as many threads as numba may use, for interleaved items of 0..count; with a bar, in parts.

    Threads of Python, because compiled code holds no lock, and a numba loop over so many arrays takes ten seconds to compile.
    """
    workers = get_num_threads()
    ends = np.linspace(0, count, STEPS + 1).astype(int).tolist() if progress else [0, count]
    with ThreadPoolExecutor(workers) as pool:
        for begin, end in tqdm(list(itertools.pairwise(ends)), desc="materials", disable=not progress):
            for done in [pool.submit(work, begin + worker, end, workers) for worker in range(workers)]:
                done.result()


def _brick_of(cells: np.ndarray, resolution: tuple[int, int, int]) -> np.ndarray:
    return _flat(cells >> BITS, resolution)


def _flat(bricks: np.ndarray, resolution: tuple[int, int, int]) -> np.ndarray:
    _, y, z = brick_shape(resolution)
    return (bricks[:, 0].astype(np.int64) * y + bricks[:, 1]) * z + bricks[:, 2]


def _kinds(shading: Shading) -> np.ndarray:
    """(c,) what to do with each column in the end: 0 cut to [0, 1], 1 encode after that, 2 normalise (three together)."""
    kinds = np.zeros(sum(CHANNELS[name] for name in shading.channels), np.int64)
    for name, place in columns_of(shading.channels).items():
        kinds[place] = 2 if name == "normal" else int(name in COLORS and not shading.linear)
    return kinds


@njit(cache=True, nogil=True, error_model="numpy")
def _do_bricks(mesh, texels, looks, corner_values, cells, mine, theirs, match, offset, rescue, kinds, begin, end, step, result):
    """Bricks begin, begin + step, ... below end."""
    width = result.shape[1]
    scratch = _scratch()
    local = np.full(VOLUME, -1, np.int32)
    sums = np.empty((VOLUME, width + 1), np.float64)
    for b in range(begin, end, step):
        rows = mine.items[mine.offsets[b] : mine.offsets[b + 1]]
        items = theirs.items[theirs.offsets[match[b]] : theirs.offsets[match[b] + 1]]
        sums[: len(rows)] = 0
        for s in range(len(rows)):
            local[_local(cells[rows[s]])] = s
        _add_triangles(mesh, texels, looks, corner_values, mine.bricks[b], items, offset, 0.0, local, scratch, sums)
        missed = False
        for s in range(len(rows)):
            if sums[s, width] == 0:
                missed = True
            else:
                local[_local(cells[rows[s]])] = -1
        if missed:
            _add_triangles(mesh, texels, looks, corner_values, mine.bricks[b], items, offset, rescue, local, scratch, sums)
            for s in range(len(rows)):
                local[_local(cells[rows[s]])] = -1
        for s in range(len(rows)):
            _finish(sums[s], kinds, result[rows[s]])


@njit(cache=True, nogil=True)
def _local(cell):
    """Index of a cell inside its brick."""
    mask = SIDE - 1
    return (cell[0] & mask) << 2 * BITS | (cell[1] & mask) << BITS | (cell[2] & mask)


@njit(cache=True, nogil=True)
def _scratch():
    polygons = np.zeros((7, CORNERS, 2), np.float64)
    polygons[0, 1, 0] = polygons[0, 2, 1] = 1.0
    return (
        np.empty((3, 3), np.float64),  # corners in world units
        np.empty((3, 3), np.float64),  # corners in cells
        polygons,
        np.empty((LOOKUPS, PLAN), np.float64),
        np.empty((READ, 6), np.float64),
        np.empty(READ, np.float64),
        np.empty(READ, np.float64),
        np.empty(READ, np.float64),
        np.empty((6, 3), np.float64),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _add_triangles(mesh, texels, looks, corner_values, brick, items, offset, grow, local, scratch, sums):
    """Add, for each triangle, its part in each cell of the brick that `local` gives a row of `sums`."""
    vertices, faces, size = mesh
    world, corners, polygons, plan, lines, taps, read, values, edges = scratch
    lookups, cutoffs, levels, texel_bytes, texel_floats, decode = texels
    lookup_bounds, source, factor, cut, rows, bumps = looks
    surfaces, uv, vertex_rows, normals = corner_values
    margin = grow + MARGIN
    width = sums.shape[1] - 1
    columns = width if len(normals) == 0 else width - 3
    i0, j0, k0 = brick[0] * SIDE, brick[1] * SIDE, brick[2] * SIDE
    for face in items:
        load_corners(vertices, faces, face, world)
        corners_in_cells(world, size, 1.0, corners)
        planned = False
        double_area = 0.0
        c0, c1, c2 = faces[face, 0], faces[face, 1], faces[face, 2]
        surface = surfaces[face]
        begin_lookup, end_lookup = lookup_bounds[surface], lookup_bounds[surface + 1]
        first, end = reach(polygons, 0, 3, corners, 0, margin, i0, i0 + SIDE)
        for i in range(first, end):
            slab, in_slab = cut_to_slab(polygons, 0, 3, corners, 0, i, grow)
            first_j, end_j = reach(polygons, slab, in_slab, corners, 1, margin, j0, j0 + SIDE)
            for j in range(first_j, end_j):
                column, in_column = cut_to_slab(polygons, slab, in_slab, corners, 1, j, grow)
                first_k, end_k = reach(polygons, column, in_column, corners, 2, margin, k0, k0 + SIDE)
                for k in range(first_k, end_k):
                    row = local[(i - i0) << 2 * BITS | (j - j0) << BITS | (k - k0)]
                    if row < 0:
                        continue
                    part, count = cut_to_slab(polygons, column, in_column, corners, 2, k, grow)
                    if count < 3:
                        continue
                    if not planned:
                        planned = True
                        for a in range(3):
                            edges[0, a], edges[1, a] = world[1, a] - world[0, a], world[2, a] - world[0, a]
                        cross(edges[0], edges[1], edges[2])
                        double_area = length(edges[2]) + SLIVER * max(size[0], size[1], size[2]) ** 2
                        plan_textures(lookups, levels, begin_lookup, end_lookup, uv, c0, c1, c2, edges, offset, plan)
                        plan_columns(factor, rows, surface, vertex_rows, c0, c1, c2, columns, lines)
                    for m in range(1, count - 1):
                        p1, p2 = polygons[part, 0, 0], polygons[part, 0, 1]
                        q1, q2 = polygons[part, m, 0], polygons[part, m, 1]
                        r1, r2 = polygons[part, m + 1, 0], polygons[part, m + 1, 1]
                        share = abs((q1 - p1) * (r2 - p2) - (q2 - p2) * (r1 - p1)) / 2
                        b1, b2 = (p1 + q1 + r1) / 3, (p2 + q2 + r2) / 3
                        read_textures(
                            lookups, cutoffs, levels, texel_bytes, texel_floats, decode, begin_lookup, end_lookup,
                            plan, p1, p2, q1, q2, r1, r2, share, taps, read,
                        )  # fmt: skip
                        look(source, cut, surface, lines, columns, b1, b2, read, values)
                        if columns < width:
                            look_normal(bumps, normals, uv, surface, c0, c1, c2, b1, b2, edges, read, columns, values)
                        weight = share * double_area
                        for c in range(width):
                            sums[row, c] += weight * values[c]
                        sums[row, width] += weight


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(sums, kinds, result):
    """Weighted sums → one row of the result, as `_evaluate.finish`."""
    width = len(kinds)
    c = 0
    while c < width:
        if kinds[c] == 2:
            x, y, z = sums[c] / sums[width], sums[c + 1] / sums[width], sums[c + 2] / sums[width]
            size = math.sqrt(x * x + y * y + z * z)
            scale = 1 / size if size > CANCELLED else 0.0
            result[c], result[c + 1], result[c + 2] = x * scale, y * scale, z * scale
            c += 3
            continue
        value = min(max(sums[c] / sums[width], 0.0), 1.0)
        if kinds[c] == 1:
            value = value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
        result[c] = value
        c += 1
