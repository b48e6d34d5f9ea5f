"""Condition tokens of Direct3D-S2's stages: of all patches, or of those of the object with their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from voxgen.attention import Context
from voxgen.core.checks import require_int
from voxgen.core.errors import RangeError, ShapeError
from voxgen.models.direct3d_s2 import SparseCondition, foreground_patches, sparse_condition
from voxgen.models.image_condition import Picture, System, prepare_image
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.image_condition.prepare import cut_out
from voxgen.models.pipelines.conditions import Conditioners, stage_conditions
from voxgen.models.pipelines.stages import repeated, unconditional
from voxgen.models.pipelines.trellis2.placement import placed

__all__ = ["AnyCondition", "conditions_by_stage", "count", "nothing", "on_device", "repeated_condition"]

AnyCondition: TypeAlias = Context | SparseCondition
"""Of b objects: tokens (b, m, c), a list of (m, c), or a `SparseCondition` for flows with sparse conditions."""


def count(condition: AnyCondition) -> int:
    """Objects that a condition is of."""
    return len(condition.tokens if isinstance(condition, SparseCondition) else condition)


def nothing(condition: AnyCondition) -> AnyCondition:
    """What stands for no picture."""
    return condition.unconditional() if isinstance(condition, SparseCondition) else unconditional(condition)


def on_device(condition: AnyCondition, device: torch.device) -> AnyCondition:
    """On the device of the network that reads it."""
    if isinstance(condition, SparseCondition):
        return SparseCondition(*([part.to(device) for part in parts] for parts in condition))
    return condition.to(device) if isinstance(condition, Tensor) else [part.to(device) for part in condition]


def repeated_condition(where: str, condition: AnyCondition, samples: int) -> AnyCondition:
    """That of each object as many times in a row.

    Raises:
        RangeError: fewer than one sample.
    """
    if not isinstance(condition, SparseCondition):
        return repeated(where, condition, samples)
    times = require_int(where, "samples", samples, 1)
    tokens, positions = ([part for part in parts for _ in range(times)] for parts in condition)
    return SparseCondition(tokens, positions)


@torch.no_grad()
def conditions_by_stage(
    where: str,
    sparse: Mapping[str, bool],
    image: Picture | Sequence[Picture] | None,
    conditions: AnyCondition | Mapping[str, AnyCondition] | None,
    encoder: Conditioners,
    system: System,
    *,
    remove_background: RemoveBackground | None = None,
    assume_foreground: bool = False,
    place: torch.device | None = None,
) -> dict[str, AnyCondition]:
    """The condition of each stage, of b objects.

    Args:
        where: the caller, for messages.
        sparse: for each stage, whether its flow takes a `SparseCondition`.
        image, encoder, system, remove_background, assume_foreground: as `stage_conditions`. Encoders of sparse stages say the side of
            a `patch` and the number of `special` tokens.
        place: where encoders go while they are used; None leaves them where they are.
        conditions: in place of a picture, of all stages or by stage.
    Raises: as `stage_conditions`.
    """
    if conditions is not None and image is None:
        by_stage = conditions if isinstance(conditions, Mapping) else dict.fromkeys(sparse, conditions)
        missing = [stage for stage in sparse if stage not in by_stage]
        if missing:
            raise RangeError(f"{where}: conditions must have tokens for {missing[0]!r}; got those for {list(by_stage)}.")
        found = {stage: by_stage[stage] for stage in sparse}
        counts = {stage: count(condition) for stage, condition in found.items()}
        if len(set(counts.values())) > 1:
            raise ShapeError(f"{where}: all stages must have the tokens of as many objects; got {counts}.")
        return found
    pictures: Any = image
    if image is not None and conditions is None:  # cut out once, however many stages read it
        listed = list(image) if isinstance(image, (list, tuple)) else [image]
        pictures = [cut_out(p, system, remove_background=remove_background, assume_foreground=assume_foreground) for p in listed]
    encoders = encoder.values() if isinstance(encoder, Mapping) else [encoder]
    with placed(place, *encoders):
        # both, or neither, raise there
        tokens: dict[str, Any] = stage_conditions(
            where, list(sparse), pictures, cast(Any, conditions), encoder, system, assume_foreground=True
        )
    for stage, wanted in sparse.items():
        if wanted:
            own: Any = encoder[stage] if isinstance(encoder, Mapping) else encoder
            masks = torch.stack([prepare_image(p, system, size=own.image_size, assume_foreground=True)[3] for p in pictures])
            patches = foreground_patches(masks.to(tokens[stage].device), patch=own.patch)
            tokens[stage] = sparse_condition(tokens[stage], patches, special=own.special)
    return tokens
