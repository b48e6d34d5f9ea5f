"""Flows of sparse latents."""

from .flow import Attention as Attention
from .flow import LatentFlow as LatentFlow

__all__ = ["Attention", "LatentFlow"]
