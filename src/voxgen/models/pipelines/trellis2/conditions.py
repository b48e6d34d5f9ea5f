"""Condition tokens of the stages of TRELLIS.2, each at the resolution of its flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from voxgen.attention import Context
from voxgen.core.errors import RangeError, ShapeError
from voxgen.models.image_condition import ImageConditioner, Picture
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.pipelines.conditions import Conditioners, stage_conditions
from voxgen.models.pipelines.stages import repeated

__all__ = ["STAGES", "Conditions", "Use", "tokens_of_uses"]

STAGES = ("structure", "shape", "material")
"""By these names the pipeline knows samplers, image encoders, tokens and callbacks."""

Use: TypeAlias = tuple[str, int]
"""A stage, and the output resolution of the flow that it runs."""
Conditions: TypeAlias = Context | Mapping[Any, Any]
"""Tokens of b objects for all stages; or by the resolution of the flows, {512: …, 1024: …}; or by stage, {"structure": …}, each for all
resolutions or again by resolution."""


def tokens_of_uses(
    where: str,
    uses: Sequence[Use],
    image: Picture | Sequence[Picture] | None,
    conditions: Conditions | None,
    encoder: Conditioners,
    sizes: Mapping[int, int] | None,
    *,
    samples: int,
    remove_background: RemoveBackground | None,
    assume_foreground: bool,
) -> dict[Use, Context]:
    """Tokens (b · samples, m, c) of each use, from pictures or from what the caller has.

    Raises: as `stage_conditions`.
    """
    if conditions is None or image is not None:
        names = {f"{stage}/{resolution}": (stage, resolution) for stage, resolution in uses}
        encoders = _by_name(where, names, encoder)
        found = stage_conditions(
            where,
            list(names),
            image,
            conditions,
            encoders,
            "trellis2",
            samples=samples,
            sizes=None if encoders is None else {name: _size(encoders[name], sizes, names[name][1]) for name in names},
            remove_background=remove_background,
            assume_foreground=assume_foreground,
        )
        return {names[name]: tokens for name, tokens in found.items()}
    given = {use: _given(where, conditions, use) for use in uses}
    counts = {len(tokens) for tokens in given.values()}
    if len(counts) > 1:
        raise ShapeError(f"{where}: all stages must have the tokens of as many objects; got {sorted(counts)}.")
    return {use: repeated(where, tokens, samples) for use, tokens in given.items()}


def _by_name(where: str, names: Mapping[str, Use], encoder: Conditioners) -> dict[str, ImageConditioner] | None:
    if encoder is None:
        return None
    if not isinstance(encoder, Mapping):
        return dict.fromkeys(names, encoder)
    missing = [stage for stage, _ in names.values() if stage not in encoder]
    if missing:
        raise RangeError(f"{where}: image_encoder must have one for {missing[0]!r}; got those for {list(encoder)}.")
    return {name: encoder[stage] for name, (stage, _) in names.items()}


def _size(encoder: ImageConditioner, sizes: Mapping[int, int] | None, resolution: int) -> int:
    return encoder.image_size if sizes is None else sizes.get(resolution, encoder.image_size)


def _given(where: str, conditions: Any, use: Use) -> Context:
    stage, resolution = use
    found = conditions
    if isinstance(found, Mapping) and any(isinstance(key, str) for key in found):
        if stage not in found:
            raise RangeError(f"{where}: conditions must have tokens for {stage!r}; got those for {list(found)}.")
        found = found[stage]
    if isinstance(found, Mapping):
        if resolution not in found:
            raise RangeError(f"{where}: conditions must have tokens for {resolution}; got those for {sorted(found)}.")
        found = found[resolution]
    return found
