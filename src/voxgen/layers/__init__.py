"""Layers on sparse tensors: convolution, norms, residual blocks, changes of level, heads.

Each takes and returns a `SparseTensor` and can be used alone. None keeps anything from one call to the next: a structure that
a layer needs is an argument.
"""

from ._anchoring_upsampler import OctantUpsample as OctantUpsample
from ._anchoring_upsampler import SurfaceAnchoringUpsampler as SurfaceAnchoringUpsampler
from ._child_predictor import ChildPredictor as ChildPredictor
from ._conv import SparseConv3d as SparseConv3d
from ._convnext import SparseConvNeXtBlock as SparseConvNeXtBlock
from ._gaussian_head import GaussianHead as GaussianHead
from ._heads import DualGridHead as DualGridHead
from ._heads import DualGridPrediction as DualGridPrediction
from ._heads import MaterialHead as MaterialHead
from ._heads import read_dual_grid as read_dual_grid
from ._heads import read_materials as read_materials
from ._latent import DiagonalGaussian as DiagonalGaussian
from ._latent import LatentHead as LatentHead
from ._norm import LayerNorm32 as LayerNorm32
from ._norm import SparseGroupNorm as SparseGroupNorm
from ._norm import SparseInstanceNorm as SparseInstanceNorm
from ._point_encoder import PointCloudEncoder as PointCloudEncoder
from ._pointwise import Pointwise as Pointwise
from ._pointwise import pointwise as pointwise
from ._pooled_resample import NearestUpsample as NearestUpsample
from ._pooled_resample import PooledDownsample as PooledDownsample
from ._pruning_upsampler import EarlyPruningUpsampler as EarlyPruningUpsampler
from ._pruning_upsampler import Upsampled as Upsampled
from ._residual import SparseResidualBlock as SparseResidualBlock
from ._residual_resample import ResidualDownsample as ResidualDownsample
from ._residual_resample import ResidualUpsample as ResidualUpsample
from ._residual_resample import group_average as group_average
from ._residual_resample import repeat_channels as repeat_channels
from ._self_pruning import SelfPruningUpsampler as SelfPruningUpsampler
from ._torso import set_torso_dtype as set_torso_dtype

__all__ = [
    "ChildPredictor",
    "DiagonalGaussian",
    "DualGridHead",
    "DualGridPrediction",
    "EarlyPruningUpsampler",
    "GaussianHead",
    "LatentHead",
    "LayerNorm32",
    "MaterialHead",
    "NearestUpsample",
    "OctantUpsample",
    "PointCloudEncoder",
    "Pointwise",
    "PooledDownsample",
    "ResidualDownsample",
    "ResidualUpsample",
    "SelfPruningUpsampler",
    "SparseConv3d",
    "SparseConvNeXtBlock",
    "SparseGroupNorm",
    "SparseInstanceNorm",
    "SparseResidualBlock",
    "SurfaceAnchoringUpsampler",
    "Upsampled",
    "group_average",
    "pointwise",
    "read_dual_grid",
    "read_materials",
    "repeat_channels",
    "set_torso_dtype",
]
