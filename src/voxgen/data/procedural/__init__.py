"""Textured objects made by rule: as many as wanted, each from its index."""

from .asset import CATEGORIES as CATEGORIES
from .asset import ProceduralAsset as ProceduralAsset
from .asset import procedural_asset as procedural_asset
from .dataset import ProceduralDataset as ProceduralDataset
from .dataset import Split as Split
from .dataset import procedural_dataset as procedural_dataset
from .dataset import split_of as split_of

__all__ = ["CATEGORIES", "ProceduralAsset", "ProceduralDataset", "Split", "procedural_asset", "procedural_dataset", "split_of"]
