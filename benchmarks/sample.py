"""Time of sample_trilinear, forward and backward, at points on the surface of a sphere in a sparse grid.

    python benchmarks/sample.py                                   # 512³, 6 channels, a million points
    python benchmarks/sample.py --points 4194304 --engines numba  # the texels of a 2048² texture
    python benchmarks/sample.py --device cuda --engines torch

The first, unmeasured call loads the compiled code and builds the grid's index; the best of the repeats is kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from voxgen.core import Frame, VoxelGrid
from voxgen.metrics import sample_surface
from voxgen.ops.sample import sample_trilinear
from voxgen.ops.voxelize import triangle_cells
from voxgen.testing.shapes import sphere


def best(call: Callable[[], object], repeats: int, device: str) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--channels", type=int, default=6)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--engines", nargs="*", default=["numba", "torch"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    frame = Frame.unit(arguments.resolution)
    mesh = sphere(0.45, 5)
    found = triangle_cells(
        mesh.vertices, mesh.faces, origin=frame.origin, voxel_size=frame.voxel_size, resolution=arguments.resolution
    ).cells
    coords = torch.cat((torch.zeros(len(found), 1, dtype=torch.int32), found), 1)
    grid = VoxelGrid.from_sorted(coords, resolution=arguments.resolution, batch_size=1).to(arguments.device)
    feats = torch.rand(len(grid), arguments.channels, device=arguments.device)
    points = frame.to_index(sample_surface(mesh, arguments.points).points).to(arguments.device)
    shuffled = points[torch.randperm(len(points), device=points.device)]
    upstream = torch.rand(len(points), arguments.channels, device=arguments.device)
    print(
        f"{len(grid):,} cells, {len(points):,} points, {arguments.channels} channels, {arguments.device}, {torch.get_num_threads()} threads"
    )
    print(f"{'engine':<10}{'points':<12}{'forward s':>10}{'+ to feats s':>14}{'+ to both s':>13}")
    for engine in arguments.engines:
        for name, chosen in (("by face", points), ("shuffled", shuffled)):
            row = [best(lambda e=engine, p=chosen: sample_trilinear(feats, grid, p, backend=e), arguments.repeats, arguments.device)]
            for to_points in (False, True):
                f, p = feats.clone().requires_grad_(), chosen.clone().requires_grad_(to_points)

                def step(e: str = engine, f: torch.Tensor = f, p: torch.Tensor = p, to_points: bool = to_points) -> object:
                    values = sample_trilinear(f, grid, p, backend=e)
                    return torch.autograd.grad(values, (f, p) if to_points else (f,), upstream)

                row.append(best(step, arguments.repeats, arguments.device))
            print(f"{engine:<10}{name:<12}{row[0]:>10.3f}{row[1]:>14.3f}{row[2]:>13.3f}")


if __name__ == "__main__":
    main()
