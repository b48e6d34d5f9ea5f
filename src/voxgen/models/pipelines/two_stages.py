"""TwoStagePipeline: what TRELLIS, Focusing and Sparse-Up share: a structure, then a latent on its cells."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.attention import Context
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.checks import describe, require_choice
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.frame import UpAxis
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, Sampler
from voxgen.flow.samplers import Callback
from voxgen.models.image_condition import Picture, System
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.latent_flow import LatentFlow, PatchedLatentFlow
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.structure import StructureDecoder, StructureFlow, StructureVAE

from .conditions import Conditioners, stage_conditions
from .folder import PipelineFolder
from .saving import SavedInFolder
from .stages import Generators, StageCallback, repeated, sample_latent, sample_structure, warn_if_empty

__all__ = ["STAGES", "TwoStagePipeline", "trellis_samplers"]

P = TypeVar("P", bound="TwoStagePipeline")

STAGES = ("structure", "latent")
"""By these names a pipeline knows samplers, image encoders and tokens of its stages."""


def trellis_samplers() -> dict[str, Sampler]:
    """The samplers of TRELLIS' released image-large pipeline by stage. Its guidance strength 5 is 6 here (1 + w)."""
    return dict.fromkeys(STAGES, EulerSampler(25, 3.0, guidance=ClassifierFreeGuidance(1 + 5.0, (0.5, 1.0))))


