"""What the pipelines share: a structure and a latent made by a flow, conditions for several samples, what an empty structure means."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.attention import Context
from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.batching import counts_from_offsets
from voxgen.core.checks import require_int
from voxgen.core.errors import EmptyResultWarning, RangeError, ShapeError
from voxgen.core.frame import UpAxis
from voxgen.flow import Sampler, SamplerState, noise_like
from voxgen.flow.path import Velocity
from voxgen.flow.samplers import Callback
from voxgen.models.latent_flow import LatentFlow, PatchedLatentFlow
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.structure import StructureDecoder, StructureFlow, StructureVAE, occupied_cells
from voxgen.ops.resample import Structure

__all__ = ["Generators", "StageCallback", "on_device", "repeated", "sample_latent", "sample_structure", "unconditional", "warn_if_empty"]

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None
"""Of noise: torch's own, one for the whole batch, or one a sample, which then has the same noise alone and in any batch."""

StageCallback: TypeAlias = Callable[[str, SamplerState[Any]], None]
"""Called after each step of a sampler with the name of its stage and the state."""


@torch.no_grad()
def sample_structure(
    where: str,
    flow: StructureFlow,
    decoder: StructureDecoder | StructureVAE,
    sampler: Sampler,
    condition: Context,
    *,
    side: int,
    noise: Float[Tensor, "b c x y z"] | None = None,
    normalization: LatentNormalization | None = None,
    threshold: float = 0.5,
    up: UpAxis = "y",
    generator: Generators = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> VoxelGrid:
    """Occupied cells of the unit cube: noise → latent → occupancy → the cells of a coarser grid that hold an occupied one.

    Args:
        where: the caller, for messages.
        flow: makes latents.
        decoder: latent → logits of occupancy; of a `StructureVAE` its `decode`, which knows the latents' scale.
        sampler: walks from noise to latent.
        condition: tokens of b objects, on any device.
        side: cells along a side of the result, which divides that of the decoded occupancy.
        noise: the start; None draws it.
        normalization: of what the flow makes; None leaves it as it is.
        threshold: probability from which a cell is occupied.
        up: of the result's frame.
        generator, progress: of the noise, and whether to show a bar.
        callback: see `Sampler.__call__`.
    Raises:
        RangeError: a side that does not divide.   ShapeError: noise of another number of objects, or of another shape.
    """
    side = require_int(where, "side", side, 1)
    network = decoder.decoder if isinstance(decoder, StructureVAE) else decoder
    cells = flow.resolution * network.factor
    factor, rest = divmod(cells, side)
    if rest or not factor:
        raise RangeError(f"{where}: side must divide the {cells} cells of the decoded occupancy; got {side}.")
    start, samples, device = noise, len(condition), flow.input_layer.weight.device
    condition = on_device(condition, device)
    if start is None:
        like = torch.empty(samples, flow.in_channels, *[flow.resolution] * 3, device=device)
        start = noise_like(like, generator)
    elif len(start) != samples:
        raise ShapeError(f"{where}: noise must have one latent for each of the condition's {samples} objects; got {len(start)}.")
    latent = sampler(flow, start, condition, unconditional(condition), progress=progress, callback=callback)
    if normalization is not None:
        latent = normalization.denormalize(latent)
    decode = decoder.decode if isinstance(decoder, StructureVAE) else decoder
    occupied = occupied_cells(decode(latent), threshold)
    grid = Structure.of_children(occupied, factor).parents if factor > 1 else occupied
    return VoxelGrid.from_sorted(grid.coords, resolution=side, batch_size=grid.batch_size, frame=Frame.unit(side, up))


@torch.no_grad()
def sample_latent(
    where: str,
    flow: LatentFlow | PatchedLatentFlow,
    sampler: Sampler,
    grid: VoxelGrid,
    condition: Context,
    normalization: LatentNormalization | None,
    *,
    velocity: Velocity | None = None,
    noise: SparseTensor | None = None,
    generator: Generators = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> SparseTensor:
    """A latent on given cells, as its decoder reads it.

    Args:
        where: the caller, for messages.
        flow: makes normalised latents.
        sampler: walks from noise to latent.
        grid: the cells, of b samples.
        condition: tokens of b objects, on any device.
        normalization: of what the flow makes; None leaves it as it is.
        velocity: what the sampler calls in place of the flow, for further inputs.
        noise: the start, on the cells of the grid; None draws it.
        generator, progress: of the noise, and whether to show a bar.
        callback: see `Sampler.__call__`.
    Raises:
        ShapeError: noise on other cells or of another width; a condition of another number of objects.
    """
    width = flow.out_channels
    if len(condition) != grid.batch_size:
        raise ShapeError(f"{where}: condition must have the tokens of the grid's {grid.batch_size} samples; got those of {len(condition)}.")
    if noise is None:
        noise = noise_like(SparseTensor(grid, torch.empty(len(grid), width, device=grid.device)), generator)
    elif noise.channels != width or not noise.grid.same_cells(grid):
        raise ShapeError(f"{where}: noise must have {width} channels on the cells of {grid!r}; got {noise!r}.")
    condition = on_device(condition, flow.input_layer.weight.device)
    latent = sampler(velocity or flow, noise, condition, unconditional(condition), progress=progress, callback=callback)
    return latent if normalization is None else normalization.denormalize(latent)


def repeated(where: str, condition: Context, samples: int) -> Context:
    """The tokens of each object `samples` times in a row: what as many samples of each picture are conditioned on.

    Raises:
        RangeError: fewer than one sample.
    """
    samples = require_int(where, "samples", samples, 1)
    if isinstance(condition, Tensor):
        return condition.repeat_interleave(samples, 0)
    return [tokens for tokens in condition for _ in range(samples)]


def on_device(condition: Context, device: torch.device) -> Context:
    """The tokens on the device of the network that reads them; image encoders may be elsewhere."""
    return condition.to(device) if isinstance(condition, Tensor) else [tokens.to(device) for tokens in condition]


def unconditional(condition: Context) -> Context:
    """The tokens that stand for no picture: zeros, as many."""
    return torch.zeros_like(condition) if isinstance(condition, Tensor) else [torch.zeros_like(c) for c in condition]


def warn_if_empty(where: str, structure: VoxelGrid, *, stacklevel: int = 3, hint: str = "Try another seed.") -> None:
    """Warn of samples without a cell.

    Args:
        where, structure: the caller, and the cells of all samples.
        stacklevel: whose line the warning names; 3 is that of the caller's caller.
        hint: what to do.
    Warns:
        EmptyResultWarning: says whether it is all of them, or which.
    """
    empty = (counts_from_offsets(structure.offsets) == 0).nonzero().flatten().tolist()
    if not empty:
        return
    what = "the asset is empty" if len(empty) == structure.batch_size else f"samples {', '.join(map(str, empty))} are empty"
    warnings.warn(f"{where}: no cell of the structure is occupied; {what}. {hint}", EmptyResultWarning, stacklevel=stacklevel)
