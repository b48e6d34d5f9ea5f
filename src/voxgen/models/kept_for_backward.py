"""What a step keeps for its backward pass."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor

__all__ = ["KeptForBackward"]


class KeptForBackward:
    """Count the bytes that operations inside keep for the backward pass, each tensor's memory once.

    This is what grows with voxels and tokens, on a CPU as on a GPU; the peak of the allocator has temporaries on top.
    Parameters that an operation keeps are counted too, which is a constant. What a checkpointed part keeps is its inputs.

    Attributes:
        bytes: kept so far.
    Example:
        >>> with KeptForBackward() as kept:
        ...     loss = torch.zeros(5, requires_grad=True).exp().sum()
        >>> kept.bytes
        20
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that keeps its own result would hold itself: what no backward pass reaches would never go

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    def __enter__(self) -> KeptForBackward:
        self._hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.__exit__(kind, error, trace)
