"""TRELLIS.2: picture → structure → shape → materials, and materials for a given mesh."""

from .pipeline import Trellis2Pipeline as Trellis2Pipeline
from .records import Generated as Generated
from .records import TexturedMesh as TexturedMesh
from .release import released_samplers as released_samplers

__all__ = ["Generated", "TexturedMesh", "Trellis2Pipeline", "released_samplers"]
