"""Tiny pipelines of Direct3D-S2, with drawn weights, and with stages that are told what to make; and conditions for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.sdf_vae_cases import vae as sdf_vae  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor
from voxgen.models import SDFRefiner, SignRefiner, SparseSDFVAE, SSDiT, StructureFlow, StructureVAE, build
from voxgen.models.pipelines import Direct3DS2Pipeline
from voxgen.models.pipelines.direct3d_s2.release import scheduled_sampler
from voxgen.models.sparse_sdf_vae import DecodedSDF
from voxgen.ops.grid_sets import children

CHANNELS = 4
COMPAT = "direct3d_s2"
TOKENS, WIDTH = 6, 12
"""Of a condition: how many, and how wide."""
SAMPLERS = {"structure": scheduled_sampler(3, 6.0), "coarse": scheduled_sampler(2, 6.0), "fine": scheduled_sampler(2, 8.0)}


def drawn(module: nn.Module, seed: int = 0, std: float = 0.2) -> Any:
    """All weights drawn, so that no part is silent as in a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return module.eval()


def structure_flow(resolution: int = 2) -> StructureFlow:
    fields: dict[str, Any] = {
        "resolution": resolution,
        "in_channels": 3,
        "out_channels": 3,
        "model_channels": 24,
        "num_heads": 2,
        "num_blocks": 1,
    }
    return drawn(build("voxgen/structure-flow-small", **fields, cond_channels=WIDTH))


def structure_vae() -> StructureVAE:
    return drawn(build("voxgen/structure-vae-small", embed_dim=3, model_channels=(4, 8)), std=0.4)


def sparse_flow(resolution: int, **fields: Any) -> SSDiT:
    """On an eighth of the cells."""
    options = {"model_channels": 32, "num_heads": 2, "num_blocks": 2, "cond_channels": WIDTH, "topk": 2, **fields}
    return drawn(
        build("voxgen/ss-dit-small", resolution=resolution // 8, in_channels=CHANNELS, out_channels=CHANNELS, **options), resolution
    )


def refiner(**fields: Any) -> SDFRefiner:
    options = {"block_out_channels": (8, 12), "layers_per_block": 1, "layers_mid_block": 0, "patch_size": 32, "overlap": 4}
    return drawn(build("direct3d-s2/refiner", **{**options, "feature_channels": 2, "use_fp16": False, **fields}))


def sign_refiner(**fields: Any) -> SignRefiner:
    options = {"block_out_channels": (8, 12), "layers_per_block": 1, "layers_mid_block": 0, "patch_size": 8}
    return drawn(build("direct3d-s2/refiner-1024", **{**options, "use_fp16": False, **fields}))


def tiny(version: str = "1.1", **changes: Any) -> Direct3DS2Pipeline:
    """4³ cells of structure, results of 32³ and 64³ cells, every weight drawn."""
    sparse = {"sparse_conditions": True, "compression_version": "v2"} if version == "1.0" else {}
    sizes = (32, 64)
    parts: dict[str, Any] = {
        "structure_flow": structure_flow(),
        "structure_vae": structure_vae(),
        "flows": {size: sparse_flow(size, **sparse) for size in sizes},
        "vaes": {size: sdf_vae(size, resolution=size // 8).eval() for size in sizes},
        "samplers": SAMPLERS,
        **changes,
    }
    return Direct3DS2Pipeline(**parts)


class GivenStructure(StructureVAE):
    """Decodes any latent to given cells, sample by sample."""

    def __init__(self, occupied: Tensor) -> None:
        inner = structure_vae()
        super().__init__(inner.encoder, inner.decoder)
        self.occupied = occupied

    def decode(self, z: Tensor) -> Tensor:
        return torch.where(self.occupied[: len(z), None], 9.0, -9.0)


class BallVAE(SparseSDFVAE):
    """Decodes any latent to the distances of a ball around the middle of the cube, true to rounding.

    Args:
        radius: in halves of the cube's side.
        band: cells that a value of 1 means.
        far: of cells beyond the band inside: −1, or 1 as those of the release, which gives solids a second surface.
    """

    def __init__(self, radius: float, band: float = 4.0, far: float = -1.0) -> None:
        inner = sdf_vae()
        super().__init__(inner.encoder, inner.decoder, inner.normalization)
        self.radius, self.own_band, self.far = radius, band, far

    def decode(self, latent: Any, **options: Any) -> DecodedSDF:
        grid = children(latent.grid, factor=8)
        size, side = grid.frame.voxel_size[0], grid.resolution[0]
        middle = torch.tensor([(a + b) / 2 for a, b in zip(*grid.frame.bounds(grid.resolution), strict=True)])
        distance = ((grid.frame.centers(grid.cells) - middle).norm(dim=1) / size - self.radius * side / 2) / self.own_band
        values = torch.where(distance < -1, torch.full_like(distance, self.far), distance.clamp(-1, 1))[:, None]
        features = SparseTensor(grid, torch.zeros(len(grid), 2)) if options.get("features") else None
        return DecodedSDF(SparseTensor(grid, values), (), (), features, options.get("band") or 4.0)


class BallSigns(SignRefiner):
    """Knows on which side of a ball cells are."""

    def __init__(self, radius: float) -> None:
        super().__init__(sign_refiner().unet3d1, patch_size=16)
        self.radius = radius

    def outside(self, field: SparseTensor, *, repeats: Tensor | None = None, progress: bool = False) -> Tensor:
        side = field.grid.resolution[0] // 2
        axis = (torch.arange(side) + 0.5) / side * 2 - 1
        distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
        return (distance > self.radius).expand(field.grid.batch_size, side, side, side)


def ball_cells(side: int, radius: float) -> Tensor:
    """(1, side, side, side) bool: cells of a coarse grid near a ball's surface; radius in halves of the side."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    return ((distance - radius).abs() < 2 / side)[None]


def tokens(count: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def balls(compat: Any = None, count: int = 1, **changes: Any) -> Direct3DS2Pipeline:
    """A ball of 0.6 of the cube; the fine stage sees one of 0.95 of it, as a coarse mesh is brought to that size."""
    parts: dict[str, Any] = {
        "structure_vae": GivenStructure(ball_cells(4, 0.6).expand(count, -1, -1, -1)),
        "vaes": {32: BallVAE(0.6), 64: BallVAE(0.95)},
        "levels": {"coarse": 0.0, "fine": 0.0},
        "compat": compat,
        **changes,
    }
    return tiny(**parts)
