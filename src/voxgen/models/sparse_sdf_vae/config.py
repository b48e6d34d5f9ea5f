"""Configuration of the sparse SDF autoencoder: plain, frozen, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import RangeError
from voxgen.models._trunk import TrunkConfig

STEPS = 3
"""Steps between the level of the input and that of the latent."""

NARROWING = (16, 8, 4)
"""The levels finer than the latent's have model_channels over these, fine → coarse."""

Compat = Literal["direct3d_s2"]


@dataclass(frozen=True)
class LatentLevel(TrunkConfig):
    """What encoder and decoder have in common.

    Args:
        model_channels: width C at the level of the latent, a multiple of 16. The finer levels have C/4, C/8 and C/16.
        latent_channels, num_blocks, num_heads, window, mlp_ratio, torso_dtype, use_checkpoint: see `SDFEncoderConfig`.
    Raises:
        RangeError: numbers that make no network.   DtypeError: not numbers.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_channels % NARROWING[0]:
            raise RangeError(f"{type(self).__name__}: model_channels must be a multiple of {NARROWING[0]}; got {self.model_channels}.")

    @property
    def finer_channels(self) -> tuple[int, int, int]:
        """Widths of the levels finer than the latent's, fine → coarse."""
        a, b, c = (self.model_channels // n for n in NARROWING)
        return a, b, c


@dataclass(frozen=True)
class SDFEncoderConfig(LatentLevel):
    """Configuration of `SparseSDFEncoder`.

    Args:
        model_channels, latent_channels, num_blocks, num_heads, window, mlp_ratio, torso_dtype, use_checkpoint: width C at the
            level of the latent (the finer levels have C/4, C/8, C/16), width of the latent, transformer blocks and their
            heads, side of a window in latent cells, hidden width of their feed-forward half over C, dtype of matrices and
            convolutions, and whether to compute the blocks again in the backward pass.
        num_groups: of the group norms; must divide the narrowest width, C/16, so that 32 groups need 512 channels.
        compat: "direct3d_s2" pools as the released weights were trained: the sum of the children over their number plus one, so
            that a lone child is halved. None takes the mean.
    Raises:
        RangeError: numbers that make no network, an unknown word.   DtypeError: not numbers.
    """

    num_groups: int = 32
    compat: Compat | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        where = "SDFEncoderConfig"
        if self.finer_channels[0] % require_int(where, "num_groups", self.num_groups, 1):
            raise RangeError(
                f"{where}: num_groups must divide the narrowest level's {self.finer_channels[0]} channels (model_channels / 16); got "
                f"{self.num_groups}."
            )
        require_compat(where, self.compat)


@dataclass(frozen=True)
class SDFDecoderConfig(LatentLevel):
    """Configuration of `SparseSDFDecoder`; fields not listed are those of `SDFEncoderConfig`.

    Args:
        out_channels: width of the output, 1 for distances.
        early_pruning: predict at each step which children exist and make no others. The original has nothing like it: it makes
            512 cells of every cell of the latent.
    Raises: as `SDFEncoderConfig`.
    """

    out_channels: int = 1
    early_pruning: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("SDFDecoderConfig", "out_channels", self.out_channels, 1)


def require_compat(where: str, compat: str | None) -> None:
    """Raise RangeError unless it is None or a system whose quirks there are."""
    if compat is not None:
        require_choice(where, "compat", compat, ("direct3d_s2",))
