"""From the raw channels of a network's last layer to activated Gaussians."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, softplus

from voxgen.core import VoxelGrid
from voxgen.core.checks import describe, require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import FrameError, RangeError
from voxgen.core.hammersley import hammersley

if TYPE_CHECKING:
    from ._fields import GaussianSplats

CHANNELS = {"offset": 3, "color": 3, "scale": 3, "rotation": 4, "opacity": 1}
"""Channels a Gaussian, in the order of the head's groups."""
WIDTH = sum(CHANNELS.values())
RATES = {"offset": 1.0, "color": 1.0, "scale": 1.0, "rotation": 0.1, "opacity": 1.0}
TRELLIS_RATES = {"_xyz": "offset", "_features_dc": "color", "_scaling": "scale", "_rotation": "rotation", "_opacity": "opacity"}
SAME_SIZE = 1e-6
"""How much the sides of a cell may differ, relatively."""


@dataclass(frozen=True)
class GaussianActivation:
    """How raw channels become Gaussians. Lengths are in units of the frame's box, which is 1 for the unit cube.

    Args:
        count: Gaussians a cell.
        voxel_size: how far a centre may go, in cells: half of it from the middle of the cell along each axis; above 1.
        perturb_offset: centres start on a Hammersley set over the cell; False starts all of them in its middle.
        blur: variance in px² with which these Gaussians are meant to be drawn (a renderer's `SplatPreset.blur`).
        kernel: standard deviation of a low-pass in space: scale = sqrt(activated² + kernel²).
        scale_bias: scale, before the low-pass, of a raw channel of 0.
        opacity_bias: opacity of a raw channel of 0.
        scale_activation: "softplus" or "exp".
        rates: factors on raw channels by group; they only change how fast a group learns.
        largest_scale: None, or a cap on scales in cells, so that the margin of `cull_voxels` is proved; the original has none.
    Raises:
        RangeError: a number out of range, an unknown group or activation.
    The defaults are the released configuration of TRELLIS at resolution 64; see `at`.
    """

    count: int = 32
    voxel_size: float = 1.5
    perturb_offset: bool = True
    blur: float = 0.1
    kernel: float = 9e-4
    scale_bias: float = 4e-3
    opacity_bias: float = 0.1
    scale_activation: Literal["softplus", "exp"] = "softplus"
    rates: Mapping[str, float] = field(default_factory=lambda: dict(RATES))
    largest_scale: float | None = None

    def __post_init__(self) -> None:
        where = "GaussianActivation"
        require_int(where, "count", self.count, 1)
        require_choice(where, "scale_activation", self.scale_activation, ("softplus", "exp"))
        if not 1 < self.voxel_size < math.inf:
            raise RangeError(
                f"{where}: voxel_size must be above 1 and finite, or the first Gaussian starts at infinity; got {self.voxel_size}."
            )
        if not (0 < self.scale_bias < math.inf and 0 < self.opacity_bias < 1):
            raise RangeError(f"{where}: scale_bias must be positive, opacity_bias in (0, 1); got {self.scale_bias}, {self.opacity_bias}.")
        if not (0 <= self.kernel < math.inf and 0 <= self.blur < math.inf):
            raise RangeError(f"{where}: kernel and blur must be finite and not negative; got {self.kernel} and {self.blur}.")
        if self.largest_scale is not None and not self.largest_scale > 0:
            raise RangeError(f"{where}: largest_scale must be positive, in cells, or None; got {self.largest_scale}.")
        if set(self.rates) != set(RATES):
            raise RangeError(f"{where}: rates must have the groups {', '.join(RATES)}; got {describe(sorted(self.rates))}.")

    @staticmethod
    def at(resolution: int, **fields: Any) -> GaussianActivation:
        """Settings for another resolution: the same Gaussians in units of a cell, and about the same number of them in all.

        32 a cell at 64, 8 at 128, 4 at 256, 2 from 512 on; scale_bias and kernel times 64 / resolution. Any field can be given.
        The volume regulariser's weight is then `volume_weight(resolution)`.
        """
        require_int("GaussianActivation.at", "resolution", resolution, 1)
        count = 32 if resolution <= 64 else 8 if resolution <= 128 else 4 if resolution <= 256 else 2
        share = 64 / resolution
        return replace(GaussianActivation(count, kernel=9e-4 * share, scale_bias=4e-3 * share), **fields)

    @staticmethod
    def volume_weight(resolution: int) -> float:
        """Weight of `gaussian_volume` that keeps the term's size where cells shrink: 1e4 at 64, times 8 for each doubling."""
        return 1e4 * (resolution / 64) ** 3

    @staticmethod
    def from_trellis(config: Mapping[str, Any]) -> GaussianActivation:
        """From the `representation_config` of a released .json.

        Raises:
            RangeError: a key is missing or not known.
        """
        where = "GaussianActivation.from_trellis"
        names = {
            "num_gaussians": "count",
            "voxel_size": "voxel_size",
            "perturb_offset": "perturb_offset",
            "2d_filter_kernel_size": "blur",
            "3d_filter_kernel_size": "kernel",
            "scaling_bias": "scale_bias",
            "opacity_bias": "opacity_bias",
            "scaling_activation": "scale_activation",
        }
        if set(config) != {*names, "lr"} or set(config["lr"]) != set(TRELLIS_RATES):
            raise RangeError(
                f"{where}: the keys must be {sorted([*names, 'lr'])}, those of lr {sorted(TRELLIS_RATES)}; got {sorted(config)}."
            )
        rates = {TRELLIS_RATES[name]: float(rate) for name, rate in config["lr"].items()}
        return GaussianActivation(**{own: config[name] for name, own in names.items()}, rates=rates)

    def offsets(self) -> Float[Tensor, "g 3"]:
        """Where the Gaussians of a cell start, before tanh; float64. TRELLIS keeps this as the buffer `offset_perturbation`."""
        if not self.perturb_offset:
            return torch.zeros(self.count, 3, dtype=torch.float64)
        return torch.atanh((2 * hammersley(self.count) - 1) / self.voxel_size)


