"""Whole networks: published systems and small ones of our own, assembled from voxgen's blocks; and their checkpoints."""

from ._pretrained import load_pretrained as load_pretrained
from ._pretrained import save_pretrained as save_pretrained
from ._registry import available as available
from ._registry import build as build
from .direct3d_s2 import SDFRefiner as SDFRefiner
from .direct3d_s2 import SignRefiner as SignRefiner
from .direct3d_s2 import SSDiT as SSDiT
from .elastic_memory import ElasticMemory as ElasticMemory
from .elastic_memory import ElasticStep as ElasticStep
from .image_condition import BackgroundRemover as BackgroundRemover
from .image_condition import DINOv2Encoder as DINOv2Encoder
from .image_condition import DINOv3Encoder as DINOv3Encoder
from .image_condition import ImageConditioner as ImageConditioner
from .image_condition import PlainBackground as PlainBackground
from .image_condition import SmallImageEncoder as SmallImageEncoder
from .image_condition import cut_out as cut_out
from .image_condition import prepare_image as prepare_image
from .kept_for_backward import KeptForBackward as KeptForBackward
from .latent_flow import LatentFlow as LatentFlow
from .latent_flow import PatchedLatentFlow as PatchedLatentFlow
from .pipelines import Direct3DS2Pipeline as Direct3DS2Pipeline
from .pipelines import FocusingPipeline as FocusingPipeline
from .pipelines import SparseUpPipeline as SparseUpPipeline
from .pipelines import Trellis2Pipeline as Trellis2Pipeline
from .pipelines import TrellisPipeline as TrellisPipeline
from .render_terms import MaterialRenderTerms as MaterialRenderTerms
from .render_terms import MeshRenderTerms as MeshRenderTerms
from .render_terms import shape_maps as shape_maps
from .sc_vae import MATERIAL_LATENTS as MATERIAL_LATENTS
from .sc_vae import SCVAE as SCVAE
from .sc_vae import SHAPE_LATENTS as SHAPE_LATENTS
from .sc_vae import DecodedMaterials as DecodedMaterials
from .sc_vae import DecodedShape as DecodedShape
from .sc_vae import DecoderConfig as DecoderConfig
from .sc_vae import DecoderOutput as DecoderOutput
from .sc_vae import EncoderConfig as EncoderConfig
from .sc_vae import Latent as Latent
from .sc_vae import LatentNormalization as LatentNormalization
from .sc_vae import MaterialContent as MaterialContent
from .sc_vae import SCDecoder as SCDecoder
from .sc_vae import SCEncoder as SCEncoder
from .sc_vae import ShapeContent as ShapeContent
from .sc_vae import Tiling as Tiling
from .slat import SLatConfig as SLatConfig
from .slat import SLatEncoder as SLatEncoder
from .slat import SLatGaussianDecoder as SLatGaussianDecoder
from .slat import SLatMeshDecoder as SLatMeshDecoder
from .sparse_flex_vae import DecodedFlex as DecodedFlex
from .sparse_flex_vae import EmittedFlex as EmittedFlex
from .sparse_flex_vae import FlexDecoderConfig as FlexDecoderConfig
from .sparse_flex_vae import FlexEncoderConfig as FlexEncoderConfig
from .sparse_flex_vae import PointEncoderConfig as PointEncoderConfig
from .sparse_flex_vae import SparseFlexDecoder as SparseFlexDecoder
from .sparse_flex_vae import SparseFlexEncoder as SparseFlexEncoder
from .sparse_flex_vae import SparseFlexVAE as SparseFlexVAE
from .sparse_flex_vae import occupied_children as occupied_children
from .sparse_sdf_vae import DecodedSDF as DecodedSDF
from .sparse_sdf_vae import SDFDecoderConfig as SDFDecoderConfig
from .sparse_sdf_vae import SDFEncoderConfig as SDFEncoderConfig
from .sparse_sdf_vae import SDFLatent as SDFLatent
from .sparse_sdf_vae import SDFTargets as SDFTargets
from .sparse_sdf_vae import SparseSDFDecoder as SparseSDFDecoder
from .sparse_sdf_vae import SparseSDFEncoder as SparseSDFEncoder
from .sparse_sdf_vae import SparseSDFVAE as SparseSDFVAE
from .sparse_sdf_vae import sdf_targets as sdf_targets
from .structure import StructureDecoder as StructureDecoder
from .structure import StructureEncoder as StructureEncoder
from .structure import StructureFlow as StructureFlow
from .structure import StructureVAE as StructureVAE
from .structure import occupied_cells as occupied_cells
from .texture_vae import DecodedTexture as DecodedTexture
from .texture_vae import ImageEncoder as ImageEncoder
from .texture_vae import PatchEncoder as PatchEncoder
from .texture_vae import TextureDecoder as TextureDecoder
from .texture_vae import TextureVAE as TextureVAE
from .texture_vae import TextureVAEConfig as TextureVAEConfig
from .texture_vae import encode_images as encode_images
from .texture_vae import surface_features as surface_features

__all__ = [
    "MATERIAL_LATENTS",
    "SCVAE",
    "SHAPE_LATENTS",
    "BackgroundRemover",
    "DINOv2Encoder",
    "DINOv3Encoder",
    "DecodedFlex",
    "DecodedMaterials",
    "DecodedSDF",
    "DecodedShape",
    "DecodedTexture",
    "DecoderConfig",
    "DecoderOutput",
    "Direct3DS2Pipeline",
    "ElasticMemory",
    "ElasticStep",
    "EmittedFlex",
    "EncoderConfig",
    "FlexDecoderConfig",
    "FlexEncoderConfig",
    "FocusingPipeline",
    "ImageConditioner",
    "ImageEncoder",
    "KeptForBackward",
    "Latent",
    "LatentFlow",
    "LatentNormalization",
    "MaterialContent",
    "MaterialRenderTerms",
    "MeshRenderTerms",
    "PatchEncoder",
    "PatchedLatentFlow",
    "PlainBackground",
    "PointEncoderConfig",
    "SCDecoder",
    "SCEncoder",
    "SDFDecoderConfig",
    "SDFEncoderConfig",
    "SDFLatent",
    "SDFRefiner",
    "SDFTargets",
    "SLatConfig",
    "SLatEncoder",
    "SLatGaussianDecoder",
    "SLatMeshDecoder",
    "SSDiT",
    "ShapeContent",
    "SignRefiner",
    "SmallImageEncoder",
    "SparseFlexDecoder",
    "SparseFlexEncoder",
    "SparseFlexVAE",
    "SparseSDFDecoder",
    "SparseSDFEncoder",
    "SparseSDFVAE",
    "SparseUpPipeline",
    "StructureDecoder",
    "StructureEncoder",
    "StructureFlow",
    "StructureVAE",
    "TextureDecoder",
    "TextureVAE",
    "TextureVAEConfig",
    "Tiling",
    "Trellis2Pipeline",
    "TrellisPipeline",
    "available",
    "build",
    "cut_out",
    "encode_images",
    "load_pretrained",
    "occupied_cells",
    "occupied_children",
    "prepare_image",
    "save_pretrained",
    "sdf_targets",
    "shape_maps",
    "surface_features",
]
