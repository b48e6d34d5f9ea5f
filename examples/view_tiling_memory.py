"""Memory of a training step of a Gaussian decoder with all children, with a mask, with a mask and tiles: the Sparse-Up paper's table.

Run: python examples/view_tiling_memory.py [--resolutions 64 128] [--channels 32] [--out FOLDER]   (a minute or two; Linux)
Expect: the mask takes away more than half, tiles most of what is left, with one and the same loss and gradient; peaks with k × k tiles lie
near A + B / k², where A is what the trunk keeps and B what belongs to pixels and to Gaussians in view.

A trunk at resolution / 4, two upsamplers to the full resolution, a Gaussian head, a picture, the mean absolute difference to a target,
backward. "raw" makes features for all eight children at both levels, as un-pruned decoders do; "mask" for those that the surface
touches. With tiles the trunk runs once and everything from the head on runs tile by tile (`ViewTiling.accumulate`), each with the
cells that `cull_voxels` keeps for it. Each step runs in a process of its own; its figure is the largest resident memory on top of
what the process held before, with the weights, the data and the target in place.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from voxgen.core import Camera, SparseTensor
from voxgen.core.atomic import atomic_write
from voxgen.layers import GaussianHead, SparseConvNeXtBlock, SurfaceAnchoringUpsampler
from voxgen.ops.resample import Structure
from voxgen.render import ViewTiling, cull_voxels, render_gaussians
from voxgen.representations import GaussianActivation, GaussianSplats, OVoxel
from voxgen.testing import shapes

STEPS = {"raw": ("all", 1), "mask": ("gt", 1), "mask, 2 × 2 tiles": ("gt", 2), "mask, 4 × 4 tiles": ("gt", 4)}
PAPER = {256: (73011, 41577, 27881, 24541), 512: (None, 65537, 45811, 38301)}
"""Peaks in MB that the paper reports at these resolutions, on a GPU; None: out of memory."""
LARGEST = 0.8
"""Cap on scales, in cells, from which the margin of culling follows."""


class Decoder(nn.Module):
    """Trunk, two upsamplers, head."""

    def __init__(self, resolution: int, channels: int) -> None:
        super().__init__()
        c = channels
        self.activation = GaussianActivation.at(resolution, count=4, largest_scale=LARGEST, scale_bias=0.5 / resolution)
        self.inlet = nn.Linear(3, 4 * c)
        self.blocks = nn.ModuleList([SparseConvNeXtBlock(4 * c) for _ in range(2)])
        self.up = nn.ModuleList([SurfaceAnchoringUpsampler(4 * c, 2 * c), SurfaceAnchoringUpsampler(2 * c, c)])
        self.head = GaussianHead(c, self.activation.count)

    def features(self, x: SparseTensor, structures: list[Structure], source: str) -> SparseTensor:
        """From the coarse cells to the finest."""
        h = x.with_feats(self.inlet(x.feats))
        for block in self.blocks:
            h = block(h)
        for level, structure in zip(self.up, structures, strict=True):
            h = (level(h, structure=structure) if source == "gt" else level(h, source="all")).x
        return h

    def gaussians(self, h: SparseTensor) -> GaussianSplats:
        raw = self.head(h)
        return GaussianSplats.from_features(raw.grid, raw.feats, self.activation, offset_perturbation=self.head.offset_perturbation)


class Scene(NamedTuple):
    """x: inputs on the coarse cells.   structures: true children, coarse first.   target: (1, h, w, 3) of `camera`."""

    x: SparseTensor
    structures: list[Structure]
    camera: Camera
    target: Tensor


def scene(resolution: int, size: int) -> Scene:
    mesh = shapes.rotated(shapes.merged(shapes.torus(0.34, 0.12), shapes.sphere(0.18)))
    ovoxel = OVoxel.from_mesh(mesh, resolution, materials=False)
    color = (ovoxel.grid.cells.float() + 0.5) / resolution
    camera = Camera.look_at(torch.tensor([[0.5, 0.7, 1.15]]), width=size, height=size)
    with torch.no_grad():
        target = render_gaussians(GaussianSplats.from_ovoxel(ovoxel.replace(materials={"base_color": color})), camera).color
    fine = Structure.of_children(ovoxel.grid, 2)
    coarse = Structure.of_children(fine.parents, 2)
    return Scene(SparseTensor(coarse.parents, coarse.parents.cells.float() / coarse.parents.resolution[0]), [coarse, fine], camera, target)


def step(model: Decoder, data: Scene, source: str, tiles: int) -> float:
    """One step; gradients are left in the parameters."""
    tiling = ViewTiling.of(data.camera, tiles, overlap=16)
    largest = LARGEST * data.structures[-1].children.frame.voxel_size[0]
    h = model.features(data.x, data.structures, source)

    def tile_loss(index: int, feats: Tensor) -> Tensor:
        tile = tiling.tiles[index]
        kept = cull_voxels(h.grid, data.camera, tile, largest_scale=largest, preset="trellis")
        splats = model.gaussians(kept.apply(h.with_feats(feats)))
        image = render_gaussians(splats, data.camera, crop=tile, preset="trellis").color
        return tiling.part_of_mean((image - tile.cut(data.target)).abs().permute(0, 3, 1, 2), index)

    return float(tiling.accumulate(h.feats, tile_loss))


def resident(what: str) -> float:
    """MB of this process: "VmRSS" now, "VmHWM" the most since it was reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def measure(name: str, resolution: int, channels: int) -> dict[str, float]:
    """Peak, loss and size of the gradient of one step, in this process."""
    source, tiles = STEPS[name]
    torch.manual_seed(0)
    step(Decoder(16, 8), scene(16, 32), source, tiles)  # loads what is compiled
    data = scene(resolution, 4 * resolution)
    torch.manual_seed(0)
    model = Decoder(resolution, channels)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    loss = step(model, data, source, tiles)
    gradient = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    return {"peak_MB": resident("VmHWM") - before, "loss": loss, "gradient": float(gradient.norm())}