def from_features(
    grid: VoxelGrid,
    feats: Float[Tensor, "n c"],
    activation: GaussianActivation | None = None,
    *,
    offset_perturbation: Float[Tensor, "g 3"] | None = None,
) -> GaussianSplats:
    """Activate the raw channels of a Gaussian head.

    The channels of g Gaussians lie in groups, each (g, k) with k fastest: offset of the centre (3g), colour (3g), scale (3g), rotation
    (4g), opacity (g). With x a raw channel times its group's rate: centre = cell centre + tanh(x + P) · voxel_size / 2 cells;
    sh_0 = x; scale = sqrt(act(x + act⁻¹(scale_bias))² + kernel²); rotation = normalize(x + (1, 0, 0, 0)); opacity = sigmoid(x +
    logit(opacity_bias)).

    Args:
        grid: (n cells); cells must be cubes.
        feats: (n, 14 g) float32 or float64.
        activation: None takes the released configuration of TRELLIS with the g that feats have.
        offset_perturbation: P; None makes it by the activation. Give a checkpoint's buffer here.
    Returns:
        GaussianSplats of n g Gaussians; those of row r are r g to r g + g - 1, objects as in the grid. Differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit the grid.   FrameError: cells that are no cubes.
    Source: TRELLIS (arXiv 2412.01506), §3 and its decoder. Differences: lengths scale with the frame's box; `largest_scale`.
    """
    from ._fields import GaussianSplats

    where = "GaussianSplats.from_features"
    require_tensor(where, "feats", feats, (len(grid), "c"), (torch.float32, torch.float64))
    if activation is None:
        activation = GaussianActivation(max(1, feats.shape[1] // WIDTH))
    count = activation.count
    require_tensor(where, "feats", feats, (len(grid), WIDTH * count), hint=f"The activation says {count} Gaussians a cell, {WIDTH} each.")
    if offset_perturbation is None:
        offset_perturbation = activation.offsets()
    else:
        require_tensor(where, "offset_perturbation", offset_perturbation, (count, 3), (torch.float32, torch.float64))
    require_same_device(where, coords=grid.coords, feats=feats)
    size = grid.frame.voxel_size
    if max(size) - min(size) > SAME_SIZE * max(size):
        raise FrameError(f"{where}: cells must be cubes; the frame's have sides {size}.")
    box = size[0] * max(grid.resolution)
    groups = feats.split([width * count for width in CHANNELS.values()], 1)
    raw = {name: part.reshape(-1, CHANNELS[name]) * activation.rates[name] for name, part in zip(CHANNELS, groups, strict=True)}
    start = offset_perturbation.to(feats).repeat(len(grid), 1)
    middle = (grid.cells.to(feats.dtype) + 0.5).repeat_interleave(count, 0)
    means = grid.frame.to_world(middle + torch.tanh(raw["offset"] + start) * (activation.voxel_size / 2))
    rotations = normalize(raw["rotation"] + raw["rotation"].new_tensor([1.0, 0.0, 0.0, 0.0]), dim=1)
    bias = math.log(activation.opacity_bias / (1 - activation.opacity_bias))
    return GaussianSplats(
        means,
        rotations,
        _scales(raw["scale"], activation, box, size[0]),
        torch.sigmoid(raw["opacity"][:, 0] + bias),
        raw["color"][:, None],
        grid.offsets * count,
        up=grid.frame.up,
    )


def _scales(raw: Tensor, activation: GaussianActivation, box: float, cell: float) -> Tensor:
    """World units."""
    bias = activation.scale_bias
    if activation.scale_activation == "softplus":
        wide = softplus(raw + math.log(math.expm1(bias)))
    else:
        wide = torch.exp(raw + math.log(bias))
    scales = (wide.square() + activation.kernel**2).sqrt() * box
    return scales if activation.largest_scale is None else scales.clamp_max(activation.largest_scale * cell)
