"""SparseSDFDecoder: from a latent to distances on a grid eight times as fine."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int
from voxgen.layers import EarlyPruningUpsampler, set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.models._tiles import Step
from voxgen.models._trunk import TORSO_DTYPES, window_blocks
from voxgen.models.sc_vae._blocks import initialize
from voxgen.models.sc_vae._inputs import require_logits, require_structures
from voxgen.models.sc_vae._outputs import bar, warn_of_emptied
from voxgen.ops.resample import Structure

from ._tiles import decode_tiles
from .blocks import SDFUpBlock
from .config import STEPS, SDFDecoderConfig
from .records import DecodedSDF

__all__ = ["SparseSDFDecoder"]


class SparseSDFDecoder(nn.Module):
    """The decoder of Direct3D-S2's SS-VAE, of any width and depth, with early pruning as an option.

    A linear layer, the position code, transformer blocks with shifted windows, three steps to a finer level, a linear layer, tanh.
    A step makes the children that it is given (`structure`), those that it predicts (`early_pruning`), or, as the original,
    all eight of every cell.

    Args:
        config: see `SDFDecoderConfig`.
    Parameters: input_layer (latent → C), blocks.{i} as in `SparseSDFEncoder`, upsample.{0,1,2}: `SDFUpBlock`, or with early_pruning
        `EarlyPruningUpsampler` (predict, upsample.*); out_layer (C/16 → out). Linear layers start Xavier-uniform with zero biases,
        out_layer at zero, so that an untrained decoder gives 0 everywhere.
    Numerics: as `SparseSDFEncoder`.
    Batch: samples do not meet; empty samples and empty grids are legal.
    Memory: without structure or early pruning 512 rows a cell of the latent; see `tile`.
    Source: Direct3D-S2 (arXiv 2505.17412), SS-VAE decoder. Differences: structures are arguments and results; `early_pruning`; a
        tiled decode gives every cell once, where the original repeats those between two chunks (`decoded_repeats` counts them).
    Example:
        >>> decoder = SparseSDFDecoder(SDFDecoderConfig(model_channels=64, num_blocks=1, num_heads=2, latent_channels=4))
        >>> out = decoder(SparseTensor(latent_grid, torch.rand(len(latent_grid), 4)))
        >>> len(out.values) == 512 * len(latent_grid)
        True
    """

    def __init__(self, config: SDFDecoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.model_channels, *reversed(config.finer_channels))
        self.input_layer = nn.Linear(config.latent_channels, config.model_channels)
        self.blocks = window_blocks(config)
        self.upsample = nn.ModuleList()
        for a, b in pairwise(widths):
            step = SDFUpBlock(a, b)
            self.upsample.append(EarlyPruningUpsampler(a, b, step) if config.early_pruning else step)
        self.out_layer = nn.Linear(widths[-1], config.out_channels)
        initialize(self)
        nn.init.zeros_(self.out_layer.weight)
        set_torso_dtype(self, TORSO_DTYPES[config.torso_dtype])

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return self.config.to_json()

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SparseSDFDecoder:
        """The inverse of `description`, with fresh weights."""
        return cls(SDFDecoderConfig(**values))

    def with_early_pruning(self) -> SparseSDFDecoder:
        """A copy that predicts children: a way to fine-tune published weights.

        Its predictions begin at weight 0 and bias 1, so that it keeps every child and decodes as this one until they are trained.
        """
        pruned = copy.deepcopy(self)
        if self.config.early_pruning:
            return pruned
        pruned.config = dataclasses.replace(self.config, early_pruning=True)
        for i, step in enumerate(cast(list[SDFUpBlock], list(pruned.upsample))):
            wrapped = EarlyPruningUpsampler(step.conv1.in_channels, step.conv1.out_channels, step)
            nn.init.zeros_(wrapped.predict.weight)
            nn.init.ones_(wrapped.predict.bias)
            wrapped.predict.to(step.conv1.weight)
            pruned.upsample[i] = wrapped.train(self.training)
        return pruned

    def forward(
        self,
        z: SparseTensor,
        *,
        structure: Sequence[Structure] | None = None,
        factor: float = 1.0,
        tile: int | None = None,
        features: bool = False,
        progress: bool = False,
    ) -> DecodedSDF:
        """Latent (n, latent_channels) → values (m, out_channels) in [−1, 1] on the finest level.

        Args:
            z: the latent as an encoder makes it.
            structure: three `Structure`s, coarse → fine, as an encoder returns them; structure[0].parents are z's cells.
            factor: of the position code; see `SparseSDFEncoder.forward`.
            tile: side of a cube in cells of the latent. The transformer goes over the whole, the steps to finer levels cube by
                cube with a halo of 3 cells, as wide as their reach, so the result is that of the whole decode up to rounding,
                in memory that grows with a cube. The result then has no logits, and no structures but those given.
            features: return the features before the last layer too, which Direct3D-S2's refiner reads.
            progress: show a bar of steps, or of tiles.
        Returns:
            DecodedSDF. Differentiable in z and parameters; which children exist has no gradient, logits have.
        Raises:
            ShapeError, DtypeError: features that do not fit, not three structures.   RangeError: structures of other cells, NaN in a
            prediction, a factor that is not positive, a tile below 1.
            CapacityError: more children than memory holds.
        Warns:
            EmptyResultWarning: a sample that had cells keeps none.
        """
        where = "SparseSDFDecoder"
        require_width(where, z, self.config.latent_channels)
        if tile is not None:
            require_int(where, "tile", tile, 1)
        if structure is not None:
            require_structures(where, z, structure, STEPS)
        given = None if structure is None else tuple(structure)
        h = self.blocks(z.with_feats(self.input_layer(z.feats.to(self.input_layer.weight.dtype))), factor=factor)
        if tile is not None:
            width = self.config.finer_channels[0]
            return decode_tiles(self.run_step, self.run_head, h, given, tile, width, features, progress)
        structures: list[Structure] = []
        logits: list[SparseTensor] = []
        for level in bar(range(STEPS), "levels", STEPS, progress):
            step = cast(Step, self.run_step(level, h, None if given is None else given[level]))
            h = step.x
            structures.append(step.structure)
            logits += [] if step.logits is None else [step.logits]
        return DecodedSDF(h.with_feats(self.run_head(h.feats)), tuple(structures), tuple(logits), h if features else None)

    def run_step(self, level: int, h: SparseTensor, structure: Structure | None = None, quiet: bool = False) -> Step | None:
        """The step from a level to the next finer one. With `quiet` a prediction that keeps nothing is None, and no warning is given."""
        step, mask, logits = self.upsample[level], None, None
        if isinstance(step, EarlyPruningUpsampler):
            scores = step.predict(h.feats)
            require_logits("SparseSDFDecoder", f"the logits of step {level}", scores)
            logits, mask = h.with_feats(scores), scores > step.threshold
            step = step.upsample
            if quiet and structure is None and not bool(mask.any()):
                return None
        if structure is None:
            structure = Structure.of_mask(h.grid, mask)
        if not quiet:
            warn_of_emptied("SparseSDFDecoder", structure, level, partly_only=True)
        return Step(cast(SDFUpBlock, step)(h, structure), structure, logits)

    def run_head(self, feats: torch.Tensor) -> torch.Tensor:
        """Last layer and tanh."""
        return torch.tanh(self.out_layer(feats))
