"""The SparseFlex autoencoder of TripoSF, which Focusing trains."""

from .config import FlexDecoderConfig as FlexDecoderConfig
from .config import FlexEncoderConfig as FlexEncoderConfig
from .config import PointEncoderConfig as PointEncoderConfig
from .decoder import SparseFlexDecoder as SparseFlexDecoder
from .encoder import SparseFlexEncoder as SparseFlexEncoder
from .records import DecodedFlex as DecodedFlex
from .records import EmittedFlex as EmittedFlex
from .targets import occupied_children as occupied_children
from .vae import SparseFlexVAE as SparseFlexVAE

__all__ = [
    "DecodedFlex",
    "EmittedFlex",
    "FlexDecoderConfig",
    "FlexEncoderConfig",
    "PointEncoderConfig",
    "SparseFlexDecoder",
    "SparseFlexEncoder",
    "SparseFlexVAE",
    "occupied_children",
]
