"""TripoSF's VAE at its released widths: the point encoder and the upsampling steps against their plain forms, and whole calls.

    OMP_WAIT_POLICY=passive python benchmarks/sparse_flex_vae.py                       # 204,800 points, a 64³ latent
    python benchmarks/sparse_flex_vae.py --resolution 32 --points 50000 --blocks 2     # smaller
    python benchmarks/sparse_flex_vae.py --device cuda --repeats 5

Random weights, points and voxels of a real mesh. Peers, with the same weights, the same convolution and the same results:

- points, plain: layer by layer over all points: a point's feature beside its voxel's mean as one row, the last linear map before the
  mean. voxgen's takes the mean's half of each layer once a voxel, the last map after the mean, and goes in runs of points.
- step, plain: as TripoSF's release does it: children first, then the wide convolution and the shortcut on them. voxgen's convolves
  parents with summed weights (`sparse_conv_subdivided`) and makes the shortcut on parents.

"train" is a forward pass of all children and their logits, and the backward pass of a sum. Memory is the peak of one call above what
is held before it, in a process of its own in which the C library gives every large piece back at once (CPU), or the allocator's
(GPU); input and weights do not count, the result does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, cast

import torch
from conv import DATA, best, extra_bytes
from early_pruning import ALLOCATOR
from torch import Tensor
from torch.nn import functional as F

import voxgen
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.io import load_mesh
from voxgen.layers import PointCloudEncoder, SelfPruningUpsampler
from voxgen.layers._point_encoder import PointBlock
from voxgen.layers._point_voxels import sort_points
from voxgen.models import SparseFlexVAE, build
from voxgen.ops.resample import Structure, subdivide
from voxgen.ops.segment import segment_broadcast, segment_reduce
from voxgen.representations import OrientedPoints
from voxgen.testing.grids import fresh
from voxgen.testing.shapes import torus

Call = Callable[[], object]


def plain_points(encoder: PointCloudEncoder, cloud: OrientedPoints, grid: VoxelGrid) -> Tensor:
    found = sort_points("benchmark", cloud.points, cloud.offsets, grid, "error")
    h = encoder.fc_pos(torch.cat([found.local, cloud.normals[found.order]], 1))
    for i, block in enumerate(encoder.blocks):
        if i > 0:
            mean = segment_broadcast(segment_reduce(h, found.bounds, "mean"), found.bounds, rows=len(h))
            h = torch.cat([h, mean], 1)
        h = cast(PointBlock, block)(h)
    rows = segment_reduce(encoder.fc_c(h), found.bounds, "mean")
    return rows.new_zeros(len(grid), rows.shape[1]).index_copy(0, found.rows, rows)


def plain_step(step: SelfPruningUpsampler, x: SparseTensor) -> tuple[Tensor, Tensor]:
    up, every = step.upsample, Structure.of_mask(x.grid)
    h = SparseTensor(every.children, subdivide(F.silu(up.norm1(x).feats), every))
    h = up.norm2(up.conv1(h))
    h = up.conv2(h.with_feats(F.silu(h.feats))).feats + up.skip_connection(subdivide(x.feats, every))
    return h, step.predict(h)


def fused_step(step: SelfPruningUpsampler, x: SparseTensor) -> tuple[Tensor, Tensor]:
    made = step(x, prune=False)
    return made.x.feats, made.logits


def inputs(options: argparse.Namespace) -> tuple[SparseFlexVAE, OrientedPoints, VoxelGrid]:
    torch.manual_seed(0)
    mesh = torus() if options.mesh == "torus" else load_mesh(DATA / options.mesh)
    cloud = OrientedPoints.from_mesh(mesh, options.points, compat="triposf")
    grid = cloud.voxels(options.resolution)
    vae = cast(SparseFlexVAE, build("triposf/vae", num_blocks=options.blocks, norm=options.norm, device=options.device))
    with torch.no_grad():
        for name, value in vae.named_parameters():
            if value.ndim > 1 and not value.any():
                value.normal_(std=(value.numel() / value.shape[-1 if "conv" in name else 0]) ** -0.5)
    return vae, cloud.to(options.device), grid.to(options.device)


def calls(options: argparse.Namespace) -> dict[str, Call]:
    """Every measured call by name; "X" and "X, plain" give the same."""
    vae, cloud, grid = inputs(options)
    latent = SparseTensor(grid, torch.randn(len(grid), 8, device=options.device))
    widths = (768, 192)
    level = [grid, Structure.of_mask(grid).children]
    part = Structure.of_mask(grid, torch.arange(8, device=grid.device) % 2 == torch.zeros(len(grid), 1, device=grid.device)).children
    parents = (grid, part)  # of the second step: half of all children, as a surface has
    found: dict[str, Call] = {
        "points": lambda: no_grad(lambda: vae.points(cloud.points, cloud.normals, cloud.offsets, grid)),
        "points, plain": lambda: no_grad(lambda: plain_points(vae.points, cloud, grid)),
    }
    for i, (cells, width) in enumerate(zip(parents, widths, strict=True)):
        step = cast(SelfPruningUpsampler, vae.decoder.upsample[i])
        feats = torch.randn(len(cells), width, device=options.device)
        for kind, way in (("", fused_step), (", plain", plain_step)):

            def forward(step: Any = step, way: Any = way, cells: VoxelGrid = cells, feats: Tensor = feats) -> object:
                return no_grad(lambda: way(step, SparseTensor(fresh(cells), feats)))

            def train(step: Any = step, way: Any = way, cells: VoxelGrid = cells, feats: Tensor = feats) -> object:
                h, logits = way(step, SparseTensor(fresh(cells), feats.clone().requires_grad_()))
                return torch.autograd.grad(h.sum() + logits.sum(), list(step.parameters()), materialize_grads=True)

            found[f"step {i}{kind}"] = forward
            found[f"step {i} train{kind}"] = train
    found["encode"] = lambda: no_grad(lambda: vae.encode(cloud, fresh(grid)))
    found["decode"] = lambda: no_grad(lambda: vae.decode(SparseTensor(fresh(grid), latent.feats), prune=False))
    found["decode, tiles"] = lambda: no_grad(lambda: vae.decode(SparseTensor(fresh(grid), latent.feats), prune=False, tile=options.tile))
    print(f"{len(cloud):,} points, {len(level[0]):,} latents, {len(level[1]):,} children, {len(part):,} of them in step 1")
    return found


def no_grad(call: Call) -> object:
    with torch.no_grad():
        return call()


def check(options: argparse.Namespace) -> dict[str, float]:
    """Largest difference of each call and its plain form over the largest value."""
    vae, cloud, grid = inputs(options)
    gaps = {}
    with torch.no_grad():
        one, other = vae.points(cloud.points, cloud.normals, cloud.offsets, grid).feats, plain_points(vae.points, cloud, grid)
        gaps["points"] = float((one - other).abs().max() / other.abs().max())
        step = cast(SelfPruningUpsampler, vae.decoder.upsample[0])
        x = SparseTensor(grid, torch.randn(len(grid), 768, device=options.device))
        gaps["step 0"] = float((fused_step(step, x)[0] - (wanted := plain_step(step, x)[0])).abs().max() / wanted.abs().max())
    if max(gaps.values()) > 1e-4:
        raise RuntimeError(f"results differ: {gaps}")
    return gaps


def memory(name: str) -> int | None:
    """Peak of one call in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ALLOCATOR)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", default="suzanne.obj" if (DATA / "suzanne.obj").exists() else "torus", help="a file in $VOXGEN_DATA")
    parser.add_argument("--resolution", type=int, default=64, help="of the latent")
    parser.add_argument("--points", type=int, default=204_800)
    parser.add_argument("--blocks", type=int, default=12, help="transformer blocks of encoder and decoder")
    parser.add_argument("--norm", choices=("group", "per_voxel"), default="group")
    parser.add_argument("--tile", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of calls; none: all")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(extra_bytes(calls(options)[options.memory_of], options.device, warm_up=options.device == "cuda")))
        return
    gaps = check(options)
    chosen = {name: call for name, call in calls(options).items() if not options.only or name.removesuffix(", plain") in options.only}
    times = best(chosen, options.repeats, 600.0, options.device)
    figures = {name: {**times[name], "extra_bytes": memory(name)} for name in chosen}
    for name, entry in figures.items():
        peer = figures.get(f"{name}, plain")
        faster = f"{peer['cpu_s'] / entry['cpu_s']:6.2f} × less CPU" if peer else ""
        less = f", {peer['extra_bytes'] / entry['extra_bytes']:5.2f} × less memory" if peer and entry["extra_bytes"] else ""
        held = 0 if entry["extra_bytes"] is None else entry["extra_bytes"]
        print(f"  {name:22s}{entry['wall_s']:9.3f} s wall {entry['cpu_s']:9.3f} s CPU {held / 1e6:10,.1f} MB {faster}{less}")
    if options.json:
        results = {
            "date": date.today().isoformat(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
            "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__},
            "options": {name: value for name, value in vars(options).items() if name not in ("json", "memory_of", "only")},
            "load": os.getloadavg(),
            "differences": gaps,
            "figures": figures,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
