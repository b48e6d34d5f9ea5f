"""Carving by depth: what it keeps, what it loses, how long it takes, and the memory of a training step with and without it.

    python benchmarks/carving.py                                           # the table: 4 shapes × 19 views of 518², two resolutions
    python benchmarks/carving.py --only speed                              # or zoom, memory; several words do several parts
    OMP_WAIT_POLICY=passive python benchmarks/carving.py --only table zoom speed memory --json carving.json

table: latent voxels at R are those that the surface touches; cells of 4 R under the kept ones are meshed exactly, so a missing one shows
as a pixel whose mask or depth differs from the picture of all. Depths to carve by come from a mesh at 8 R. Variants: "lossless" is the
default; "without cover" is the rule as derived from the paper (background at infinity, ring); then the same with a thinner margin, without
the ring, with the renderer's background of 0, and with the inequality as it is printed.
zoom: 1,000 draws; how often the number of voxels lies in the range, and how many pixels lack voxels.
speed: 1 M voxels, 8 views of 518²; best of several; the peer is the reference engine, plain torch with sorted keys.
memory: one forward and backward pass of a small SparseFlex VAE in a process of its own: what autograd keeps, and the peak of the process
over what it had before the step. Without carving all latents are decoded.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

import voxgen
from voxgen.core import Camera, Frame, Selection, TriMesh, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.ops.carve import carve_by_depth
from voxgen.render import adaptive_zoom, random_cameras, render_geometry
from voxgen.testing.carving import SHAPES, carving_errors, decoded, depth_maps, outside_views, prepared
from voxgen.testing.shapes import merged, rotated, torus

VIEWS = 19
SIZE = 518


def variants(resolution: int) -> dict[str, dict[str, Any]]:
    thin = 2 / (4 * resolution)
    return {
        "lossless": {},
        "without cover": {"cover": False},
        "margin / 4": {"margin": thin, "cover": False},
        "no ring": {"dilate": 0, "cover": False},
        "margin / 4, no ring": {"margin": thin, "dilate": 0, "cover": False},
        "background 0": {"zero": True, "cover": False},
        "background 0, no ring": {"zero": True, "dilate": 0, "cover": False},
        "as printed, no ring": {"rule": "paper", "dilate": 0},
    }


def carve(grid: VoxelGrid, depth: Tensor, camera: Camera, options: dict[str, Any]) -> Selection:
    chosen = dict(options)
    if chosen.pop("zero", False):
        depth = torch.where(depth.isinf(), 1e-9, depth)
    return carve_by_depth(grid, depth, camera, **chosen)


def table(resolution: int, views: int, size: int) -> list[dict[str, Any]]:
    """One row a shape and variant: share of latents kept on average, pixels that differ in all views, views with such a pixel."""
    rows = []
    camera = outside_views(views, size)
    for name in SHAPES:
        shape, grid, parent, mesh = prepared(name, resolution)
        whole = decoded(shape)
        found = {variant: [0.0, 0, 0] for variant in variants(resolution)}
        for view in tqdm(range(views), desc=f"{name} at {resolution}³", leave=False):
            single = camera[view]
            depth, full = depth_maps(mesh, single), depth_maps(whole, single)
            for variant, options in variants(resolution).items():
                kept = carve(grid, depth, single, options)
                wrong = int(carving_errors(full, depth_maps(decoded(shape, parent, kept), single)))
                sums = found[variant]
                found[variant] = [sums[0] + kept.share / views, sums[1] + wrong, sums[2] + (wrong > 0)]
        for variant, (share, wrong, cases) in found.items():
            rows.append(
                {
                    "resolution": resolution,
                    "shape": name,
                    "latents": len(grid),
                    "variant": variant,
                    "kept": share,
                    "errors": wrong,
                    "views": cases,
                }
            )
    return rows


def zoom(draws: int, resolution: int = 64) -> dict[str, float]:
    """Draws over views and ranges; each range is as wide as a quarter of its lower end."""
    _, grid, _, mesh = prepared("bumpy sphere", resolution)
    camera = outside_views(VIEWS, 128)
    kept = [carve_by_depth(grid, depth_maps(mesh, camera[i]), camera[i]) for i in range(VIEWS)]
    chance = torch.Generator().manual_seed(0)
    inside, lacking, start = 0, 0, time.perf_counter()
    for draw in tqdm(range(draws), desc="zooming", leave=False):
        low = int(torch.randint(300, 3000, (), generator=chance))
        found = adaptive_zoom(grid, camera[draw % VIEWS], (low, low + low // 4), among=kept[draw % VIEWS], generator=chance)
        inside += low <= found.count <= low + low // 4
        lacking += int((~found.coverage).sum())
    return {"draws": draws, "in_range": inside / draws, "pixels_lacking_voxels": lacking, "ms": 1e3 * (time.perf_counter() - start) / draws}


def speed(repeats: int, cells: int = 1_000_000, views: int = 8) -> dict[str, float]:
    """Milliseconds of a call by engine, of the clock and of all threads together."""
    _, grid, _, mesh = prepared("torus", 64)
    resolution = 64
    while len(grid) < cells:  # all children of the shell's cells: as many as wanted, where they would be
        resolution *= 2
        coords = grid.coords[:, None] * torch.tensor([1, 2, 2, 2]) + torch.nn.functional.pad(
            torch.cartesian_prod(*[torch.arange(2)] * 3), (1, 0)
        )
        grid = VoxelGrid.build(coords.reshape(-1, 4).int(), resolution=resolution)[0]
    grid = grid.select(torch.arange(cells))
    camera = outside_views(views, SIZE)
    depth = depth_maps(mesh, camera).float()
    shown = torch.zeros(views, dtype=torch.int64)
    times = {}
    for engine, count in (("numba", repeats), ("reference", max(1, repeats // 3))):
        carve_by_depth(grid, depth, camera, sample=shown, backend=engine)
        best = cpu = math.inf
        for _ in range(count):
            start, busy = time.perf_counter(), time.process_time()
            carve_by_depth(grid, depth, camera, sample=shown, backend=engine)
            best, cpu = min(best, time.perf_counter() - start), min(cpu, time.process_time() - busy)
        times |= {f"{engine}_ms": 1e3 * best, f"{engine}_cpu_ms": 1e3 * cpu}
    return {"cells": cells, "views": views, **times, "ratio": times["reference_cpu_ms"] / times["numba_cpu_ms"]}


def scene() -> TriMesh:
    """Two linked rings: surface in front of surface."""
    return merged(
        rotated(torus(0.25, 0.09, 128, 64, (0.1, 0, 0)), 0.4), rotated(torus(0.25, 0.09, 128, 64, (-0.1, 0, 0)), 1.9, (1, 0.2, 0))
    )


def training_step(resolution: int, select: Callable[[VoxelGrid], Selection]) -> tuple[int, int]:
    """Forward and backward of a small SparseFlex VAE whose latent lives at a resolution: latents decoded, bytes kept by autograd."""
    from voxgen.losses import SparseFlexVAELoss, geometric_tsdf
    from voxgen.models import SparseFlexVAE, build
    from voxgen.representations import OrientedPoints

    mesh = scene()
    torch.manual_seed(0)
    vae = cast(SparseFlexVAE, build("voxgen/sparse-flex-vae-small"))
    cloud = OrientedPoints.from_mesh(mesh, 20_000, frame=Frame.unit(1))
    grid = cloud.voxels(resolution, mesh)
    needed = select(grid)
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)
        latent = vae.encode(cloud, grid)
        out = vae.decode(latent, select=needed, prune=False)
        field = out.prediction()
        terms = SparseFlexVAELoss()(
            step=0,
            mean=latent.posterior.mean.feats,
            logvar=latent.posterior.logvar,
            corners=field.flex.corners,
            voxel_size=field.flex.frame.voxel_size[0],
            at_cells=field.at_cells,
            at_corners=field.at_corners,
            feats=out.features.feats,
            tsdf=geometric_tsdf(field.flex.positions, mesh, 0.05),
            surface=field.flex.surface(training=True),
        )
    terms.total.backward()
    return needed.count, sum(sizes.values())


def selections(name: str) -> Callable[[VoxelGrid], Selection]:
    camera = random_cameras(1, width=SIZE, height=SIZE, generator=torch.Generator().manual_seed(3))

    def select(grid: VoxelGrid) -> Selection:
        if name == "all":
            return Selection.all(grid)
        depth = render_geometry(scene(), camera, antialias=False, depth_background=math.inf).depth
        carved = carve_by_depth(grid, depth, camera)
        if name == "carved":
            return carved
        count = (len(grid) // 8, len(grid) // 6)
        return adaptive_zoom(grid, camera, count, among=carved, reach=0.25, generator=torch.Generator().manual_seed(0))

    return select


def peak_bytes() -> int:
    """Largest resident memory of this process so far (Linux)."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _measure(resolution: int, name: str, answer: Any) -> None:
    training_step(8, Selection.all)  # loads compiled code
    before = peak_bytes()
    start = time.perf_counter()
    decoded_latents, kept = training_step(resolution, selections(name))
    answer.put(
        {"latents": decoded_latents, "kept_mb": kept / 2**20, "peak_mb": (peak_bytes() - before) / 2**20, "s": time.perf_counter() - start}
    )


