"""O-Voxel: a flexible dual grid for the shape and a material volume on the same cells (TRELLIS.2)."""

from ._fields import DEFAULT_MATERIALS as DEFAULT_MATERIALS
from ._fields import MATERIAL_CHANNELS as MATERIAL_CHANNELS
from ._fields import OVoxel as OVoxel
from ._from_mesh import QEFWeights as QEFWeights

__all__ = ["DEFAULT_MATERIALS", "MATERIAL_CHANNELS", "OVoxel", "QEFWeights"]
