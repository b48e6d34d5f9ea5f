"""SparseFlex extraction: per-voxel predictions → corners → mesh, against the published way of doing it in torch.

    OMP_WAIT_POLICY=passive python benchmarks/flexicubes.py                             # 1,002,592 cells at 544³
    python benchmarks/flexicubes.py --resolution 272 544 1024 --no-peer --json flexicubes.json

Input, to be repeated: the cells of an R³ grid on the unit cube whose centre is nearer than 1.5 / R to a sphere of radius 0.3 (R = 544:
1,002,592 cells); each predicts at its corners the distance to the sphere plus N(0, 0.1 / R) and a deformation N(0, 1); weights
alpha, beta uniform in (0.5, 1.5), gamma in (0.05, 0.95); float32. A call starts from cells and predictions: nothing is kept from
one to the next. It finds the corners, averages, places the corners, extracts. The mesh has no order but that of the engine.

The peer is written from descriptions of the published code: rows of all corners made unique with `torch.unique(dim=0)`, edges of
the surface cubes likewise, a scatter mean, a Python dictionary for the neighbours of problematic cubes, vertices by the number
that their cube has. Before anything is timed it must give the same mesh as voxgen with compat="triposf". It shares the case
table, nothing else.

Best wall time and best CPU time (all threads) of the repeats; the peer runs once, it is slow. Memory is the peak of a process of its
own above what it held before the call.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import voxgen
from voxgen.core import VoxelGrid
from voxgen.ops.flexicubes import FlexInputs, FlexSurface, average_at_corners, cube_corners, flexicubes, flexicubes_in_slabs
from voxgen.ops.flexicubes._table import EDGES, dual_vertices, face_step, problematic_face


class Input(NamedTuple):
    """coords (n, 4); values (n, 8, 4): sdf and deformation by cell; weights."""

    coords: Tensor
    resolution: int
    values: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor


def sphere(resolution: int, radius: float = 0.3) -> Input:
    """See the module's docstring."""
    axis = (torch.arange(resolution) + 0.5) / resolution - 0.5
    layers = []
    for x in range(resolution):
        distance = (axis[x] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() - radius
        cells = (distance.abs() < 1.5 / resolution).nonzero()
        layers.append(torch.nn.functional.pad(cells, (2, 0)) + torch.tensor([0, x, 0, 0]))
    coords = torch.cat(layers).int()
    n, generator = len(coords), torch.Generator().manual_seed(0)
    steps = torch.tensor([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)])
    corners = (coords[:, None, 1:] + steps) / resolution - 0.5
    values = torch.randn(n, 8, 4, generator=generator)
    values[..., 0] = corners.norm(dim=2) - radius + 0.1 / resolution * values[..., 0]
    alpha, beta = torch.rand(n, 8, generator=generator) + 0.5, torch.rand(n, 12, generator=generator) + 0.5
    return Input(coords, resolution, values, alpha, beta, 0.9 * torch.rand(n, generator=generator) + 0.05)


def ours(x: Input, **options: object) -> FlexSurface:
    grid = VoxelGrid.from_sorted(x.coords, resolution=x.resolution, batch_size=1)
    return flexicubes(grid, **field(x, grid, slice(None))._asdict(), **options)  # pyright: ignore[reportArgumentType]


def field(x: Input, part: VoxelGrid, rows: slice) -> FlexInputs:
    corners = cube_corners(part)
    mean = average_at_corners(x.values[rows], corners)
    positions = corners.coords[:, 1:] / x.resolution - 0.5 + 0.5 / x.resolution * mean[:, 1:].tanh()
    return FlexInputs(mean[:, 0], positions, x.alpha[rows], x.beta[rows], x.gamma[rows])


