"""ImageConditioner: what a pipeline asks of an image encoder."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["ImageConditioner"]


@runtime_checkable
class ImageConditioner(Protocol):
    """Any module with these turns pictures into the condition tokens of a flow.

    Attributes:
        image_size: side in pixels of the pictures it wants.
        channels: width of a token: the cond_channels of the flows that it serves.
    """

    @property
    def image_size(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def tokens(self, images: Float[Tensor, "b 3 s s"], /) -> Float[Tensor, "b m c"]:
        """Colours in [0, 1] on the background of the system → tokens of each picture."""
        ...
