"""What a step keeps for its backward pass."""

from voxgen.models import KeptForBackward

__all__ = ["KeptForBackward"]
