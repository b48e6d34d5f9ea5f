"""One layer of existing research code replaced by voxgen's: same weights, same numbers, less time and memory.

The network below stands for that code: a small sparse UNet with a tensor class and a convolution of its own, which knows nothing of
voxgen. Its finest convolution is then replaced, with its weights, and nothing else is touched.

Run: python examples/drop_in_layer.py [--resolution 64] [--channels 64] [--out out]
Expect: both convolutions agree with `conv3d` on the dense volume, the network's output stays the same, and the layer is
several times as fast.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from voxgen.interop import DropInLayer
from voxgen.layers import SparseConv3d
from voxgen.ops.conv.layouts import from_layout
from voxgen.testing.shells import shell

# ---------------------------------------------------------------- existing research code


class Sparse:
    """Features (n, c) on cells (n, 4) [batch, x, y, z], in any order."""

    def __init__(self, coords: Tensor, feats: Tensor) -> None:
        self.coords, self.feats = coords, feats

    def replace(self, feats: Tensor) -> Sparse:
        return Sparse(self.coords, feats)


def keys_of(coords: Tensor) -> Tensor:
    b, x, y, z = coords.long().unbind(1)
    return ((b * 1024 + x) * 1024 + y) * 1024 + z


class Conv(nn.Module):
    """Submanifold 3³ convolution: find, gather, multiply and add for each of the 27 offsets; weight (co, 3, 3, 3, ci)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, 3, 3, 3, channels_in) / (27 * channels_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Sparse) -> Sparse:
        keys, order = keys_of(x.coords + 1).sort()
        out = self.bias.repeat(len(keys), 1)
        for i, j, k in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
            wanted = keys_of(x.coords + torch.tensor([1, i, j, k]))
            place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            found = keys[place] == wanted
            out = out.index_add(0, found.nonzero()[:, 0], x.feats[order[place[found]]] @ self.weight[:, i, j, k].T)
        return x.replace(out)


class UNet(nn.Module):
    """Two levels: fine, coarse, and fine again with what the first one saw."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Linear(3, channels)
        self.fine: nn.Module = Conv(channels, channels)
        self.coarse = Conv(channels, 2 * channels)
        self.leave = nn.Linear(3 * channels, 1)

    def forward(self, x: Sparse) -> Tensor:
        fine = self.fine(x.replace(self.enter(x.feats))).feats.relu()
        halved = torch.cat((x.coords[:, :1], x.coords[:, 1:] // 2), 1)
        parents, parent = halved.unique(dim=0, return_inverse=True)
        pooled = fine.new_zeros(len(parents), fine.shape[1]).scatter_reduce(
            0, parent[:, None].expand_as(fine), fine, "mean", include_self=False
        )
        coarse = self.coarse(Sparse(parents, pooled)).feats.relu()
        return self.leave(torch.cat((fine, coarse[parent]), 1))


# ---------------------------------------------------------------- the replacement


def replaced(conv: Conv) -> DropInLayer:
    """voxgen's layer with the weights of the other. Coarser levels and further layers would share one `GridCache`."""
    layer = SparseConv3d(conv.weight.shape[4], conv.weight.shape[0])
    layer.load_state_dict({"weight": from_layout(conv.weight, "trellis2"), "bias": conv.bias})
    return DropInLayer(layer, "trellis")


def dense_answer(conv: Conv, x: Sparse, resolution: int) -> Tensor:
    """Rows of torch's convolution of the whole volume."""
    b, i, j, k = x.coords.long().unbind(1)
    volume = x.feats.new_zeros(1, resolution, resolution, resolution, x.feats.shape[1]).index_put((b, i, j, k), x.feats)
    dense = nn.functional.conv3d(volume.permute(0, 4, 1, 2, 3), conv.weight.permute(0, 4, 1, 2, 3), conv.bias, padding=1)
    return dense.permute(0, 2, 3, 4, 1)[b, i, j, k]


def cells_of(resolution: int) -> Tensor:
    """Cells of a surface, in random order."""
    coords = shell(resolution=resolution).grid.coords
    return coords[torch.randperm(len(coords))]


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def least_time(call: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_memory(call: Callable[[], object]) -> float:
    """MiB above what is held before, at the peak; NaN where the system does not tell."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return float("nan")

    def read(name: str) -> float:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) / 1024

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what was freed and is kept by the C library would hide what the call takes
    clear.write_text("5")  # the peak counts from here
    before = read("VmRSS")
    call()
    return max(0.0, read("VmHWM") - before)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns relative differences, seconds, and MiB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=64, help="cells an axis, a power of two")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--smallest", action="store_true", help="the size that tests run")
    arguments = parser.parse_args(argv)
    resolution, channels = (32, 16) if arguments.smallest else (arguments.resolution, arguments.channels)
    torch.manual_seed(0)

    network = UNet(channels).eval()
    existing = network.fine
    assert isinstance(existing, Conv)
    ours = replaced(existing)
    found: dict[str, float] = {}
    with torch.no_grad():
        cells = cells_of(32)
        small = Sparse(cells, torch.randn(len(cells), channels))
        dense = dense_answer(existing, small, 32)
        found["existing layer against conv3d"] = gap(existing(small).feats, dense)
        found["voxgen's layer against conv3d"] = gap(ours(small).feats, dense)

        coords = cells_of(resolution)
        x = Sparse(coords, torch.randn(len(coords), 3))
        before = network(x)
        network.fine = ours  # the replacement
        found["network after against before"] = gap(network(x), before)

        wide = Sparse(coords, torch.randn(len(coords), channels))
        for name, layer in (("existing layer", existing), ("voxgen's layer", ours)):
            found[f"{name}, s"] = least_time(lambda layer=layer: layer(wide))
            found[f"{name}, MiB"] = peak_memory(lambda layer=layer: layer(wide))
    print(f"{len(coords):,} cells at {resolution}³, {channels} channels")
    for name, value in found.items():
        print(f"  {name:32} {value:.3g}")
    ratio = found["existing layer, s"] / found["voxgen's layer, s"]
    print(f"the layer is {ratio:.1f} times as fast; expected: differences below 1e-5")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "drop_in_layer.json").write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