def in_slabs(x: Input) -> FlexSurface:
    grid = VoxelGrid.from_sorted(x.coords, resolution=x.resolution, batch_size=1)
    return flexicubes_in_slabs(grid, lambda part, rows: field(x, part, rows), cells=len(grid) // 8)


def training_step(x: Input) -> list[Tensor]:
    """Forward in training mode, and back to the predictions and all weights."""
    x = x._replace(**{name: getattr(x, name).clone().requires_grad_() for name in ("values", "alpha", "beta", "gamma")})
    ours(x, training=True).vertices.square().sum().backward()
    return [t.grad for t in (x.values, x.alpha, x.beta, x.gamma) if t.grad is not None]


# the peer


def peer(x: Input) -> tuple[Tensor, Tensor]:
    """Vertices and faces in inference, in the published way and order."""
    cells, n = x.coords[:, 1:].long(), len(x.coords)
    steps = torch.tensor([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)])
    corners, index = (cells[:, None] + steps).reshape(-1, 3).unique(dim=0, return_inverse=True)
    total = torch.zeros(len(corners), 5).index_add_(0, index, torch.cat((x.values.reshape(-1, 4), torch.ones(8 * n, 1)), 1))
    mean = total[:, :4] / total[:, 4:]
    positions = corners / x.resolution - 0.5 + 0.5 / x.resolution * mean[:, 1:].tanh()
    sdf, index = mean[:, 0], index.reshape(-1, 8)

    inside = sdf[index] < 0
    surface = inside.any(1) & ~inside.all(1)
    cells, index, inside = cells[surface], index[surface], inside[surface]
    alpha, beta, gamma = x.alpha[surface], x.beta[surface], x.gamma[surface]
    case = (inside.long() << torch.arange(8)).sum(1)
    case = peer_replaced(cells, case)

    ends = torch.tensor(EDGES)
    edges, edge_of, shared = index[:, ends].reshape(-1, 2).unique(dim=0, return_inverse=True, return_counts=True)
    crossed = (sdf[edges] < 0).sum(1) == 1
    edge_of = edge_of.reshape(-1, 12)

    counts = torch.tensor([len(dual_vertices(c)) for c in range(256)])
    table = torch.full((256, 4, 7), -1)
    for c in range(256):
        for j, group in enumerate(dual_vertices(c)):
            table[c, j, : len(group)] = torch.tensor(group)
    vertex_of = torch.full((len(cells), 12), -1)
    vertices, vertex_gamma, first = [], [], 0
    for count in range(1, 5):
        rows = (counts[case] == count).nonzero()[:, 0]
        groups = table[case[rows], :count].reshape(-1, 7)
        cube = rows.repeat_interleave(count)
        member, slot = (groups >= 0).nonzero().unbind(1)
        edge, owner = groups[member, slot], cube[member]
        a, b = ends[edge].unbind(1)
        p, q = index[owner, a], index[owner, b]
        s, t = sdf[p] * alpha[owner, a], sdf[q] * alpha[owner, b]
        points = (t[:, None] * positions[p] - s[:, None] * positions[q]) / (t - s)[:, None]
        weight = beta[owner, edge][:, None]
        sums = torch.zeros(len(cube), 4).index_add_(0, member, torch.cat((weight * points, weight), 1))
        vertices.append(sums[:, :3] / sums[:, 3:])
        vertex_gamma.append(gamma[cube])
        vertex_of[owner, edge] = first + member
        first += len(cube)
    vertices, vertex_gamma = torch.cat(vertices), torch.cat(vertex_gamma)

    used = (crossed & (shared == 4))[edge_of]  # edges in the order of cubes; a stable sort keeps that for the four of an edge
    numbers, order = edge_of[used].sort(stable=True)
    quads, numbers = vertex_of[used][order].reshape(-1, 4), numbers.reshape(-1, 4)[:, 0]
    ahead = sdf[edges[numbers, 0]] > 0
    quads = torch.cat((quads[ahead][:, [0, 1, 3, 2]], quads[~ahead][:, [2, 3, 1, 0]]))
    g = vertex_gamma[quads]
    cut = (g[:, 0] * g[:, 2] > g[:, 1] * g[:, 3])[:, None]
    faces = torch.where(cut, quads[:, [0, 1, 2, 0, 2, 3]], quads[:, [0, 1, 3, 3, 1, 2]])
    return vertices, faces.reshape(-1, 3)


