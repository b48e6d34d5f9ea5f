"""TrellisPipeline: picture → structure → structured latent → Gaussians and mesh."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch

from voxgen.attention import Context
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.checks import require_choice
from voxgen.core.errors import RangeError
from voxgen.core.frame import UpAxis
from voxgen.models.image_condition import Picture
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.slat import SLatGaussianDecoder, SLatMeshDecoder
from voxgen.representations import GaussianSplats, SparseFlex

from .conditions import Conditioners
from .folder import read_manifest
from .stages import Generators, StageCallback
from .trellis_release import read_released
from .two_stages import TwoStagePipeline

__all__ = ["TRELLIS_LATENTS", "GeneratedTrellis", "TrellisPipeline"]

P = TypeVar("P", bound="TrellisPipeline")
Output = Literal["splats", "mesh"]

TRELLIS_LATENTS = LatentNormalization(
    mean=(-2.16875458, -0.00434705, -0.13352349, -0.08418073, -0.52712065, 0.72386891, -1.14144504, 1.20393634),
    std=(2.37765074, 2.38637829, 2.12441802, 2.17485523, 2.66394472, 2.37119222, 2.62174463, 2.68452311),
)
"""Of the structured latents of TRELLIS' released autoencoder."""


@dataclass(frozen=True, eq=False)
class GeneratedTrellis:
    """What a generation gave; b objects in one batch.

    Attributes:
        structure: the cells of the first stage.
        latent: on them, not normalised.
        splats: Gaussians of all objects (`splats.sample(i)` is one); None where they were not asked for, or there is no decoder.
        flex: the field of the surfaces; None likewise.
    """

    structure: VoxelGrid
    latent: SparseTensor
    splats: GaussianSplats | None = None
    flex: SparseFlex | None = None

    @cached_property
    def mesh(self) -> TriMesh | None:
        """The surfaces in one mesh, a part for each object."""
        return None if self.flex is None else self.flex.to_mesh()

    @cached_property
    def meshes(self) -> tuple[TriMesh, ...]:
        """A mesh for each object; () without a mesh decoder."""
        return () if self.flex is None else self.flex.to_meshes()


