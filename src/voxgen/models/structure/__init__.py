"""Dense occupancy of a coarse cube: its autoencoder, and the flow that makes its latents."""

from .decoder import StructureDecoder as StructureDecoder
from .encoder import StructureEncoder as StructureEncoder
from .flow import StructureFlow as StructureFlow
from .initialization import initialize_flow as initialize_flow
from .posterior import DensePosterior as DensePosterior
from .vae import StructureVAE as StructureVAE
from .vae import occupied_cells as occupied_cells

__all__ = [
    "DensePosterior",
    "StructureDecoder",
    "StructureEncoder",
    "StructureFlow",
    "StructureVAE",
    "initialize_flow",
    "occupied_cells",
]
