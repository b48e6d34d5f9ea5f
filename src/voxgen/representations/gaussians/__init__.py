"""3D Gaussians: made of network outputs, of O-Voxels, of files."""

from ._fields import GaussianSplats as GaussianSplats
from ._head import GaussianActivation as GaussianActivation

__all__ = ["GaussianActivation", "GaussianSplats"]
