"""SCDecoder: from a latent on a coarse grid to features on a fine one, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.checks import require_int
from voxgen.core.errors import RangeError
from voxgen.layers import EarlyPruningUpsampler, LayerNorm32, set_torso_dtype
from voxgen.layers._checks import require_input
from voxgen.ops.resample import Structure

from ._blocks import block, initialize, torso_dtype, up_block
from ._inputs import follow_guide, require_logits, require_structures
from ._outputs import DecoderOutput, bar, warn_of_emptied
from ._tiles import decode_tiles
from .config import TORSO_DTYPES, DecoderConfig
from .tiling import Tiling


class SCDecoder(nn.Module):
    """The decoder of TRELLIS.2's SC-VAE, of any width, depth and kind of block.

    A linear layer, then at each level blocks and a resampling block to the next finer level, then a norm without
    parameters (eps 1e-5) and a linear layer. Which cells the finer levels have is, in this order of rank, given
    (`structure`), guided (`guide`), or, if the configuration has pred_subdiv, predicted: a child exists where its logit is
    above 0, and no feature is ever made for another.

    Args:
        config: see `DecoderConfig`.
    Raises:
        ShapeError: widths that a resampling block cannot join.
    Parameters: from_latent (latent → C0), blocks.{level}.{i}, output_layer (C_last → out). A predicting resampling block
        is an `EarlyPruningUpsampler`: predict (C → 8) and upsample.*. Initialised as `SCEncoder`.
    Numerics: as `SCEncoder`; logits are computed in the dtype of the blocks.
    Batch: as `SCEncoder`.
    Memory: the features of two neighbouring levels and the 8-fold wide output of the convolution between them; see
        `Tiling` where that is too much.
    Source: Native and Compact Structured Latents for 3D Generation, SC-VAE with early pruning. Differences: structures are
        arguments and results, never taken from a cache; a level that keeps nothing gives an empty result and a warning.
    Example:
        >>> decoder = SCDecoder(DecoderConfig(model_channels=(32, 16), num_blocks=(1, 0), latent_channels=4))
        >>> out = decoder(SparseTensor(latent_grid, torch.rand(len(latent_grid), 4)))
        >>> out.head.channels, len(out.logits)
        (7, 1)
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.model_channels
        self.from_latent = nn.Linear(config.latent_channels, widths[0])
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = [block(config.block_type[i], width, config.args[i]) for _ in range(config.num_blocks[i])]
            if i + 1 < len(widths):
                level.append(up_block(config.up_block_type[i], width, widths[i + 1], config.args[i], config.pred_subdiv))
            self.blocks.append(nn.ModuleList(level))
        self.tail_norm = LayerNorm32(widths[-1], affine=False, eps=1e-5)
        self.output_layer = nn.Linear(widths[-1], config.out_channels)
        initialize(self)
        set_torso_dtype(self.blocks, TORSO_DTYPES[config.torso_dtype])

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return self.config.to_json()

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SCDecoder:
        """The inverse of `description`, with fresh weights."""
        return cls(DecoderConfig(**values))

    @property
    def num_steps(self) -> int:
        """Steps to a finer level: the number of structures, of guides and of logits."""
        return len(self.blocks) - 1

    def forward(
        self,
        z: SparseTensor,
        *,
        structure: Sequence[Structure] | None = None,
        guide: Sequence[Tensor | SparseTensor] | None = None,
        tiling: Tiling | None = None,
        progress: bool = False,
    ) -> DecoderOutput:
        """Latent (n, latent_channels) → features on the finest level.

        Args:
            z: the latent, as an encoder or a generator makes it (not normalised).
            structure: one `Structure` a step, coarse → fine, as an encoder returns them; `structure[0].parents` are z's cells.
            guide: one mask or tensor of logits (p, 8) a step, children in the order x + 2y + 4z; a child exists where it is
                true or above 0. A Tensor has the rows of the level's grid; a SparseTensor is aligned by its cells and may
                have more. The logits of a shape decoder guide a material decoder.
            tiling: decode the later levels piece by piece; see `Tiling`.
            progress: show a bar of levels, or of tiles.
        Returns:
            DecoderOutput. Differentiable in z and parameters; which children exist has no gradient, logits have.
        Raises:
            RangeError: neither structure nor guide for a decoder that does not predict; both; structures or guides of other
            cells; logits that are NaN.   ShapeError: not one entry a step.   DtypeError, DeviceError: features that do not fit.
        Warns:
            EmptyResultWarning: a sample that had cells keeps none; it is empty in the result, others are as without it.
        """
        where = "SCDecoder"
        require_input(where, z, self.config.latent_channels, self.from_latent.weight)
        given = self._given(z, structure, guide)
        h = self._enter(z)
        stop = len(self.blocks) if tiling is None else tiling.first_level(len(self.blocks))
        structures: list[Structure] = []
        logits: list[SparseTensor] = []
        for level in bar(range(stop), "levels", stop, progress):
            h = self.run_blocks(level, h)
            if level == self.num_steps:
                continue  # the last one, without a step after it: the bar ends full
            h, found, scores = self.run_step(level, h, None if given is None else given[level])
            structures.append(found)
            if given is None:
                warn_of_emptied(where, found, level, partly_only=True)
            if scores is not None:
                logits.append(scores)
        if tiling is not None:
            return decode_tiles(self, h, given, tiling, DecoderOutput(h, tuple(logits), tuple(structures)), progress)
        return DecoderOutput(self.run_head(h), tuple(logits), tuple(structures))

    def run_blocks(self, level: int, h: SparseTensor) -> SparseTensor:
        """The blocks that stay at a level."""
        for part in self._level(level)[: self.config.num_blocks[level]]:
            h = part(h)
        return h

    def run_step(
        self, level: int, h: SparseTensor, structure: Structure | None = None
    ) -> tuple[SparseTensor, Structure, SparseTensor | None]:
        """The resampling block after a level: features, structure, and logits if it predicts. Without `structure` it must predict."""
        step = self._level(level)[-1]
        if structure is not None and not isinstance(step, EarlyPruningUpsampler):
            return step(h, structure), structure, None
        if structure is None:
            structure = Structure.of_mask(h.grid, self.predict(level, h)[1])
        out = step(h, structure=structure)
        return out.x, out.structure, h.with_feats(out.logits)

    def predict(self, level: int, h: SparseTensor) -> tuple[Tensor, Tensor]:
        """Logits and mask of the step after a level, before any feature of its children is made. `h` has left the blocks."""
        step = cast(EarlyPruningUpsampler, self._level(level)[-1])
        logits = step.predict(h.feats)
        require_logits("SCDecoder", f"the logits of step {level}", logits)
        return logits, logits > step.threshold

    def run_head(self, h: SparseTensor) -> SparseTensor:
        """Tail norm and last layer, in that layer's dtype."""
        h = self.tail_norm(h.to(self.output_layer.weight.dtype))
        return h.with_feats(self.output_layer(h.feats))

    def upsample(self, z: SparseTensor, steps: int) -> VoxelGrid:
        """The cells that enter level `steps` in a predicted decode, with no work that they do not need.

        Args:
            z: the latent, as in `forward`.
            steps: 0 gives z's own grid, `num_steps` the finest level.
        Raises:
            RangeError: more steps than the decoder has, one that does not predict, NaN.
        Source: the original's `upsample`, which the cascade uses for the cells of its second pass.
        """
        where = "SCDecoder.upsample"
        require_input(where, z, self.config.latent_channels, self.from_latent.weight)
        require_int(where, "steps", steps, 0, self.num_steps)
        self._given(z, None, None)
        if steps == 0:
            return z.grid
        h = self._enter(z)
        for level in range(steps - 1):
            h, *_ = self.run_step(level, self.run_blocks(level, h))
        h = self.run_blocks(steps - 1, h)
        return Structure.of_mask(h.grid, self.predict(steps - 1, h)[1]).children

    def _level(self, level: int) -> nn.ModuleList:
        return cast(nn.ModuleList, self.blocks[level])

    def _enter(self, z: SparseTensor) -> SparseTensor:
        return z.with_feats(self.from_latent(z.feats)).to(torso_dtype(self.blocks, z.dtype))

    def _given(
        self, z: SparseTensor, structure: Sequence[Structure] | None, guide: Sequence[Tensor | SparseTensor] | None
    ) -> tuple[Structure, ...] | None:
        where = "SCDecoder"
        if structure is not None and guide is not None:
            raise RangeError(f"{where}: structure and guide both say which cells exist; give one of them.")
        if structure is not None:
            require_structures(where, z, structure, self.num_steps)
            given = tuple(structure)
        elif guide is not None:
            given = follow_guide(where, z, guide, self.num_steps)
        else:
            given = None
        for level, found in enumerate(given or ()):
            warn_of_emptied(where, found, level, partly_only=guide is not None)
        if given is None and self.num_steps and not self.config.pred_subdiv:
            raise RangeError(
                f"{where}: this decoder does not predict which cells exist (pred_subdiv is false). Pass structure=, from an encoder, "
                f"or guide=, the logits of a decoder that does."
            )
        return given
