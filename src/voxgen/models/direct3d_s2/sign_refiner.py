"""SignRefiner: on which side of the surface the cells lie that a decoded narrow band does not cover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, INTEGERS, require_int, require_same_device, require_tensor
from voxgen.layers import set_torso_dtype
from voxgen.models._trunk import TORSO_DTYPES
from voxgen.ops.resample import Structure, pool

from .fields import require_field, signed_volume
from .tiles import Tile, dense_tile, require_tiling, tile_starts, tiles
from .unet import UNet3D

__all__ = ["SignRefiner"]

FACTOR = 2


class SignRefiner(nn.Module):
    """Decides the sign of inactive cells at half the resolution of a decoded field; active cells keep their values.

    `forward` is the network on dense patches, for training; `outside` runs it over a whole volume in overlapping tiles, and
    `refine` puts its signs around the field.

    Args:
        unet: what decides.
        in_channels, out_channels: width of the field, and of the answer.
        patch_size: cells along an axis of a tile of `outside`, at half resolution; a multiple of `unet.factor`.
        stride: cells between tiles, None for half a tile; where tiles overlap, the later one decides.
    Parameters: `unet3d1.*`, `conv_in`, `conv_out`.
    Raises:
        RangeError: numbers that make no network.
    Source: Voxel_RefinerXL_sign of Direct3D-S2's code (not in the paper); differences: signs are kept as bits, so that 1024³
        needs one dense volume where the original has four; any resolution and number of samples.
    Example:
        >>> refiner = build("direct3d-s2/refiner-1024", block_out_channels=(8, 16), patch_size=16, use_fp16=False)
        >>> refiner.outside(field).shape                        # field: (n, 1) on 32³ cells
        torch.Size([1, 16, 16, 16])
    """

    def __init__(
        self, unet: UNet3D, *, in_channels: int = 1, out_channels: int = 1, patch_size: int = 256, stride: int | None = None
    ) -> None:
        super().__init__()
        where = "SignRefiner"
        self.in_channels = require_int(where, "in_channels", in_channels, 1)
        self.unet3d1 = unet
        self.conv_in = nn.Conv3d(in_channels, unet.in_channels, 3, padding=1)
        self.out_channels = require_int(where, "out_channels", out_channels, 1)
        self.conv_out = nn.Conv3d(unet.out_channels, out_channels, 3, padding=1)
        self.patch_size = patch_size
        self.stride = patch_size // 2 if stride is None else stride
        require_tiling(where, patch_size, self.stride, unet.factor)

    def description(self) -> dict[str, Any]:
        """The configuration in plain values; `save_pretrained` writes it."""
        return {
            "unet": self.unet3d1.description(),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "patch_size": self.patch_size,
            "stride": self.stride,
            "torso_dtype": str(self.conv_in.weight.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SignRefiner:
        """The inverse of `description`, with fresh weights."""
        fields = dict(values)
        dtype = TORSO_DTYPES[fields.pop("torso_dtype")]
        return set_torso_dtype(cls(UNet3D(**fields.pop("unet")), **fields), dtype)

    def forward(self, sdf: Float[Tensor, "b 1 x y z"]) -> Float[Tensor, "b 1 x y z"]:
        """The network on dense patches: logits of lying outside. Differentiable.

        Args:
            sdf: (b, in_channels, x, y, z) floats, the pooled field, sides multiples of `unet3d1.factor`; 1 in inactive cells.
        Returns:
            (b, out_channels, x, y, z) in the dtype of sdf; the sigmoid is the probability.
        Raises:
            ShapeError, DtypeError: patches that do not fit the network.
        """
        require_tensor("SignRefiner", "sdf", sdf, ("b", self.in_channels, "x", "y", "z"), FLOATS)
        h = self.conv_in(sdf.to(self.conv_in.weight.dtype))
        return self.conv_out(self.unet3d1(h)).to(sdf.dtype)

    @torch.no_grad()
    def outside(self, field: SparseTensor, *, repeats: Int[Tensor, " n"] | None = None, progress: bool = False) -> Bool[Tensor, "b x y z"]:
        """Whether cells lie outside, at half the resolution of a field.

        Args:
            field: (n, 1) decoded values on a cube of cells, on the device of the weights.
            repeats: (n,) how many rows each cell counts for when it is pooled; None is one. `decoded_repeats` gives those that
                the published weights saw.
            progress: show a bar over the tiles.
        Returns:
            (b, r / 2, r / 2, r / 2). A probability of a half counts as outside.
        Raises:
            ShapeError, DtypeError, DeviceError: rows that do not fit the network or each other.   RangeError: cells of a box
            that is no cube or has an odd side, or of a cube below 2 patch_size that does not halve once more than the network.
        Memory: (r / 2)³ bytes a sample, and the network on one tile.
        """
        where = "SignRefiner.outside"
        sizes = self.patch_size, self.unet3d1.factor
        resolution = require_field(where, field, self.in_channels, *sizes, self.conv_in.weight, pooled=FACTOR) // FACTOR
        pooled = pool_with_repeats(where, field, repeats)
        fill = pooled.feats.new_ones(self.in_channels)
        batch_size, offsets = field.grid.batch_size, pooled.grid.offsets.tolist()
        result = torch.empty(batch_size, resolution, resolution, resolution, dtype=torch.bool, device=field.device)
        starts = tile_starts(resolution, self.patch_size, self.stride)
        places = list(tiles(resolution, self.patch_size, self.stride))
        with tqdm(total=batch_size * len(places), desc="sign", unit="tile", disable=not progress) as bar:
            for sample in range(batch_size):
                rows = slice(offsets[sample], offsets[sample + 1])
                cells, values = pooled.grid.cells[rows], pooled.feats[rows]
                for tile in places:
                    logits = self(dense_tile(cells, values, tile, fill)[None].to(self.conv_in.weight.dtype))
                    box, kept = _decided(tile, starts)
                    result[(sample, *box)] = logits[0, 0][kept].sigmoid() >= 0.5
                    bar.update()
        return result

    def refine(
        self, field: SparseTensor, *, repeats: Int[Tensor, " n"] | None = None, progress: bool = False
    ) -> Float[Tensor, "b 1 r r r"]:
        """The field in its band, and 1 or −1 by `outside` elsewhere, as a dense volume in the dtype of field.

        Arguments and errors as `outside`; memory as `signed_volume`. Extraction from active cells needs `outside` alone.
        """
        return signed_volume(field, self.outside(field, repeats=repeats, progress=progress))


def _decided(tile: Tile, starts: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The cells that no later tile covers: of the volume, and of the tile. Later tiles decide where tiles overlap."""
    whole, own = [], []
    for index, start in zip(tile.index, tile.start, strict=True):
        end = starts[index + 1] if index + 1 < len(starts) else start + tile.size
        whole.append(slice(start, end))
        own.append(slice(0, end - start))
    return tuple(whole), tuple(own)


def pool_with_repeats(where: str, field: SparseTensor, repeats: Tensor | None) -> SparseTensor:
    """Sum of rows over their number plus one, a parent of two cells a side; a cell may count for several rows."""
    structure = Structure.of_children(field.grid, FACTOR)
    if repeats is None:
        return SparseTensor(structure.parents, pool(field.feats, structure, "mean_plus_one"))
    require_tensor(where, "repeats", repeats, (len(field),), INTEGERS, hint="A number a cell of field.")
    require_same_device(where, field=field.feats, repeats=repeats)
    counts = repeats[:, None].double()
    total = pool(field.feats.double() * counts, structure, "sum")
    pooled = total / (pool(counts, structure, "sum") + 1)
    return SparseTensor(structure.parents, pooled.to(field.dtype))
