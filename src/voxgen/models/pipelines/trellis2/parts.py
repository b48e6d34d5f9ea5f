"""Whether the networks of a pipeline fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from voxgen.core.errors import RangeError, ShapeError
from voxgen.models.structure import StructureVAE

from .conditions import STAGES

if TYPE_CHECKING:
    from .networks import Trellis2Stages

__all__ = ["require_parts"]


def require_parts(where: str, p: Trellis2Stages) -> None:
    """Raise RangeError for what is missing, ShapeError for widths that do not fit."""
    if not p.shape_flows:
        raise RangeError(f"{where}: shape_flows must have at least one flow.")
    if p.material_flows and p.material_decoder is None:
        raise RangeError(f"{where}: material_flows need a material_decoder.")
    needed = STAGES if p.material_flows else STAGES[:2]
    missing = [stage for stage in needed if stage not in p.samplers]
    if missing:
        raise RangeError(f"{where}: samplers must have one for {missing[0]!r}; got those for {list(p.samplers)}.")
    if p.low_memory and p.device is None:
        raise RangeError(f"{where}: low_memory needs a device, to which networks are moved while they are used.")
    structure = p.structure_decoder.decoder if isinstance(p.structure_decoder, StructureVAE) else p.structure_decoder
    widths = [("structure_decoder", structure.latent_channels, "structure_flow", p.structure_flow.in_channels)]
    if p.structure_normalization is not None:
        widths.append(("structure_normalization", p.structure_normalization.channels, "structure_flow", p.structure_flow.in_channels))
    for name, flows, normalization, decoder in (
        ("shape", p.shape_flows, p.shape_normalization, p.shape_decoder),
        ("material", p.material_flows, p.material_normalization, p.material_decoder),
    ):
        for resolution, flow in flows.items():
            label = f"{name}_flows[{resolution}]"
            widths.append((f"{name}_normalization", normalization.channels, label, flow.out_channels))
            if decoder is not None:
                widths.append((f"{name}_decoder", decoder.config.latent_channels, label, flow.out_channels))
    if p.shape_encoder is not None:
        widths.append(("shape_encoder", p.shape_encoder.config.latent_channels, "shape_normalization", p.shape_normalization.channels))
    for name, width, other, made in widths:
        if width != made:
            raise ShapeError(f"{where}: {name} must have the {made} channels of {other}; it has {width}.")
    for resolution, flow in p.material_flows.items():
        joined = flow.out_channels + p.shape_normalization.channels
        if flow.in_channels != joined:
            raise ShapeError(
                f"{where}: material_flows[{resolution}] must read its own {flow.out_channels} channels and the shape's "
                f"{p.shape_normalization.channels}; it reads {flow.in_channels}."
            )
    _require_conditions(where, p)


def _require_conditions(where: str, p: Trellis2Stages) -> None:
    """The tokens of the encoders are as wide as the flows want them."""
    flows = {"structure": [p.structure_flow], "shape": list(p.shape_flows.values()), "material": list(p.material_flows.values())}
    for stage, users in flows.items():
        encoder = p.image_encoder.get(stage) if isinstance(p.image_encoder, Mapping) else p.image_encoder
        for flow in users:
            if encoder is not None and flow.cond_channels != encoder.channels:
                raise ShapeError(
                    f"{where}: the image encoder of {stage!r} makes tokens of {encoder.channels} channels; its flow reads "
                    f"{flow.cond_channels}."
                )
