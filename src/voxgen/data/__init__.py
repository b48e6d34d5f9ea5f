"""Data for training: procedural assets, condition images, preparation of assets, shards and the dataset that reads them."""

from ._batches import collate as collate
from ._batches import occupancy as occupancy
from ._dataset import ShardDataset as ShardDataset
from ._fields import KINDS as KINDS
from ._latents import LatentStage as LatentStage
from ._manifest import Manifest as Manifest
from ._prepare import prepare as prepare
from ._sources import AssetInput as AssetInput
from ._sources import AssetSource as AssetSource
from ._sources import FileSource as FileSource
from ._sources import ProceduralSource as ProceduralSource
from ._sources import find_sources as find_sources
from ._sources import procedural_sources as procedural_sources
from ._stages import AssetRejected as AssetRejected
from ._stages import ImagesStage as ImagesStage
from ._stages import OVoxelStage as OVoxelStage
from ._stages import PointsStage as PointsStage
from ._stages import SDFStage as SDFStage
from ._stages import Stage as Stage
from ._stages import StageFailed as StageFailed
from .conditions import ConditionImages as ConditionImages
from .conditions import condition_images as condition_images
from .procedural import CATEGORIES as CATEGORIES
from .procedural import ProceduralAsset as ProceduralAsset
from .procedural import ProceduralDataset as ProceduralDataset
from .procedural import procedural_asset as procedural_asset
from .procedural import procedural_dataset as procedural_dataset
from .procedural import split_of as split_of

__all__ = [
    "CATEGORIES",
    "KINDS",
    "AssetInput",
    "AssetRejected",
    "AssetSource",
    "ConditionImages",
    "FileSource",
    "ImagesStage",
    "LatentStage",
    "Manifest",
    "OVoxelStage",
    "PointsStage",
    "ProceduralAsset",
    "ProceduralDataset",
    "ProceduralSource",
    "SDFStage",
    "ShardDataset",
    "Stage",
    "StageFailed",
    "collate",
    "condition_images",
    "find_sources",
    "occupancy",
    "prepare",
    "procedural_asset",
    "procedural_dataset",
    "procedural_sources",
    "split_of",
]
