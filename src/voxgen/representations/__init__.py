"""Representations of shape and appearance on sparse voxels."""

from ._placement import fit_unit_cube as fit_unit_cube
from .gaussians import GaussianActivation as GaussianActivation
from .gaussians import GaussianSplats as GaussianSplats
from .oriented_points import OrientedPoints as OrientedPoints
from .ovoxel import OVoxel as OVoxel
from .sparse_flex import SparseFlex as SparseFlex
from .sparse_flex import SparseFlexPrediction as SparseFlexPrediction
from .sparse_sdf import SparseSDF as SparseSDF

__all__ = [
    "GaussianActivation",
    "GaussianSplats",
    "OVoxel",
    "OrientedPoints",
    "SparseFlex",
    "SparseFlexPrediction",
    "SparseSDF",
    "fit_unit_cube",
]
