"""Gaussians on the image: time and memory of a picture, alone and with its gradient, against the plain torch path.

    python benchmarks/splat.py                                            # 100,000 Gaussians of a ball at 256²
    python benchmarks/splat.py --count 400000 --size 512 --json splat.json
    OMP_WAIT_POLICY=passive python benchmarks/splat.py                    # on a busy machine: idle threads of torch do not spin

The scene is like an untrained TRELLIS object: centres on a ball of radius 0.4 that fills most of the image (or in a shell), scales
around 0.0041, opacities from 0.1 to 0.9, four channels (colour and depth). Engines take turns, so that a busy moment hits all of them
alike; best wall and best CPU time (all threads) of the repeats are kept: on a shared machine the second is steadier. The peer is the
list of pairs (Gaussian, pixel) in plain torch, the engine "torch"; no common library draws Gaussians on a CPU. Memory is what a
process grows by at the peak of a step, in a process of its own for each engine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

import voxgen
from voxgen.core import Camera
from voxgen.ops.splat import project_gaussians, splat

ENGINES = ("numba", "torch")


def scene(count: int, size: int) -> tuple[list[Tensor], Camera]:
    chance = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(count, 3, generator=chance), dim=1)
    scales = 0.0041 * torch.exp(0.4 * torch.randn(count, 3, generator=chance))
    inputs = [
        0.4 * directions,
        torch.randn(count, 4, generator=chance),
        scales,
        0.1 + 0.8 * torch.rand(count, generator=chance),
        torch.rand(count, 4, generator=chance),
    ]
    return inputs, Camera.look_at(torch.tensor([[0.0, 0.3, 1.35]]), width=size, height=size, fov=40.0)


def pairs(inputs: list[Tensor], camera: Camera) -> int:
    """Pixels on which some Gaussian reaches 1/255, counted by the areas of the ellipses."""
    spots = project_gaussians(*inputs[:4], camera, preset="trellis")
    reach = 2 * (255 * spots.opacity).clamp_min(1).log()
    xx, xy, yy = spots.covariance.unbind(1)
    return int((torch.pi * reach * (xx * yy - xy * xy).sqrt())[spots.visible].sum())


def calls(inputs: list[Tensor], camera: Camera, engine: str) -> dict[str, Callable[[], object]]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    weight = torch.rand(1, camera.height, camera.width, 4, generator=torch.Generator().manual_seed(1))

    def forward() -> None:
        with torch.no_grad():
            splat(*leaves[:4], leaves[4], camera, preset="trellis", backend=engine)

    def both() -> None:
        out = splat(*leaves[:4], leaves[4], camera, preset="trellis", backend=engine)
        torch.autograd.grad((out.image * weight).sum() + out.alpha.sum(), leaves)

    return {f"forward: {engine}": forward, f"forward and backward: {engine}": both}


def best(todo: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Best wall and CPU milliseconds of each call, in turns."""
    found = {name: {"wall_ms": float("inf"), "cpu_ms": float("inf")} for name in todo}
    for call in todo.values():
        call()
    for _ in range(repeats):
        for name, call in todo.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            found[name]["wall_ms"] = min(found[name]["wall_ms"], 1e3 * (time.perf_counter() - wall))
            found[name]["cpu_ms"] = min(found[name]["cpu_ms"], 1e3 * (time.process_time() - cpu))
    return found


def resident(what: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" the most since the mark was reset. Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def peak(count: int, size: int, engine: str) -> float:
    """MB that a step, forward and backward, adds at its peak in a process in which a small one has loaded everything."""
    list(calls(*scene(100, 16), engine).values())[1]()
    step = list(calls(*scene(count, size), engine).values())[1]
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step()
    return (resident("VmHWM") - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="Gaussians")
    parser.add_argument("--size", type=int, default=256, help="pixels along each side")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--memory-of", choices=ENGINES, help="only print the peak of one engine, for the process of its own")
    options = parser.parse_args()
    if options.memory_of:
        print(peak(options.count, options.size, options.memory_of))
        return
    inputs, camera = scene(options.count, options.size)
    touched = pairs(inputs, camera)
    todo = {name: call for engine in ENGINES for name, call in calls(inputs, camera, engine).items()}
    times = best(todo, options.repeats)
    again = [sys.executable, __file__, "--count", str(options.count), "--size", str(options.size), "--memory-of"]
    memory = {e: float(subprocess.run([*again, e], check=True, capture_output=True, text=True).stdout) for e in ENGINES}
    print(f"{options.count:,} Gaussians, {options.size}², {touched / 1e6:.2f} million pairs of Gaussian and pixel")
    for name, value in times.items():
        peer = times[f"{name.split(':')[0]}: torch"]
        ratio = f"{peer['wall_ms'] / value['wall_ms']:5.1f} × the peer's wall, {peer['cpu_ms'] / value['cpu_ms']:5.1f} × its CPU time"
        print(f"  {name:30s} {value['wall_ms']:8.1f} ms wall {value['cpu_ms']:8.1f} ms cpu  {ratio}")
    for engine, megabytes in memory.items():
        print(f"  peak of a step, {engine:15s} {megabytes:8.0f} MB")
    if options.json:
        results = {
            "date": date.today().isoformat(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__},
            "scene": {"gaussians": options.count, "size": options.size, "pairs": touched},
            "times": times,
            "peak_MB": memory,
        }
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
