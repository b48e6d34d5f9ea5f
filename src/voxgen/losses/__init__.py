"""Losses: one function a term, named by what it compares, and the sums that published systems train with."""

from .anchoring import mask_bce as mask_bce
from .dual_grid import crossing_bce as crossing_bce
from .dual_grid import dual_vertex_mse as dual_vertex_mse
from .dual_grid import subdivision_bce as subdivision_bce
from .gaussians import gaussian_opacity as gaussian_opacity
from .gaussians import gaussian_volume as gaussian_volume
from .image import Perceptual as Perceptual
from .image import image_l1 as image_l1
from .image import image_l2 as image_l2
from .image import image_smooth_l1 as image_smooth_l1
from .image import perceptual_loss as perceptual_loss
from .image import psnr_loss as psnr_loss
from .image import ssim_loss as ssim_loss
from .latent import kl_divergence as kl_divergence
from .material import material_l1 as material_l1
from .material import material_l2 as material_l2
from .perceptual import lpips_network as lpips_network
from .render_terms import MATERIAL_TERMS as MATERIAL_TERMS
from .render_terms import SHAPE_TERMS as SHAPE_TERMS
from .render_terms import MaterialMaps as MaterialMaps
from .render_terms import RenderTarget as RenderTarget
from .render_terms import RenderTerms as RenderTerms
from .render_terms import ShapeMaps as ShapeMaps
from .render_terms import material_view_terms as material_view_terms
from .render_terms import shape_view_terms as shape_view_terms
from .sparse_flex import flex_consistency as flex_consistency
from .sparse_flex import flex_deviation as flex_deviation
from .sparse_flex import flex_weights as flex_weights
from .sparse_flex import occupancy_bce as occupancy_bce
from .sparse_flex import sparse_total_variation as sparse_total_variation
from .sparse_flex_vae import SparseFlexVAELoss as SparseFlexVAELoss
from .sparse_sdf import SparseSDFLoss as SparseSDFLoss
from .sparse_sdf import sdf_mse as sdf_mse
from .structure import StructureVAELoss as StructureVAELoss
from .structure import structure_bce as structure_bce
from .structure import structure_dice as structure_dice
from .structure import structure_l1 as structure_l1
from .texture_vae import TextureVAELoss as TextureVAELoss
from .texture_vae import composite as composite
from .tsdf import ProjectiveTSDF as ProjectiveTSDF
from .tsdf import geometric_tsdf as geometric_tsdf
from .tsdf import projective_tsdf as projective_tsdf
from .tsdf import tsdf_l1 as tsdf_l1
from .vae import LossTerms as LossTerms
from .vae import MaterialVAELoss as MaterialVAELoss
from .vae import SampleBounds as SampleBounds
from .vae import ShapeVAELoss as ShapeVAELoss
from .view_normals import face_camera as face_camera

__all__ = [
    "MATERIAL_TERMS",
    "SHAPE_TERMS",
    "LossTerms",
    "MaterialMaps",
    "MaterialVAELoss",
    "Perceptual",
    "ProjectiveTSDF",
    "RenderTarget",
    "RenderTerms",
    "SampleBounds",
    "ShapeMaps",
    "ShapeVAELoss",
    "SparseFlexVAELoss",
    "SparseSDFLoss",
    "StructureVAELoss",
    "TextureVAELoss",
    "composite",
    "crossing_bce",
    "dual_vertex_mse",
    "face_camera",
    "flex_consistency",
    "flex_deviation",
    "flex_weights",
    "gaussian_opacity",
    "gaussian_volume",
    "geometric_tsdf",
    "image_l1",
    "image_l2",
    "image_smooth_l1",
    "kl_divergence",
    "lpips_network",
    "mask_bce",
    "material_l1",
    "material_l2",
    "material_view_terms",
    "occupancy_bce",
    "perceptual_loss",
    "projective_tsdf",
    "psnr_loss",
    "sdf_mse",
    "shape_view_terms",
    "sparse_total_variation",
    "ssim_loss",
    "structure_bce",
    "structure_dice",
    "structure_l1",
    "subdivision_bce",
    "tsdf_l1",
]
