"""Whether the networks of Direct3D-S2's stages fit each other."""

from __future__ import annotations

from collections.abc import Mapping

from voxgen.core.errors import RangeError, ShapeError
from voxgen.models.direct3d_s2 import SSDiT
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.sparse_sdf_vae import SparseSDFVAE
from voxgen.models.structure import StructureFlow, StructureVAE

__all__ = ["CELLS", "require_parts"]

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