@dataclass(frozen=True, eq=False)
class TwoStagePipeline(SavedInFolder):
    """Base of pipelines of two flows. Subclasses add decoders, `generate`, and the words `kind` and `networks`.

    Networks run where they are and as they are: move them to a device and call `.eval()` first.

    Args:
        structure_flow, structure_decoder: of the occupancy of the latent's grid, or of a finer one; both or neither.
        latent_flow: makes latents on the occupied cells, on a grid of its `resolution`.
        normalization: of the latents that the flow makes.
        samplers: by stage.
        image_encoder: of pictures, one or by stage ("structure", "latent"); None: tokens only.
        structure_normalization: of the latents that structure_flow makes; None where there is none, as in the published systems.
        system: whose preparation of pictures, see `prepare_image`.
        up: the axis that points up in what the networks were trained on.
    Raises:
        RangeError: only one half of the first stage, no sampler for a stage, grids that do not fit each other.   ShapeError: widths
        that do not fit.   DtypeError: a network of another class.
    """

    kind: ClassVar[str]
    """What folders call the pipeline."""
    networks: ClassVar[Mapping[str, type[nn.Module] | tuple[type[nn.Module], ...]]] = {
        "structure_flow": StructureFlow,
        "structure_decoder": (StructureDecoder, StructureVAE),
        "latent_flow": (LatentFlow, PatchedLatentFlow),
    }
    """Fields that hold networks, and of which classes."""

    structure_flow: StructureFlow | None
    structure_decoder: StructureDecoder | StructureVAE | None
    latent_flow: LatentFlow | PatchedLatentFlow
    normalization: LatentNormalization = field(kw_only=True)
    samplers: Mapping[str, Sampler] = field(default_factory=trellis_samplers, kw_only=True)
    image_encoder: Conditioners = field(default=None, kw_only=True)
    structure_normalization: LatentNormalization | None = field(default=None, kw_only=True)
    system: System = field(default="trellis", kw_only=True)
    up: UpAxis = field(default="y", kw_only=True)

    def __post_init__(self) -> None:
        where, flow, decoder = type(self).__name__, self.structure_flow, self.structure_decoder
        require_choice(where, "up", self.up, ("y", "z"))
        require_choice(where, "system", self.system, get_args(System))
        for name, classes in self.networks.items():
            found = getattr(self, name)
            if not isinstance(found, classes) and not (found is None and name != "latent_flow"):
                wanted = " or ".join(c.__name__ for c in (classes if isinstance(classes, tuple) else (classes,)))
                raise DtypeError(f"{where}: {name} must be a {wanted}; got {describe(found)}.")
        if (flow is None) != (decoder is None):
            raise RangeError(f"{where}: structure_flow and structure_decoder come together; got one of them.")
        missing = [stage for stage in self.stages if stage not in self.samplers]
        if missing:
            raise RangeError(f"{where}: samplers must have one for {missing[0]!r}; got those for {list(self.samplers)}.")
        made = self.latent_flow.out_channels
        for name, width in {"normalization": self.normalization.channels, **self.latent_widths()}.items():
            if width != made:
                raise ShapeError(f"{where}: {name} must have the {made} channels that latent_flow makes; it has {width}.")
        if flow is None or decoder is None:
            return
        network = decoder.decoder if isinstance(decoder, StructureVAE) else decoder
        if network.latent_channels != flow.in_channels:
            raise ShapeError(
                f"{where}: structure_decoder must read the {flow.in_channels} channels that structure_flow makes; it reads "
                f"{network.latent_channels}."
            )
        own = self.structure_normalization
        if own is not None and own.channels != flow.in_channels:
            raise ShapeError(
                f"{where}: structure_normalization must have the {flow.in_channels} channels of structure_flow; it has {own.channels}."
            )
        cells, side = flow.resolution * network.factor, self.latent_flow.resolution
        if cells % side:
            raise RangeError(f"{where}: latent_flow's {side} cells along a side must divide the {cells} of the decoded structure.")

    @property
    def stages(self) -> tuple[str, ...]:
        """The flows that there are."""
        return STAGES if self.structure_flow is not None else STAGES[1:]

    @abstractmethod
    def latent_widths(self) -> dict[str, int]:
        """Width of the latent that each decoder reads."""

    def _in_folder(self) -> PipelineFolder:
        from .two_stages_folder import in_folder

        return in_folder(self)

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
        """The pipeline that `save_folder` wrote, its networks in evaluation mode.

        Args:
            path: the folder.
            device: where parameters are made; None is the CPU.
            dtype: of the matrices and convolutions inside the blocks, in place of what the files say.
            image_encoder: in place of those in the folder.
            verify: compare the checksums of all files.
        Raises:
            FileNotFoundError: no such folder, or a file is missing.   FileFormatError: another pipeline, or a damaged file.
            CheckpointError: weights that do not fit their configuration.
        """
        from .two_stages_folder import read_pipeline

        return read_pipeline(cls, path, device=device, dtype=dtype, image_encoder=image_encoder, verify=verify)

    def sample_structure(
        self,
        condition: Context,
        *,
        noise: Float[Tensor, "b c x y z"] | None = None,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> VoxelGrid:
        """Occupied cells on the grid of the latent.

        Args:
            condition: tokens of objects, (b, m, c) or a list.
            noise: the start; None draws it.
            samples: structures of each object; those of one stand side by side.
            generator: of the noise: one, or one for each structure, which is then the same alone and in any batch.
            progress: show a bar.
            callback: called with the sampler's state after each step.
        Raises:
            RangeError: a pipeline without the first stage.   ShapeError: noise that does not fit.
        """
        where = f"{type(self).__name__}.sample_structure"
        if self.structure_flow is None or self.structure_decoder is None:
            raise RangeError(f"{where}: this pipeline has no structure_flow; give it one, or give the cells.")
        return sample_structure(
            where,
            self.structure_flow,
            self.structure_decoder,
            self.samplers["structure"],
            repeated(where, condition, samples),
            side=self.latent_flow.resolution,
            noise=noise,
            normalization=self.structure_normalization,
            up=self.up,
            generator=generator,
            progress=progress,
            callback=callback,
        )

    def sample_latent(
        self,
        grid: VoxelGrid,
        condition: Context,
        *,
        noise: SparseTensor | None = None,
        generator: Generators = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> SparseTensor:
        """Latent on given cells, not normalised.

        Args:
            grid: of b objects.
            condition: tokens of as many objects.
            noise: the start, on the cells of the grid; None draws it.
            generator, progress, callback: as in `sample_structure`.
        Raises:
            ShapeError: noise or tokens that do not fit the grid.
        """
        return sample_latent(
            f"{type(self).__name__}.sample_latent",
            self.latent_flow,
            self.samplers["latent"],
            grid,
            condition,
            self.normalization,
            noise=noise,
            generator=generator,
            progress=progress,
            callback=callback,
        )

    def _generated(
        self,
        image: Picture | Sequence[Picture] | None,
        conditions: Context | Mapping[str, Context] | None,
        *,
        samples: int,
        generator: Generators,
        progress: bool,
        callback: StageCallback | None,
        remove_background: RemoveBackground | None,
        assume_foreground: bool,
    ) -> tuple[VoxelGrid, SparseTensor]:
        """Structure and latent of each sample of each picture."""
        where = f"{type(self).__name__}.generate"
        if self.structure_flow is None:
            raise RangeError(f"{where}: this pipeline has no structure_flow; give it one.")
        tokens = stage_conditions(
            where,
            STAGES,
            image,
            conditions,
            self.image_encoder,
            self.system,
            samples=samples,
            remove_background=remove_background,
            assume_foreground=assume_foreground,
        )
        first, second = (None if callback is None else partial(callback, stage) for stage in STAGES)
        structure = self.sample_structure(tokens["structure"], generator=generator, progress=progress, callback=first)
        warn_if_empty(where, structure, stacklevel=4)
        latent = self.sample_latent(structure, tokens["latent"], generator=generator, progress=progress, callback=second)
        return structure, latent
