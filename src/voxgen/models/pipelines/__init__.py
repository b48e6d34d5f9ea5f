"""The systems assembled to generate: stages over networks, samplers and decoders."""

from .cascade import cascade_grid as cascade_grid
from .direct3d_s2 import DecodedSurface as DecodedSurface
from .direct3d_s2 import Direct3DS2Pipeline as Direct3DS2Pipeline
from .direct3d_s2 import GeneratedSDF as GeneratedSDF
from .direct3d_s2 import direct3d_s2_samplers as direct3d_s2_samplers
from .focusing import FocusingPipeline as FocusingPipeline
from .focusing import GeneratedSurface as GeneratedSurface
from .focusing import focusing_samplers as focusing_samplers
from .opening import AnyPipeline as AnyPipeline
from .opening import open_pipeline as open_pipeline
from .shipped import shipped_folder as shipped_folder
from .shipped import shipped_pipeline as shipped_pipeline
from .shipped import shipped_pipelines as shipped_pipelines
from .sparse_up import GeneratedTexture as GeneratedTexture
from .sparse_up import SparseUpPipeline as SparseUpPipeline
from .trellis import TRELLIS_LATENTS as TRELLIS_LATENTS
from .trellis import GeneratedTrellis as GeneratedTrellis
from .trellis import TrellisPipeline as TrellisPipeline
from .trellis2 import Generated as Generated
from .trellis2 import Trellis2Pipeline as Trellis2Pipeline
from .trellis2 import released_samplers as released_samplers
from .two_stages import TwoStagePipeline as TwoStagePipeline
from .two_stages import trellis_samplers as trellis_samplers

__all__ = [
    "TRELLIS_LATENTS",
    "AnyPipeline",
    "DecodedSurface",
    "Direct3DS2Pipeline",
    "FocusingPipeline",
    "Generated",
    "GeneratedSDF",
    "GeneratedSurface",
    "GeneratedTexture",
    "GeneratedTrellis",
    "SparseUpPipeline",
    "Trellis2Pipeline",
    "TrellisPipeline",
    "TwoStagePipeline",
    "cascade_grid",
    "direct3d_s2_samplers",
    "focusing_samplers",
    "open_pipeline",
    "released_samplers",
    "shipped_folder",
    "shipped_pipeline",
    "shipped_pipelines",
    "trellis_samplers",
]
