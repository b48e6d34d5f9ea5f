"""What a step keeps for its backward pass."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor


class KeptForBackward:
    """Count the bytes that operations inside keep for the backward pass, each tensor's memory once.

    This is what grows with the voxels that are decoded, on a CPU as on a GPU; the peak of the allocator has temporaries on top.

    Example:
        >>> with KeptForBackward() as kept:
        ...     loss = model(x)
        >>> kept.bytes
    """

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that keeps its own result would hold itself: what no backward pass reaches would never go

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())

    def __enter__(self) -> KeptForBackward:
        self.hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hooks.__exit__(kind, error, trace)
