"""Representations of shape and appearance on sparse voxels."""

from .ovoxel import OVoxel as OVoxel

__all__ = ["OVoxel"]