def fit(peaks: list[float]) -> tuple[float, float]:
    """A and B of A + B / k² for k = 1, 2, 4, by least squares."""
    k = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    design = torch.stack((torch.ones_like(k), 1 / k.square()), 1)
    a, b = torch.linalg.lstsq(design, torch.tensor(peaks, dtype=torch.float64)[:, None]).solution[:, 0].tolist()
    return a, b


def main(argv: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128], help="finest resolutions, multiples of 4")
    parser.add_argument("--channels", type=int, default=32, help="width at the finest level; 4 times as many in the trunk")
    parser.add_argument("--out", type=Path, default=Path("out/view_tiling_memory"), help="folder for the figures, view_tiling_memory.json")
    parser.add_argument("--smallest", action="store_true", help="the size that tests run")
    parser.add_argument("--step", choices=STEPS, help="only measure one step, for the process of its own")
    options = parser.parse_args(argv)
    if options.smallest:
        options.resolutions, options.channels = [16], 8
    if options.step:
        found = measure(options.step, options.resolutions[0], options.channels)
        print(json.dumps(found))
        return dict(found)
    results: dict[str, object] = {}
    for resolution in options.resolutions:
        again = [sys.executable, __file__, "--resolutions", str(resolution), "--channels", str(options.channels), "--step"]
        steps = {name: json.loads(subprocess.run([*again, name], check=True, capture_output=True, text=True).stdout) for name in STEPS}
        peaks = [found["peak_MB"] for found in steps.values()]
        a, b = fit(peaks[1:])
        results[str(resolution)] = {"steps": steps, "A_MB": a, "B_MB": b}
        print(f"resolution {resolution}, image {4 * resolution}²")
        for name, found in steps.items():
            saved = 100 * (1 - found["peak_MB"] / peaks[0])
            print(
                f"  {name:18s} {found['peak_MB']:8.0f} MB  −{saved:3.0f} %   loss {found['loss']:.9f}   |gradient| {found['gradient']:.9f}"
            )
        print(f"  A + B / k²: A = {a:.0f} MB, B = {b:.0f} MB")
    print(
        "paper, MB on an 80 GB GPU: " + "; ".join(f"{r}: {', '.join(str(v or 'out of memory') for v in row)}" for r, row in PAPER.items())
    )
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.out / "view_tiling_memory.json", "w") as file:
        json.dump(results, file, indent=1)
    return results


if __name__ == "__main__":
    main()
