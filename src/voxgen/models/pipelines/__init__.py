"""The systems assembled to generate: stages over networks, samplers and decoders."""

from .cascade import cascade_grid as cascade_grid
from .trellis2 import Generated as Generated
from .trellis2 import Trellis2Pipeline as Trellis2Pipeline
from .trellis2 import released_samplers as released_samplers

__all__ = ["Generated", "Trellis2Pipeline", "cascade_grid", "released_samplers"]
