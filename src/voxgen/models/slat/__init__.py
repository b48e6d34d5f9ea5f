"""TRELLIS' structured latents: their encoder, and decoders to Gaussians and to cubes of a mesh."""

from .config import SLatConfig as SLatConfig
from .decoders import SLatGaussianDecoder as SLatGaussianDecoder
from .decoders import SLatMeshDecoder as SLatMeshDecoder
from .encoder import SLatEncoder as SLatEncoder

__all__ = ["SLatConfig", "SLatEncoder", "SLatGaussianDecoder", "SLatMeshDecoder"]
