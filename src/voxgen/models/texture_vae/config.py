"""Configuration of the texture autoencoder: plain, frozen, checked when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxgen.core.checks import require_int
from voxgen.models.slat import SLatConfig
from voxgen.ops.surface_cells import CHANNELS
from voxgen.representations import GaussianActivation

__all__ = ["TextureVAEConfig"]


@dataclass(frozen=True)
class TextureVAEConfig:
    """Configuration of `TextureVAE`.

    Args:
        resolution: cells an axis of the latent's grid; the Gaussians lie on cells 2^len(widths) times as fine.
        feature_channels: width of the image features of a cell; 1024 for DINOv2-L.
        geometry_channels: width of the numbers of the surface beside them (`surface_channels`); 0 for none. With them the latent knows
            where inside its cells the surface lies, which the mask needs.
        latent_channels: width of the latent.
        model_channels, num_blocks, num_heads, mlp_ratio, window_size: of the transformers of encoder and decoder.
        mask_blocks: depth of the mask generator's transformer.
        widths: of the levels above the latent's, coarse → fine.
        num_gaussians: a cell of the finest level; None keeps their number about constant (`GaussianActivation.at`).
        torso_dtype, use_checkpoint: as in `SLatConfig`.
    Raises:
        RangeError, DtypeError: numbers that make no network.
    The defaults are the first of the two variants of Sparse-Up ("256"); the second has resolution 128. The paper gives no widths.
    """

    resolution: int = 64
    feature_channels: int = 1024
    geometry_channels: int = CHANNELS
    latent_channels: int = 8
    model_channels: int = 768
    num_blocks: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    window_size: int = 8
    mask_blocks: int = 6
    widths: tuple[int, ...] = (192, 96)
    num_gaussians: int | None = None
    torso_dtype: str = "float32"
    use_checkpoint: bool = False

    def __post_init__(self) -> None:
        where = "TextureVAEConfig"
        object.__setattr__(self, "widths", tuple(require_int(where, f"widths[{i}]", w, 1) for i, w in enumerate(self.widths)))
        for name in ("resolution", "feature_channels", "latent_channels"):
            require_int(where, name, getattr(self, name), 1)
        for name in ("geometry_channels", "mask_blocks"):
            require_int(where, name, getattr(self, name), 0)
        if self.num_gaussians is not None:
            require_int(where, "num_gaussians", self.num_gaussians, 1)
        for config in (self.encoder, self.decoder):  # raise here for what they would raise for
            config()

    @property
    def finest(self) -> int:
        """Cells an axis of the finest level."""
        return self.resolution << len(self.widths)

    def encoder(self) -> SLatConfig:
        """Of the encoder."""
        return self._torso(self.feature_channels + self.geometry_channels, 2 * self.latent_channels)

    def decoder(self) -> SLatConfig:
        """Of the decoder's transformer; out_channels are those of the finest level's features."""
        return self._torso(self.latent_channels, self.widths[-1] if self.widths else self.model_channels)

    def activation(self) -> GaussianActivation:
        """How raw channels become Gaussians at the finest level."""
        chosen = {} if self.num_gaussians is None else {"count": self.num_gaussians}
        return GaussianActivation.at(self.finest, **chosen)

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `TextureVAEConfig.from_json` makes an equal configuration."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> TextureVAEConfig:
        """The inverse of `to_json`."""
        return TextureVAEConfig(**{**values, "widths": tuple(values["widths"])})

    def _torso(self, in_channels: int, out_channels: int) -> SLatConfig:
        return SLatConfig(
            self.resolution,
            in_channels,
            out_channels,
            model_channels=self.model_channels,
            num_blocks=self.num_blocks,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            window_size=self.window_size,
            torso_dtype=self.torso_dtype,
            use_checkpoint=self.use_checkpoint,
        )
