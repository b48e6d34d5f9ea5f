"""From what a caller has, a picture or tokens, to the condition tokens of each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from voxgen.attention import Context
from voxgen.core.errors import RangeError, ShapeError
from voxgen.models.image_condition import ImageConditioner, Picture, System, cut_out, prepare_image
from voxgen.models.image_condition.background import RemoveBackground

from .stages import repeated

__all__ = ["Conditioners", "stage_conditions"]

K = TypeVar("K", str, int)
Conditioners: TypeAlias = ImageConditioner | Mapping[Any, ImageConditioner] | None
"""Of all stages, or of each by its name; None where a pipeline is given tokens only."""


@torch.no_grad()
def stage_conditions(
    where: str,
    stages: Sequence[K],
    image: Picture | Sequence[Picture] | None,
    conditions: Context | Mapping[K, Context] | None,
    encoder: Conditioners,
    system: System,
    *,
    samples: int = 1,
    sizes: Mapping[K, int] | None = None,
    remove_background: RemoveBackground | None = None,
    assume_foreground: bool = False,
) -> dict[K, Context]:
    """Tokens (b · samples, m, c) of each stage.

    Args:
        where: the caller, for messages.
        stages: their names.
        image: a picture, or a list of b of them, which are cut out and cropped as the system does (`prepare_image`).
        conditions: the tokens in place of a picture: of b objects for all stages, or by stage.
        encoder: of pictures.
        system: whose preparation of pictures.
        samples: of each picture; those of one stand side by side.
        sizes: of pictures by stage, for encoders that take several; None: the encoder's.
        remove_background, assume_foreground: see `prepare_image`.
    Raises:
        RangeError: a picture and tokens, or neither; no encoder, or no tokens, for a stage; no picture in a list.
        ShapeError: stages with tokens of different numbers of objects.   Others as `prepare_image`.
    """
    if (image is None) == (conditions is None):
        raise RangeError(f"{where}: give either a picture or conditions=, tokens of one; got {'neither' if image is None else 'both'}.")
    if conditions is not None:
        by_stage = conditions if isinstance(conditions, Mapping) else dict.fromkeys(stages, conditions)
        missing = [stage for stage in stages if stage not in by_stage]
        if missing:
            raise RangeError(f"{where}: conditions must have tokens for {missing[0]!r}; got those for {list(by_stage)}.")
        found = {stage: by_stage[stage] for stage in stages}
    else:
        found = _encoded(where, stages, image, encoder, system, sizes, remove_background, assume_foreground)
    counts = {stage: len(tokens) for stage, tokens in found.items()}
    if len(set(counts.values())) > 1:
        raise ShapeError(f"{where}: all stages must have the tokens of as many objects; got {counts}.")
    return {stage: repeated(where, tokens, samples) for stage, tokens in found.items()}


def _encoded(
    where: str,
    stages: Sequence[K],
    image: Any,
    encoder: Conditioners,
    system: System,
    sizes: Mapping[K, int] | None,
    remove_background: RemoveBackground | None,
    assume_foreground: bool,
) -> dict[K, Context]:
    if encoder is None:
        raise RangeError(f"{where}: the pipeline has no image_encoder; give it one, or pass conditions=, tokens of the picture.")
    by_stage = encoder if isinstance(encoder, Mapping) else dict.fromkeys(stages, encoder)
    missing = [stage for stage in stages if stage not in by_stage]
    if missing:
        raise RangeError(f"{where}: image_encoder must have one for {missing[0]!r}; got those for {list(by_stage)}.")
    pictures = list(image) if isinstance(image, (list, tuple)) else [image]
    if not pictures:
        raise RangeError(f"{where}: at least one picture is needed; got an empty list.")
    # once, whatever the number of sizes: networks that remove backgrounds are slow
    cut = [cut_out(p, system, remove_background=remove_background, assume_foreground=assume_foreground) for p in pictures]
    prepared: dict[int, Tensor] = {}
    made: dict[tuple[int, int], Tensor] = {}
    found: dict[K, Context] = {}
    for stage in stages:
        own = by_stage[stage]
        size = own.image_size if sizes is None else sizes[stage]
        if size not in prepared:
            prepared[size] = torch.stack([prepare_image(p, system, size=size, assume_foreground=True)[:3] for p in cut])
        if (id(own), size) not in made:
            made[id(own), size] = own.tokens(_beside(prepared[size], own))
        found[stage] = made[id(own), size]
    return found


def _beside(images: Tensor, encoder: ImageConditioner) -> Tensor:
    """On the device of an encoder that is a module; others find their own."""
    weight = next(encoder.parameters(), None) if isinstance(encoder, nn.Module) else None
    return images if weight is None else images.to(weight.device)
