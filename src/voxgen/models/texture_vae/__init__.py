"""The texture autoencoder of Sparse-Up: image features on surface cells → latent → Gaussians on cells two levels finer."""

from .config import TextureVAEConfig as TextureVAEConfig
from .decoder import TextureDecoder as TextureDecoder
from .features import surface_features as surface_features
from .image_encoder import ImageEncoder as ImageEncoder
from .image_encoder import PatchEncoder as PatchEncoder
from .image_encoder import encode_images as encode_images
from .vae import DecodedTexture as DecodedTexture
from .vae import TextureVAE as TextureVAE

__all__ = [
    "DecodedTexture",
    "ImageEncoder",
    "PatchEncoder",
    "TextureDecoder",
    "TextureVAE",
    "TextureVAEConfig",
    "encode_images",
    "surface_features",
]
