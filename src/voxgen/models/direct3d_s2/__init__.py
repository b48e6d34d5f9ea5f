"""Direct3D-S2: the refiners of its decoded fields."""

from .adaptive_smoothing import AdaptiveSmoothing as AdaptiveSmoothing
from .adaptive_smoothing import apply_stencil as apply_stencil
from .fields import decoded_repeats as decoded_repeats
from .fields import signed_volume as signed_volume
from .refiner import SDFRefiner as SDFRefiner
from .sign_refiner import SignRefiner as SignRefiner
from .unet import UNet3D as UNet3D

__all__ = [
    "AdaptiveSmoothing",
    "SDFRefiner",
    "SignRefiner",
    "UNet3D",
    "apply_stencil",
    "decoded_repeats",
    "signed_volume",
]
