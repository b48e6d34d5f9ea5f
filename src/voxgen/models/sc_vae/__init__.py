"""The sparse compression autoencoder of TRELLIS.2."""

from ._outputs import DecoderOutput as DecoderOutput
from .config import BlockArgs as BlockArgs
from .config import DecoderConfig as DecoderConfig
from .config import EncoderConfig as EncoderConfig
from .content import Content as Content
from .content import DecodedMaterials as DecodedMaterials
from .content import DecodedShape as DecodedShape
from .content import MaterialContent as MaterialContent
from .content import ShapeContent as ShapeContent
from .decoder import SCDecoder as SCDecoder
from .encoder import Encoded as Encoded
from .encoder import SCEncoder as SCEncoder
from .latents import MATERIAL_LATENTS as MATERIAL_LATENTS
from .latents import SHAPE_LATENTS as SHAPE_LATENTS
from .latents import LatentNormalization as LatentNormalization
from .tiling import Tiling as Tiling
from .vae import SCVAE as SCVAE
from .vae import Latent as Latent

__all__ = [
    "MATERIAL_LATENTS",
    "SCVAE",
    "SHAPE_LATENTS",
    "BlockArgs",
    "Content",
    "DecodedMaterials",
    "DecodedShape",
    "DecoderConfig",
    "DecoderOutput",
    "Encoded",
    "EncoderConfig",
    "Latent",
    "LatentNormalization",
    "MaterialContent",
    "SCDecoder",
    "SCEncoder",
    "ShapeContent",
    "Tiling",
]
