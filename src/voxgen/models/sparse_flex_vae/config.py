"""Configuration of the SparseFlex autoencoder: plain, frozen, checked when it is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import DtypeError, RangeError
from voxgen.layers import PointCloudEncoder
from voxgen.models._trunk import TrunkConfig

STEPS = 2
"""Steps between the level of the latent and that of the output."""

NARROWING = (4, 8)
"""The levels finer than the latent's have model_channels over these, coarse → fine."""

Compat = Literal["triposf"]
Norm = Literal["group", "per_voxel"]


@dataclass(frozen=True)
class PointEncoderConfig:
    """Configuration of the `PointCloudEncoder` in front.

    Args:
        out_channels: width of a voxel's feature.
        hidden: width of a point's feature.
        num_blocks: residual blocks.
        use_normals: whether normals go in.
        compat: "triposf" puts points whose voxel does not exist into the next one, silently, as the original; None raises.
        use_checkpoint: compute features of points again in the backward pass instead of keeping them.
    """

    out_channels: int = 1024
    hidden: int = 256
    num_blocks: int = 5
    use_normals: bool = True
    compat: Compat | None = None
    use_checkpoint: bool = False

    def __post_init__(self) -> None:
        require_compat("PointEncoderConfig", self.compat)
        for name in ("use_normals", "use_checkpoint"):
            if not isinstance(getattr(self, name), bool):
                raise DtypeError(f"PointEncoderConfig: {name} must be True or False; got {getattr(self, name)!r}.")

    def build(self) -> PointCloudEncoder:
        """The encoder, with fresh weights."""
        return PointCloudEncoder(
            self.out_channels,
            self.hidden,
            self.num_blocks,
            use_normals=self.use_normals,
            stray="compat" if self.compat else "error",
            checkpoint=self.use_checkpoint,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `PointEncoderConfig(**values)` makes an equal configuration."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class FlexEncoderConfig(TrunkConfig):
    """Configuration of `SparseFlexEncoder`.

    Args:
        in_channels: width of a voxel's feature, such as a `PointCloudEncoder` gives.
        model_channels, latent_channels, num_blocks, num_heads, window, mlp_ratio, torso_dtype, use_checkpoint: width C of the
            trunk, width of the latent, transformer blocks and their heads, side of a window in cells, hidden width of their
            feed-forward half over C, dtype of matrices, and whether to compute blocks again in the backward pass.
    Raises:
        RangeError: numbers that make no network, an unknown word.   DtypeError: not numbers.
    """

    model_channels: int = 768
    latent_channels: int = 8
    num_blocks: int = 12
    num_heads: int = 12
    in_channels: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("FlexEncoderConfig", "in_channels", self.in_channels, 1)


@dataclass(frozen=True)
class FlexDecoderConfig(TrunkConfig):
    """Configuration of `SparseFlexDecoder`; fields not listed are those of `FlexEncoderConfig`.

    Args:
        model_channels: a multiple of 8; the finer levels have C/4 and C/8.
        out_channels: 53 for SparseFlex.
        norm: of the upsampling blocks. "group": over all cells of a sample, as the released weights were trained, so that crops,
            tiles and carved grids give other numbers than the whole; "per_voxel": over each cell alone, same parameters.
        num_groups: of "group" norms; must divide C/8.
        prune: whether a decode drops children that are judged empty, where it is not told.
    Raises: as `FlexEncoderConfig`.
    """

    model_channels: int = 768
    latent_channels: int = 8
    num_blocks: int = 12
    num_heads: int = 12
    out_channels: int = 53
    norm: Norm = "per_voxel"
    num_groups: int = 32
    prune: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        where = "FlexDecoderConfig"
        require_int(where, "out_channels", self.out_channels, 1)
        require_choice(where, "norm", self.norm, get_args(Norm))
        if not isinstance(self.prune, bool):
            raise DtypeError(f"{where}: prune must be True or False; got {self.prune!r}.")
        if self.model_channels % NARROWING[1]:
            raise RangeError(f"{where}: model_channels must be a multiple of {NARROWING[1]}; got {self.model_channels}.")
        if self.norm == "group" and self.finer_channels[1] % require_int(where, "num_groups", self.num_groups, 1):
            raise RangeError(
                f"{where}: num_groups must divide the finest level's {self.finer_channels[1]} channels (model_channels / 8); got "
                f"{self.num_groups}."
            )

    @property
    def finer_channels(self) -> tuple[int, int]:
        """Widths of the levels finer than the latent's, coarse → fine."""
        a, b = (self.model_channels // n for n in NARROWING)
        return a, b


def require_compat(where: str, compat: str | None) -> None:
    """Raise RangeError unless it is None or a system whose quirks there are."""
    if compat is not None:
        require_choice(where, "compat", compat, get_args(Compat))
