"""SparseFlexDecoder: from a latent to SparseFlex features on a grid four times as fine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int
from voxgen.layers import SelfPruningUpsampler, set_torso_dtype
from voxgen.layers._checks import require_width
from voxgen.layers._self_pruning import keep_children
from voxgen.models._tiles import Step
from voxgen.models._trunk import TORSO_DTYPES, window_blocks
from voxgen.models.sc_vae._blocks import initialize
from voxgen.models.sc_vae._inputs import require_logits, require_structures
from voxgen.models.sc_vae._outputs import bar, warn_of_emptied
from voxgen.ops.resample import Structure

from ._boxes import emit_boxes
from ._tiles import decode_tiles
from .config import STEPS, FlexDecoderConfig
from .records import DecodedFlex, EmittedFlex

__all__ = ["SparseFlexDecoder"]


class SparseFlexDecoder(nn.Module):
    """The decoder of TripoSF's VAE, of any width and depth: latent → 53 features of SparseFlex on a grid four times as fine.

    A linear layer, the position code, transformer blocks with shifted windows, two `SelfPruningUpsampler`s, a linear layer.

    Args:
        config: see `FlexDecoderConfig`.
    Parameters: input_layer (latent → C), blocks.{i} as in `SparseFlexEncoder`, upsample.{0,1} (C → C/4 → C/8), see
        `SelfPruningUpsampler`; out_layer (C/8 → 53). Linear layers start Xavier-uniform with zero biases; out_layer, the second
        convolutions and the last layers of the pruning heads at zero: an untrained decoder keeps every child and gives 0, which
        SparseFlex reads as a field without a surface. `voxgen.losses` has what starts training (`tsdf_l1`).
    Numerics: in the dtype of the weights (`config.torso_dtype`), norms and the sum with the position code in float32; out_layer has
        float32 weights whatever the torso's, and gives float32.
    Batch: samples do not meet; empty samples and empty grids are legal.
    Source: TripoSF (arXiv 2503.21732), VAE decoder. Differences: structures are arguments and results; per-voxel norms by default;
        tiles give every cell once (`emit` repeats what the release does); nothing fails where all children are dropped.
    Example:
        >>> config = FlexDecoderConfig(model_channels=64, num_blocks=1, num_heads=2, latent_channels=4)
        >>> out = SparseFlexDecoder(config)(z, prune=False)               # z: SparseTensor of 4 channels
        >>> len(out.features) == 64 * len(z), out.features.channels
        (True, 53)
    """

    def __init__(self, config: FlexDecoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.model_channels, *config.finer_channels)
        self.input_layer = nn.Linear(config.latent_channels, config.model_channels)
        self.blocks = window_blocks(config)
        self.upsample = nn.ModuleList(
            SelfPruningUpsampler(a, b, norm=config.norm, num_groups=config.num_groups, checkpoint=config.use_checkpoint)
            for a, b in pairwise(widths)
        )
        self.out_layer = nn.Linear(widths[-1], config.out_channels)
        initialize(self)
        nn.init.zeros_(self.out_layer.weight)
        for level in range(STEPS):
            step = self._step(level)
            nn.init.zeros_(cast(nn.Linear, step.predict[-1]).weight)
            cast(nn.Linear, step.upsample.skip_connection).reset_parameters()  # a convolution in the original, and drawn as one
        for part in (self.input_layer, self.blocks, self.upsample):
            set_torso_dtype(part, TORSO_DTYPES[config.torso_dtype])

    def description(self) -> dict[str, Any]:
        """The configuration in plain values."""
        return self.config.to_json()

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> SparseFlexDecoder:
        """The inverse of `description`, with fresh weights."""
        return cls(FlexDecoderConfig(**values))

    def forward(
        self,
        z: SparseTensor,
        *,
        structure: Sequence[Structure] | None = None,
        prune: bool | None = None,
        factor: float = 1.0,
        tile: int | None = None,
        progress: bool = False,
    ) -> DecodedFlex:
        """Latent (n, latent_channels) → features (m, 53) on the finest level.

        Args:
            z: the latent as an encoder makes it, or any part of one: cells left out are as if they had never been.
            structure: the children that stay, two `Structure`s, coarse → fine; structure[0].parents are z's cells.
            prune: whether logits decide where no structure is given; False keeps all 64 cells of each of the latent, as in
                training; None takes the configuration's.
            factor: of the position code; see `SparseFlexEncoder.forward`.
            tile: side of a cube in cells of the latent. The transformer goes over the whole, the steps to finer levels cube by
                cube, in memory that grows with a cube. With norm "per_voxel" the result is that of the whole decode up to the
                rounding of matrix products of other sizes: each cube has a halo as wide as its reach. With "group" norms
                statistics are of each cube with a halo of 4 latents, as in the release. The result has no logits, and no
                structures but those given.
            progress: show a bar of steps, or of tiles.
        Returns:
            DecodedFlex. Differentiable in z and parameters; which children there are has no gradient, logits have.
        Raises:
            ShapeError, DtypeError: features that do not fit, not two structures.   RangeError: structures of other cells, NaN in
            logits that decide, a factor that is not positive, a tile below 1.
            CapacityError: more children than memory holds.
        Warns:
            EmptyResultWarning: a sample that had cells keeps none.
        """
        where = "SparseFlexDecoder"
        if tile is not None:
            require_int(where, "tile", tile, 1)
        h = self._trunk(where, z, structure, factor)
        given = None if structure is None else tuple(structure)
        chosen = self.config.prune if prune is None else prune
        if tile is not None:

            def step(level: int, part: SparseTensor, local: Structure | None, quiet: bool) -> Step | None:
                return self.run_step(level, part, local, prune=chosen, quiet=quiet)

            return decode_tiles(step, self.run_head, h, given, tile, self.config.norm, progress)
        structures: list[Structure] = []
        logits: list[SparseTensor] = []
        for level in bar(range(STEPS), "levels", STEPS, progress):
            done = cast(Step, self.run_step(level, h, None if given is None else given[level], prune=chosen))
            h = done.x
            structures.append(done.structure)
            logits.append(cast(SparseTensor, done.logits))
        return DecodedFlex(h.with_feats(self.run_head(h.feats)), tuple(structures), tuple(logits))

    def emit(self, z: SparseTensor, *, prune: bool | None = None, boxes: int | None = None, progress: bool = False) -> EmittedFlex:
        """The decode of TripoSF's release, box by box, with its repeated cells (compat).

        The latent's grid is cut into boxes³, each padded by 4 latents and upsampled alone (its group norms see nothing else);
        then a box keeps what lies in it and three cells beyond its upper bounds, which its neighbours emit too. Use `forward` with a
        `tile` for a decode that gives each cell once.

        Args:
            z, prune, progress: as in `forward`.
            boxes: along each axis; None takes 4, or 8 from 150,000 latents on.
        Returns:
            EmittedFlex.
        Raises:
            RangeError: sides of boxes that are no multiple of 4 latents, and as `forward`.
        Differences from the original: several samples go together; boxes of which nothing stays are left out where it fails.
        """
        where = "SparseFlexDecoder.emit"
        h = self._trunk(where, z, None, 1.0)
        chosen = self.config.prune if prune is None else prune
        return emit_boxes(
            where, lambda level, part: self.run_step(level, part, prune=chosen, quiet=True), self.run_head, h, boxes, progress
        )

    def run_step(
        self, level: int, h: SparseTensor, structure: Structure | None = None, *, prune: bool = False, quiet: bool = False
    ) -> Step | None:
        """The step from a level to the next finer one. With `quiet`, None where nothing stays, and no warning is given."""
        step = self._step(level)
        every = step(h, prune=False)
        kept = every.structure if structure is None else structure
        if structure is None and prune:
            require_logits("SparseFlexDecoder", f"the logits of step {level}", every.logits)
            mask = every.logits >= step.threshold
            if quiet and not bool(mask.any()):
                return None
            kept = Structure.of_mask(h.grid, mask)
        if not quiet:
            warn_of_emptied("SparseFlexDecoder", kept, level, partly_only=True)
        return Step(keep_children(every, kept).x, kept, h.with_feats(every.logits))

    def run_head(self, feats: torch.Tensor) -> torch.Tensor:
        """The last layer, in its own dtype."""
        return self.out_layer(feats.to(self.out_layer.weight.dtype))

    def _trunk(self, where: str, z: SparseTensor, structure: Sequence[Structure] | None, factor: float) -> SparseTensor:
        require_width(where, z, self.config.latent_channels)
        if structure is not None:
            require_structures(where, z, structure, STEPS)
        return self.blocks(z.with_feats(self.input_layer(z.feats.to(self.input_layer.weight.dtype))), factor=factor)

    def _step(self, level: int) -> SelfPruningUpsampler:
        return cast(SelfPruningUpsampler, self.upsample[level])
