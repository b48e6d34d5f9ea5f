"""Whether the networks of Direct3D-S2's stages fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from voxgen.core.checks import describe, require_choice
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.models.direct3d_s2 import SSDiT
from voxgen.models.image_condition import System
from voxgen.models.pipelines.conditions import Conditioners
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.sparse_sdf_vae import SparseSDFVAE
from voxgen.models.structure import StructureFlow, StructureVAE

__all__ = ["CELLS", "require_parts", "require_pictures"]

CELLS = 8
"""Cells of the result along a side of a token."""


def require_parts(
    where: str,
    structure_flow: StructureFlow,
    structure_vae: StructureVAE,
    flows: Mapping[int, SSDiT],
    vaes: Mapping[int, SparseSDFVAE],
    normalization: LatentNormalization | None,
) -> None:
    """Raise RangeError or ShapeError unless resolutions and widths agree."""
    if not flows or set(flows) != set(vaes):
        raise RangeError(f"{where}: flows and vaes must be for the same resolutions; got {list(flows)} and {list(vaes)}.")
    for resolution, flow in flows.items():
        width = vaes[resolution].decoder.config.latent_channels
        if flow.resolution * CELLS != resolution:
            raise RangeError(f"{where}: flows[{resolution}] must work on {resolution / CELLS:g} cells a side; got {flow.resolution}.")
        if flow.out_channels != width or flow.in_channels != width:
            raise ShapeError(
                f"{where}: flows[{resolution}] must make the {width} channels of its autoencoder; it makes {flow.out_channels} of "
                f"{flow.in_channels}."
            )
    if structure_vae.decoder.latent_channels != structure_flow.in_channels:
        raise ShapeError(
            f"{where}: structure_vae must read the {structure_flow.in_channels} channels that structure_flow makes; it reads "
            f"{structure_vae.decoder.latent_channels}."
        )
    if normalization is not None and normalization.channels != structure_flow.in_channels:
        raise ShapeError(
            f"{where}: structure_normalization must have the {structure_flow.in_channels} channels of structure_flow; it has "
            f"{normalization.channels}."
        )
    cells, side = structure_flow.resolution * structure_vae.decoder.factor, flows[min(flows)].resolution
    if cells % side:
        raise RangeError(f"{where}: the coarse flow's {side} cells a side must divide the {cells} of the decoded structure; they do not.")


def require_pictures(where: str, sparse: Mapping[str, bool], encoder: Conditioners, system: System) -> None:
    """Raise RangeError or DtypeError unless pictures give what the stages with sparse conditions read: a mask, and tokens by patch."""
    require_choice(where, "image_system", system, get_args(System))
    wanting = [stage for stage, wanted in sparse.items() if wanted]
    if encoder is None or not wanting:
        return
    if system != "direct3d-s2":
        raise RangeError(
            f"{where}: image_system must be 'direct3d-s2', which alone makes masks, for the sparse conditions of {wanting[0]!r}; "
            f"got {system!r}."
        )
    for stage in wanting:
        own = encoder.get(stage) if isinstance(encoder, Mapping) else encoder
        if own is not None and not (hasattr(own, "patch") and hasattr(own, "special")):
            raise DtypeError(
                f"{where}: the image encoder of {stage!r} must say patch (pixels along a side) and special (tokens before the patches), "
                f"for its sparse conditions; got {describe(own)}."
            )
