"""Direct3D-S2: image conditions, the sparse flow, and the refiners of its decoded fields."""

from .adaptive_smoothing import AdaptiveSmoothing as AdaptiveSmoothing
from .adaptive_smoothing import apply_stencil as apply_stencil
from .conditioning import SparseCondition as SparseCondition
from .conditioning import foreground_patches as foreground_patches
from .conditioning import image_tokens as image_tokens
from .conditioning import prepare_image as prepare_image
from .conditioning import sparse_condition as sparse_condition
from .fields import decoded_repeats as decoded_repeats
from .fields import signed_volume as signed_volume
from .refiner import SDFRefiner as SDFRefiner
from .sign_refiner import SignRefiner as SignRefiner
from .ss_dit import ShiftedBlocks as ShiftedBlocks
from .ss_dit import SSDiT as SSDiT
from .surface import crossed_cells as crossed_cells
from .surface import crossed_field as crossed_field
from .surface import signed_field as signed_field
from .unet import UNet3D as UNet3D

__all__ = [
    "AdaptiveSmoothing",
    "SDFRefiner",
    "SSDiT",
    "ShiftedBlocks",
    "SignRefiner",
    "SparseCondition",
    "UNet3D",
    "apply_stencil",
    "crossed_cells",
    "crossed_field",
    "decoded_repeats",
    "foreground_patches",
    "image_tokens",
    "prepare_image",
    "signed_field",
    "signed_volume",
    "sparse_condition",
]
