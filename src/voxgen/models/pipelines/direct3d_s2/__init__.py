"""Direct3D-S2 assembled: picture → structure → latent → SDF → mesh, coarse and fine."""

from .pipeline import Direct3DS2Pipeline as Direct3DS2Pipeline
from .records import DecodedSurface as DecodedSurface
from .records import GeneratedSDF as GeneratedSDF
from .release import block_order as block_order
from .release import direct3d_s2_samplers as direct3d_s2_samplers
from .release import release_frame as release_frame
from .release import scheduled_sampler as scheduled_sampler

__all__ = [
    "DecodedSurface",
    "Direct3DS2Pipeline",
    "GeneratedSDF",
    "block_order",
    "direct3d_s2_samplers",
    "release_frame",
    "scheduled_sampler",
]
