"""Samplers and normalisations as the plain values that pipeline.json has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, FileFormatError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, HeunSampler, MultistepSampler, RectifiedFlow, Sampler
from voxgen.models.sc_vae import LatentNormalization

__all__ = ["normalization_from_json", "normalization_to_json", "sampler_from_json", "sampler_to_json"]

_SAMPLERS = {"euler": EulerSampler, "heun": HeunSampler, "multistep": MultistepSampler}


def sampler_to_json(sampler: Sampler) -> dict[str, Any]:
    """A sampler in plain values.

    Raises:
        DtypeError: a sampler, path or guidance of another class than voxgen.flow's.
    """
    kind = next((word for word, cls in _SAMPLERS.items() if type(sampler) is cls), None)
    guidance = sampler.guidance
    if kind is None or type(sampler.flow) is not RectifiedFlow or (guidance is not None and type(guidance) is not ClassifierFreeGuidance):
        raise DtypeError(f"sampler_to_json: sampler must be one of voxgen.flow's, with its path and guidance; got {describe(sampler)}.")
    own = {f.name: getattr(sampler, f.name) for f in dataclasses.fields(sampler)}
    times = None if sampler.times is None else [float(t) for t in sampler.times]
    flow = dataclasses.asdict(sampler.flow)
    return {**own, "kind": kind, "times": times, "flow": flow, "guidance": None if guidance is None else dataclasses.asdict(guidance)}


def sampler_from_json(values: Mapping[str, Any]) -> Sampler:
    """The inverse of `sampler_to_json`.

    Raises:
        FileFormatError: values that make no sampler.
    """
    try:
        own = dict(values)
        cls = _SAMPLERS[own.pop("kind")]
        own["flow"] = RectifiedFlow(**own["flow"])
        own["times"] = None if own["times"] is None else tuple(own["times"])
        if own["guidance"] is not None:
            own["guidance"] = ClassifierFreeGuidance(**{**own["guidance"], "interval": tuple(own["guidance"]["interval"])})
        return cls(**own)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"sampler_from_json: {describe(values)} makes no sampler: {error}.") from error


def normalization_to_json(normalization: LatentNormalization | None) -> dict[str, Any] | None:
    """Mean and standard deviation as lists."""
    return None if normalization is None else {"mean": list(normalization.mean), "std": list(normalization.std)}


def normalization_from_json(values: Mapping[str, Any] | None) -> LatentNormalization | None:
    """The inverse of `normalization_to_json`; also what the released pipelines have.

    Raises:
        FileFormatError: values that make no normalisation.
    """
    if values is None:
        return None
    try:
        return LatentNormalization(tuple(values["mean"]), tuple(values["std"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"normalization_from_json: {describe(values)} makes no normalisation: {error}.") from error