def memory(resolutions: list[int]) -> list[dict[str, Any]]:
    """Each step in a fresh process, so that its peak is its own."""
    context, rows = multiprocessing.get_context("spawn"), []
    for resolution in resolutions:
        for name in ("all", "carved", "carved and zoomed"):
            answer = context.SimpleQueue()
            process = context.Process(target=_measure, args=(resolution, name, answer))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"a step at {resolution}³ with {name} latents failed (exit code {process.exitcode})")
            rows.append({"latent": resolution, "output": 4 * resolution, "decoded": name, **answer.get()})
    return rows


def show(result: dict[str, Any]) -> None:
    for row in result.get("table", []):
        print(
            f"{row['resolution']:>4}³ {row['shape']:<15} {row['latents']:>6} latents  {row['variant']:<22} kept {row['kept']:.3f}  "
            f"errors {row['errors']:>7,} in {row['views']:>2} views"
        )
    if zoomed := result.get("zoom"):
        print(
            f"zoom: {100 * zoomed['in_range']:.1f} % of {zoomed['draws']} draws in range, {zoomed['pixels_lacking_voxels']} pixels lack "
            f"voxels, {zoomed['ms']:.1f} ms a draw"
        )
    if timed := result.get("speed"):
        engines = ", ".join(f"{timed[f'{e}_ms']:.0f} ms {e} ({timed[f'{e}_cpu_ms']:.0f} ms of CPU)" for e in ("numba", "reference"))
        print(f"speed: {engines}; {timed['ratio']:.1f} times less CPU")
    for row in result.get("memory", []):
        print(
            f"step at {row['latent']}³ → {row['output']}³, {row['decoded']:<18} {row['latents']:>6} latents  kept for backward "
            f"{row['kept_mb']:>7.0f} MB  peak {row['peak_mb']:>7.0f} MB  {row['s']:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("table", "zoom", "speed", "memory"), default=["table"])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 64], help="of the latents")
    parser.add_argument("--views", type=int, default=VIEWS)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "date": str(date.today()),
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "voxgen": voxgen.__version__,
    }
    if "table" in arguments.only:
        result["table"] = [row for r in arguments.resolutions for row in table(r, arguments.views, arguments.size)]
    if "zoom" in arguments.only:
        result["zoom"] = zoom(arguments.draws)
    if "speed" in arguments.only:
        result["speed"] = speed(arguments.repeats)
    if "memory" in arguments.only:
        result["memory"] = memory(arguments.resolutions)
    show(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
