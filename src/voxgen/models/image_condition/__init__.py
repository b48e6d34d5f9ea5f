"""From a picture to what the flows are conditioned on: reading, cutting out, cropping, and encoders to tokens."""

from .background import BackgroundRemover as BackgroundRemover
from .background import PlainBackground as PlainBackground
from .background import RemoveBackground as RemoveBackground
from .picture import Picture as Picture
from .prepare import System as System
from .prepare import cut_out as cut_out
from .prepare import prepare_image as prepare_image
from .pretrained import DINOv2Encoder as DINOv2Encoder
from .pretrained import DINOv3Encoder as DINOv3Encoder
from .protocol import ImageConditioner as ImageConditioner
from .small import SmallImageEncoder as SmallImageEncoder

__all__ = [
    "BackgroundRemover",
    "DINOv2Encoder",
    "DINOv3Encoder",
    "ImageConditioner",
    "Picture",
    "PlainBackground",
    "RemoveBackground",
    "SmallImageEncoder",
    "System",
    "cut_out",
    "prepare_image",
]
