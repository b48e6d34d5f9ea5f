"""The sparse SDF autoencoder of Direct3D-S2 (SS-VAE)."""

from .blocks import SDFDownBlock as SDFDownBlock
from .blocks import SDFUpBlock as SDFUpBlock
from .config import SDFDecoderConfig as SDFDecoderConfig
from .config import SDFEncoderConfig as SDFEncoderConfig
from .decoder import SparseSDFDecoder as SparseSDFDecoder
from .encoder import SparseSDFEncoder as SparseSDFEncoder
from .records import DecodedSDF as DecodedSDF
from .records import SDFLatent as SDFLatent
from .targets import SDFTargets as SDFTargets
from .targets import sdf_targets as sdf_targets
from .vae import SparseSDFVAE as SparseSDFVAE

__all__ = [
    "DecodedSDF",
    "SDFDecoderConfig",
    "SDFDownBlock",
    "SDFEncoderConfig",
    "SDFLatent",
    "SDFTargets",
    "SDFUpBlock",
    "SparseSDFDecoder",
    "SparseSDFEncoder",
    "SparseSDFVAE",
    "sdf_targets",
]
