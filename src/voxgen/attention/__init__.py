"""Attention, and the transformer blocks of the four systems made of it."""

from .cross_attention import Context as Context
from .cross_attention import CrossAttention as CrossAttention
from .dit_block import DiTBlock as DiTBlock
from .dit_block import Modulation as Modulation
from .dit_block import modulation_layer as modulation_layer
from .feed_forward import FeedForward as FeedForward
from .full_attention import full_attention as full_attention
from .position import absolute_embedding as absolute_embedding
from .position import apply_rope as apply_rope
from .position import grid_positions as grid_positions
from .position import rope_phases as rope_phases
from .rms_norm import MultiHeadRMSNorm as MultiHeadRMSNorm
from .self_attention import SelfAttention as SelfAttention
from .timestep import TimestepEmbedder as TimestepEmbedder
from .timestep import timestep_features as timestep_features
from .transformer_block import TransformerBlock as TransformerBlock

__all__ = [
    "Context",
    "CrossAttention",
    "DiTBlock",
    "FeedForward",
    "Modulation",
    "MultiHeadRMSNorm",
    "SelfAttention",
    "TimestepEmbedder",
    "TransformerBlock",
    "absolute_embedding",
    "apply_rope",
    "full_attention",
    "grid_positions",
    "modulation_layer",
    "rope_phases",
    "timestep_features",
]
