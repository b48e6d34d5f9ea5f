"""Materials for a given mesh."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from voxgen.attention import Context
from voxgen.core import TriMesh
from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, RangeError
from voxgen.models.sc_vae import DecodedMaterials
from voxgen.models.sc_vae.content import MaterialContent, ShapeContent
from voxgen.representations import OVoxel

from .conditions import Use
from .placement import device_of, placed
from .records import TexturedMesh

if TYPE_CHECKING:
    from voxgen.models.pipelines.stages import StageCallback

    from .pipeline import Trellis2Pipeline

__all__ = ["texture_mesh"]


@torch.no_grad()
def texture_mesh(
    pipeline: Trellis2Pipeline,
    mesh: TriMesh,
    resolution: int | None,
    tokens_of: Callable[[str, list[Use]], dict[Use, Context]],
    *,
    texture_size: int,
    unwrap: Any,
    generator: Any,
    progress: bool,
    callback: StageCallback | None,
) -> TexturedMesh:
    """See `Trellis2Pipeline.texture_mesh`; tokens_of makes the condition tokens once all else is checked."""
    where = "Trellis2Pipeline.texture_mesh"
    encoder, decoder, flows = pipeline.shape_encoder, pipeline.material_decoder, pipeline.material_flows
    if encoder is None or decoder is None or not flows:
        lacking = {"shape_encoder": encoder, "material_flows": flows or None, "material_decoder": decoder}
        raise RangeError(f"{where}: texturing needs {', '.join(name for name, part in lacking.items() if part is None)}.")
    resolution = max(flows) if resolution is None else resolution
    if resolution not in flows:
        raise RangeError(f"{where}: resolution must be one of {sorted(flows)}; got {resolution}.")
    if not isinstance(mesh, TriMesh):
        raise DtypeError(f"{where}: mesh must be a TriMesh; got {describe(mesh)}. Load files with voxgen.io.load_mesh.")
    mesh.validate(where)
    use: Use = ("material", resolution)
    tokens = tokens_of(where, [use])[use]
    if len(tokens) != 1:
        raise RangeError(f"{where}: one mesh is textured at a time; got the pictures or tokens of {len(tokens)} objects.")

    ovoxel = OVoxel.from_mesh(mesh.with_up(pipeline.up), resolution=resolution, materials=False, progress=progress)
    with placed(pipeline._place, encoder):
        shape = ovoxel.to(device_of(encoder))
        encoded = encoder(ShapeContent().read(shape))
    latent = encoded.posterior.mode
    told = None if callback is None else partial(callback, "material")
    painted = pipeline.sample_material(latent, resolution, tokens, generator=generator, progress=progress, callback=told)
    with placed(pipeline._place, decoder):
        output = decoder(painted, structure=encoded.structures, progress=progress)
    coloured = cast(DecodedMaterials, MaterialContent(pipeline.materials).result(output)).onto(shape).to(mesh.device)
    baked = coloured.bake(mesh.with_up(pipeline.up), texture_size=texture_size, unwrap=unwrap).with_up(mesh.up)
    return TexturedMesh(baked, coloured, latent, painted)
