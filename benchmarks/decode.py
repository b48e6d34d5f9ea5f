"""Dual grid → mesh: time by stage, against the plain torch path and against the machine's copy bandwidth.

    python benchmarks/decode.py                                            # a hollow ball at 512³ and 1024³
    python benchmarks/decode.py --mesh bunny.obj --resolution 1024 --json decode.json      # out of $VOXGEN_DATA
    python benchmarks/decode.py --lookup                                   # also the block index and lookups of cells
    OMP_WAIT_POLICY=passive python benchmarks/decode.py                    # on a busy machine: idle threads of torch do not spin

The first, unmeasured call loads the compiled code. Best wall time and best CPU time (all threads) of the repeats are kept:
on a shared machine the second is steadier. The peer is the reference engine, plain torch with sorted keys and searchsorted,
as published code without a hash table does it; no common CPU library joins a sparse dual grid. "least" is the time to move
every input and output byte once at the copy bandwidth of the same run, "fresh" the time to write the outputs' bytes to newly
allocated memory, which any decoder pays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

import voxgen
from voxgen.core.coords import pack_keys
from voxgen.io import load_mesh
from voxgen.ops.dual_faces import dual_faces
from voxgen.ops.lookup import _numba as lookup_numba
from voxgen.ops.lookup import _torch as lookup_torch
from voxgen.ops.lookup import lookup_cells
from voxgen.testing.shells import Shell, shell

DATA = Path(os.environ.get("VOXGEN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
Times = dict[str, dict[str, float]]


def best(calls: dict[str, Callable[[], object]], repeats: int) -> Times:
    """Best wall and CPU milliseconds of each call, in turns, so that a busy moment hits all of them alike."""
    found: Times = {name: {"wall_ms": float("inf"), "cpu_ms": float("inf")} for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            found[name]["wall_ms"] = min(found[name]["wall_ms"], 1e3 * (time.perf_counter() - wall))
            found[name]["cpu_ms"] = min(found[name]["cpu_ms"], 1e3 * (time.process_time() - cpu))
    return found


def load(mesh: str | None, resolution: int) -> Shell:
    if mesh is None:
        return shell(resolution=resolution)
    from voxgen.representations import OVoxel

    source = load_mesh(DATA / mesh)
    ovoxel = OVoxel.from_mesh(source, resolution, materials=False)
    sign = ovoxel.crossing_sign
    return Shell(ovoxel.grid, ovoxel.dual_vertices, ovoxel.intersected, torch.zeros_like(ovoxel.intersected) if sign is None else sign)


def decoding(s: Shell, peers: bool) -> dict[str, Callable[[], object]]:
    """Whole decodes by engine and way of cutting, then the stages of the compiled one."""
    from voxgen.ops.dual_faces import _geometry, _numba, _numba_split

    weight = torch.rand(len(s.grid))
    engines = ("numba", "torch", "reference") if peers else ("numba",)

    def decode(backend: str = "numba", **options: object) -> Callable[[], object]:
        return lambda: dual_faces(s.grid, s.dual, s.intersected, crossing_sign=s.crossing_sign, backend=backend, **options)  # pyright: ignore

    calls: dict[str, Callable[[], object]] = {f"all, by angle: {engine}": decode(engine) for engine in engines}
    calls["all, by weight: numba"] = decode(split_weight=weight)
    calls["all, training: numba"] = decode(split_weight=weight, training=True)
    quads = _numba.find_quads(s.grid, s.intersected, s.crossing_sign)
    found = _numba.connect(s.grid, s.dual, s.intersected, s.crossing_sign, None, "angle", False)
    number, faces = torch.zeros(len(s.grid), dtype=torch.int32), torch.empty_like(found.faces)
    frame = torch.tensor([s.grid.frame.origin, s.grid.frame.voxel_size])
    split = (quads.rows.numpy(), number[:0].numpy(), s.grid.coords.numpy(), s.dual.numpy(), weight.numpy())
    calls["stage: quads"] = lambda: _numba.find_quads(s.grid, s.intersected, s.crossing_sign)
    calls["stage: vertices in use"] = lambda: _numba._number_used(quads.rows.numpy(), number.numpy())
    for rule in ("angle", "weight"):
        calls[f"stage: cuts by {rule} and faces"] = lambda rule=rule: _numba_split.cut_quads(
            _numba_split.RULES[rule], *split, torch.ones(3).numpy(), frame.numpy(), faces.numpy()
        )
    calls["stage: vertices"] = lambda: _geometry.build_mesh(s.grid, s.dual, None, found)
    return calls


def lookups(s: Shell) -> dict[str, Callable[[], object]]:
    """The index, and as many lookups as there are cells: of the neighbours along x in order, and of all cells shuffled."""
    ordered = s.grid.coords + torch.tensor([0, 1, 0, 0], dtype=torch.int32)
    shuffled = s.grid.coords[torch.randperm(len(s.grid))]
    calls: dict[str, Callable[[], object]] = {
        "build: numba": lambda: lookup_numba.build_index(s.grid),
        "build: torch": lambda: lookup_torch.build_index(s.grid),
        "build: keys (peer)": lambda: pack_keys(s.grid.coords),
    }
    for name, coords in (("ordered", ordered), ("shuffled", shuffled)):
        for engine in ("numba", "torch"):
            calls[f"{name}: {engine}"] = lambda engine=engine, coords=coords: lookup_cells(s.grid, coords, backend=engine)
        calls[f"{name}: rows_of (peer)"] = lambda coords=coords: s.grid.rows_of(coords)
        keys = pack_keys(coords)
        calls[f"{name}: bare searchsorted"] = lambda keys=keys: torch.searchsorted(s.grid.keys, keys)
    return calls


def bounds(s: Shell, repeats: int) -> dict[str, float]:
    """What the machine allows: bytes in and out, copy bandwidth, and the two times of the module's docstring."""
    mesh = dual_faces(s.grid, s.dual, s.intersected, crossing_sign=s.crossing_sign)
    outputs = [mesh.vertices, mesh.faces, mesh.quads.rows, mesh.quads.axis]
    inputs = [s.grid.coords, s.dual, s.intersected, s.crossing_sign]
    written, read = (sum(t.numel() * t.element_size() for t in tensors) for tensors in (outputs, inputs))
    source, target = torch.zeros(25_000_000), torch.zeros(25_000_000)
    times = best({"copy": lambda: target.copy_(source), "fresh": lambda: [torch.empty_like(t).fill_(1) for t in outputs]}, repeats)
    rate = 2 * source.numel() * source.element_size() / times["copy"]["wall_ms"]
    return {
        "cells": len(s.grid),
        "quads": len(mesh.quads.rows),
        "triangles": len(mesh.faces),
        "dropped": int(mesh.quads.dropped.sum()),
        "bytes_read": read,
        "bytes_written": written,
        "copy_GB_per_s": rate / 1e6,
        "least_ms": (read + written) / rate,
        "fresh_ms": times["fresh"]["wall_ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", help="a file, relative to $VOXGEN_DATA; none: a hollow ball")
    parser.add_argument("--resolution", type=int, nargs="*", default=[512, 1024])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--lookup", action="store_true", help="also measure the block index and lookups")
    parser.add_argument("--no-peers", action="store_true", help="leave the torch engines out")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    results: dict[str, object] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__},
        "mesh": options.mesh or "hollow ball",
    }
    for resolution in options.resolution:
        s = load(options.mesh, resolution)
        limits = bounds(s, options.repeats)
        times = best(decoding(s, not options.no_peers) | (lookups(s) if options.lookup else {}), options.repeats)
        results[str(resolution)] = {"limits": limits, "times": times}
        print(f"\n{resolution}³: " + ", ".join(f"{name} {value:,.4g}" for name, value in limits.items()))
        peer = times.get("all, by angle: reference")
        for name, value in times.items():
            faster = f"{peer['wall_ms'] / value['wall_ms']:6.1f} × the peer" if peer and name.startswith("all, by") else ""
            print(f"  {name:34s} {value['wall_ms']:9.1f} ms wall {value['cpu_ms']:9.1f} ms cpu  {faster}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