@dataclass(frozen=True, eq=False)
class TrellisPipeline(TwoStagePipeline):
    """The two stages of TRELLIS over networks of any size.

    Every stage is a method, and `generate` calls them in turn.

    Args:
        gaussian_decoder, mesh_decoder: of the latent; either may be missing.
        normalization: by default that of the released autoencoder.
        up: by default "z", as TRELLIS' data.
        closed: close surfaces where cells end, as TRELLIS' dense extraction does (`SparseFlex.enclosed`).
        structure_flow, structure_decoder, latent_flow, samplers, image_encoder, structure_normalization, system: see `TwoStagePipeline`.
    Raises: as `TwoStagePipeline`; RangeError: a decoder of a coarser grid than the flow's.
    Source: TRELLIS (arXiv 2412.01506), image-to-3D. Differences: several samples and several pictures in one batch, and a sample is the
        same alone and in any batch; an empty structure gives an empty result and a warning; meshes have no colours, and no radiance
        field is decoded.
    Example:
        >>> pipeline = TrellisPipeline.from_folder("TRELLIS-image-large", device="cuda")                  # doctest: +SKIP
        >>> made = pipeline.generate(conditions=tokens, generator=torch.Generator().manual_seed(1))       # doctest: +SKIP
        >>> made.splats.save_ply("chair.ply")                                                             # doctest: +SKIP
    """

    kind: ClassVar[str] = "trellis"
    networks: ClassVar[Any] = {
        **TwoStagePipeline.networks,
        "gaussian_decoder": SLatGaussianDecoder,
        "mesh_decoder": SLatMeshDecoder,
    }

    gaussian_decoder: SLatGaussianDecoder | None = None
    mesh_decoder: SLatMeshDecoder | None = None
    normalization: LatentNormalization = field(default=TRELLIS_LATENTS, kw_only=True)
    up: UpAxis = field(default="z", kw_only=True)
    closed: bool = field(default=True, kw_only=True)

    @classmethod
    def from_folder(
        cls: type[P],
        path: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        image_encoder: Conditioners = None,
        verify: bool = True,
    ) -> P:
        """The pipeline in a folder that `save_folder` wrote, or in a copy of microsoft/TRELLIS-image-large, in evaluation mode.

        Args:
            path: the folder. In the released layout pipeline.json names NAME.json and NAME.safetensors of each network; radiance fields
                and encoders are left out.
            device: where parameters are made; None is the CPU.
            dtype: of the matrices and convolutions inside the blocks, in place of what the files say (float16 as released):
                torch.float32 on a CPU.
            image_encoder: of pictures: for the released weights `DINOv2Encoder("folder of DINOv2 ViT-L with registers")`.
            verify: compare the checksums of files that `save_folder` wrote.
        Raises:
            FileNotFoundError: no such folder, or a file is missing.   FileFormatError: another pipeline, or a damaged file.
            CheckpointError: weights that do not fit their configuration.
        """
        where, folder = f"{cls.__name__}.from_folder", Path(os.fspath(path))
        manifest = read_manifest(where, folder)
        if "voxgen.pipeline" not in manifest:
            return cls(**read_released(where, folder, manifest, device, dtype), image_encoder=image_encoder)
        return super().from_folder(path, device=device, dtype=dtype, image_encoder=image_encoder, verify=verify)

    def __post_init__(self) -> None:
        super().__post_init__()
        side = self.latent_flow.resolution
        for name, decoder in (("gaussian_decoder", self.gaussian_decoder), ("mesh_decoder", self.mesh_decoder)):
            if decoder is not None and decoder.config.resolution < side:
                raise RangeError(
                    f"TrellisPipeline: {name} must take the {side} cells along a side that latent_flow makes latents on; it takes at most "
                    f"{decoder.config.resolution}."
                )

    def latent_widths(self) -> dict[str, int]:
        """See `TwoStagePipeline`."""
        decoders = {"gaussian_decoder": self.gaussian_decoder, "mesh_decoder": self.mesh_decoder}
        return {name: decoder.config.in_channels for name, decoder in decoders.items() if decoder is not None}

    @torch.no_grad()
    def decode(self, latent: SparseTensor, outputs: Sequence[Output] | None = None) -> GeneratedTrellis:
        """Latent → Gaussians, and the field of a surface.

        Args:
            latent: not normalised.
            outputs: of "splats" and "mesh"; None: all that there are decoders for.
        Raises:
            RangeError: an output without a decoder.
        """
        where = "TrellisPipeline.decode"
        gaussian, mesh = self.gaussian_decoder, self.mesh_decoder
        known = {"splats": gaussian, "mesh": mesh}
        wanted = [name for name, decoder in known.items() if decoder is not None] if outputs is None else list(outputs)
        for name in wanted:
            require_choice(where, "outputs", name, tuple(known))
            if known[name] is None:
                raise RangeError(f"{where}: there is no decoder for {name!r}; give the pipeline one.")
        splats = gaussian.splats(latent) if gaussian is not None and "splats" in wanted else None
        flex = mesh.flex(latent) if mesh is not None and "mesh" in wanted else None
        return GeneratedTrellis(latent.grid, latent, splats, flex.enclosed() if flex is not None and self.closed else flex)

    def generate(
        self,
        image: Picture | Sequence[Picture] | None = None,
        *,
        conditions: Context | Mapping[str, Context] | None = None,
        samples: int = 1,
        outputs: Sequence[Output] | None = None,
        generator: Generators = None,
        progress: bool = False,
        callback: StageCallback | None = None,
        remove_background: RemoveBackground | None = None,
        assume_foreground: bool = False,
    ) -> GeneratedTrellis:
        """Picture → asset.

        Args:
            image: a picture, or a list of several.
            conditions: tokens (b, m, c) in place of a picture, for both stages or by stage.
            samples: objects of each picture; those of one stand side by side.
            outputs: see `decode`.
            generator: of all noise, structure first: one, or one for each of the b · samples objects.
            progress: show bars.
            callback: called after each step with the stage's name and the sampler's state.
            remove_background, assume_foreground: see `prepare_image`.
        Raises:
            RangeError: neither a picture nor tokens, or both; a picture without an encoder.   Others as `prepare_image`.
        Warns:
            EmptyResultWarning: an object without an occupied cell; it is empty.
        """
        _, latent = self._generated(
            image,
            conditions,
            samples=samples,
            generator=generator,
            progress=progress,
            callback=callback,
            remove_background=remove_background,
            assume_foreground=assume_foreground,
        )
        return self.decode(latent, outputs)