def peer_replaced(cells: Tensor, case: Tensor) -> Tensor:
    """Problematic pairs by a dictionary of all problematic cubes."""
    face = torch.tensor([problematic_face(c) for c in range(256)])[case]
    rows = (face >= 0).nonzero()[:, 0].tolist()
    place = {tuple(cell): row for cell, row in zip(cells[rows].tolist(), rows, strict=True)}
    for (x, y, z), row in list(place.items()):
        dx, dy, dz = face_step(int(face[row]))
        if (x + dx, y + dy, z + dz) in place:
            case[row] = 255 - case[row]
    return case


# measuring


RUNS: dict[str, Callable[[Input], object]] = {
    "numba": lambda x: ours(x, backend="numba"),
    "numba, in 8 slabs": in_slabs,
    "torch": lambda x: torch_only(x),
    "numba, training, forward and backward": training_step,
    "peer": peer,
}


def torch_only(x: Input) -> FlexSurface:
    with voxgen.use_backend("torch"):
        return ours(x)


def gate(resolution: int) -> None:
    """The peer and voxgen give one mesh, on the shell and on random values there, or nothing is timed."""
    x = sphere(resolution)
    for values in (x.values, torch.randn(x.values.shape, generator=torch.Generator().manual_seed(1))):
        given = x._replace(values=values)
        vertices, faces = peer(given)
        found = ours(given, compat="triposf")
        if not torch.equal(found.faces.long(), faces) or float((found.vertices - vertices).abs().max()) > 1e-6:
            raise SystemExit("the peer and voxgen differ: no figures")


def measure(x: Input, names: list[str], repeats: int) -> dict[str, dict[str, float]]:
    times = {name: {"wall_s": float("inf"), "cpu_s": float("inf")} for name in names}
    for name in names:
        if name != "peer":
            RUNS[name](x)
    for turn in range(repeats):
        for name in names:
            if name == "peer" and turn:
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            RUNS[name](x)
            times[name]["wall_s"] = min(times[name]["wall_s"], time.perf_counter() - wall)
            times[name]["cpu_s"] = min(times[name]["cpu_s"], time.process_time() - cpu)
    return times


def peak_bytes(name: str, resolution: int) -> int:
    """Peak memory of one call above what was held before, in a process of its own."""
    found = subprocess.run(
        [sys.executable, __file__, f"--peak={name}", f"--resolution={resolution}"], check=True, capture_output=True, text=True
    )
    return int(found.stdout)


def print_peak(name: str, resolution: int) -> None:
    if name != "peer":
        RUNS[name](sphere(32))  # loads compiled code
    x = sphere(resolution)
    ctypes.CDLL(None).malloc_trim(0)  # pages that are free already would hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    RUNS[name](x)
    print(held("VmHWM") - before)


def held(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, nargs="*", default=[544])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return print_peak(options.peak, options.resolution[0])
    gate(48)
    names = [name for name in RUNS if name != "peer" or not options.no_peer]
    results: dict[str, object] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__},
    }
    for resolution in options.resolution:
        x = sphere(resolution)
        surface = ours(x)
        times = measure(x, names, options.repeats)
        print(f"\n{resolution}³: {len(x.coords):,} cells, {len(surface.vertices):,} vertices, {len(surface.faces):,} triangles")
        for name, entry in times.items():
            entry["peak_bytes"] = peak_bytes(name, resolution)
            ratio = ""
            if "peer" in times and "training" not in name:
                wall, cpu = (times["peer"][key] / entry[key] for key in ("wall_s", "cpu_s"))
                ratio = f"the peer takes {wall:6.1f} × the wall, {cpu:6.1f} × the cpu time"
            print(f"  {name:40s} {entry['wall_s']:8.3f} s wall {entry['cpu_s']:8.3f} s cpu {entry['peak_bytes'] / 2**20:8.0f} MiB  {ratio}")
        results[str(resolution)] = {"cells": len(x.coords), "triangles": len(surface.faces), "runs": times}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
