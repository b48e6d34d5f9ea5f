"""Attention, and the transformer blocks of the four systems made of it."""

from voxgen.ops.blocks import SSAPlan as SSAPlan
from voxgen.ops.spatial_sparse_attention import spatial_sparse_attention as spatial_sparse_attention

from .compression import Compression as Compression
from .compression import ConvolutionalCompression as ConvolutionalCompression
from .compression import PointwiseCompression as PointwiseCompression
from .cross_attention import Context as Context
from .cross_attention import CrossAttention as CrossAttention
from .dit_block import DiTBlock as DiTBlock
from .dit_block import Modulation as Modulation
from .dit_block import modulation_layer as modulation_layer
from .feed_forward import FeedForward as FeedForward
from .full_attention import full_attention as full_attention
from .mask_generator import MaskGenerator as MaskGenerator
from .mask_generator import MaskPrediction as MaskPrediction
from .mask_generator import mask_targets as mask_targets
from .packed_context import PackedContext as PackedContext
from .packed_context import pack_context as pack_context
from .position import absolute_embedding as absolute_embedding
from .position import apply_rope as apply_rope
from .position import grid_positions as grid_positions
from .position import rope_phases as rope_phases
from .ragged_attention import RaggedAttention as RaggedAttention
from .ragged_attention import RaggedCrossAttention as RaggedCrossAttention
from .rms_norm import MultiHeadRMSNorm as MultiHeadRMSNorm
from .self_attention import SelfAttention as SelfAttention
from .ssa import SpatialSparseAttention as SpatialSparseAttention
from .timestep import TimestepEmbedder as TimestepEmbedder
from .timestep import timestep_features as timestep_features
from .transformer_block import TransformerBlock as TransformerBlock
from .window_attention import WindowAttention as WindowAttention
from .window_transformer import WindowTransformer as WindowTransformer

__all__ = [
    "Compression",
    "Context",
    "ConvolutionalCompression",
    "CrossAttention",
    "DiTBlock",
    "FeedForward",
    "MaskGenerator",
    "MaskPrediction",
    "Modulation",
    "MultiHeadRMSNorm",
    "PackedContext",
    "PointwiseCompression",
    "RaggedAttention",
    "RaggedCrossAttention",
    "SSAPlan",
    "SelfAttention",
    "SpatialSparseAttention",
    "TimestepEmbedder",
    "TransformerBlock",
    "WindowAttention",
    "WindowTransformer",
    "absolute_embedding",
    "apply_rope",
    "full_attention",
    "grid_positions",
    "mask_targets",
    "modulation_layer",
    "pack_context",
    "rope_phases",
    "spatial_sparse_attention",
    "timestep_features",
]
