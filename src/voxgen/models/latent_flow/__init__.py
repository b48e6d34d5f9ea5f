"""Flows of sparse latents."""

from .flow import Attention as Attention
from .flow import LatentFlow as LatentFlow
from .patched import PatchedLatentFlow as PatchedLatentFlow
from .residual import TimedResidualBlock as TimedResidualBlock

__all__ = ["Attention", "LatentFlow", "PatchedLatentFlow", "TimedResidualBlock"]
