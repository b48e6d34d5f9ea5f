"""TwoStagePipeline: what TRELLIS, Focusing and Sparse-Up share: a structure, then a latent on its cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from voxgen.attention import Context
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import RangeError, ShapeError
from voxgen.core.frame import UpAxis
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, Sampler
from voxgen.models.image_condition import Picture
from voxgen.models.image_condition.background import RemoveBackground
from voxgen.models.latent_flow import LatentFlow, PatchedLatentFlow
from voxgen.models.sc_vae import LatentNormalization
from voxgen.models.structure import StructureDecoder, StructureFlow, StructureVAE

from .conditions import Conditioners, stage_conditions
from .stages import Generators, repeated, sample_latent, sample_structure, warn_if_empty

__all__ = ["STAGES", "TwoStagePipeline", "trellis_samplers"]

STAGES = ("structure", "latent")
"""By these names a pipeline knows samplers, image encoders and tokens of its stages."""


def trellis_samplers() -> dict[str, Sampler]:
    """The samplers of TRELLIS' released image-large pipeline by stage. Its guidance strength 5 is 6 here (1 + w)."""
    return dict.fromkeys(STAGES, EulerSampler(25, 3.0, guidance=ClassifierFreeGuidance(1 + 5.0, (0.5, 1.0))))


@dataclass(frozen=True, eq=False)
class TwoStagePipeline(ABC):
    """Base of pipelines of two flows. Subclasses add decoders and `generate`.

    Networks run where they are and as they are: move them to a device and call `.eval()` first.

    Args:
        structure_flow, structure_decoder: of the occupancy of the latent's grid, or of a finer one; both or neither.
        latent_flow: makes latents on the occupied cells, on a grid of its `resolution`.
        normalization: of the latents that the flow makes.
        samplers: by stage.
        image_encoder: of pictures, one or by stage ("structure", "latent"); None: tokens only.
        up: the axis that points up in what the networks were trained on.
    Raises:
        RangeError: only one half of the first stage, no sampler for a stage, grids that do not fit each other.   ShapeError: widths
        that do not fit.
    """

    structure_flow: StructureFlow | None
    structure_decoder: StructureDecoder | StructureVAE | None
    latent_flow: LatentFlow | PatchedLatentFlow
    normalization: LatentNormalization = field(kw_only=True)
    samplers: Mapping[str, Sampler] = field(default_factory=trellis_samplers, kw_only=True)
    image_encoder: Conditioners = field(default=None, kw_only=True)
    up: UpAxis = field(default="y", kw_only=True)

    def __post_init__(self) -> None:
        where, flow, decoder = type(self).__name__, self.structure_flow, self.structure_decoder
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

    def sample_structure(
        self,
        condition: Context,
        *,
        noise: Float[Tensor, "b c x y z"] | None = None,
        samples: int = 1,
        generator: Generators = None,
        progress: bool = False,
    ) -> VoxelGrid:
        """Occupied cells on the grid of the latent.

        Args:
            condition: tokens of objects, (b, m, c) or a list.
            noise: the start; None draws it.
            samples: structures of each object; those of one stand side by side.
            generator: of the noise: one, or one for each structure, which is then the same alone and in any batch.
            progress: show a bar.
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
            up=self.up,
            generator=generator,
            progress=progress,
        )

    def sample_latent(
        self,
        grid: VoxelGrid,
        condition: Context,
        *,
        noise: SparseTensor | None = None,
        generator: Generators = None,
        progress: bool = False,
    ) -> SparseTensor:
        """Latent on given cells, not normalised.

        Args:
            grid: of b objects.
            condition: tokens of as many objects.
            noise: the start, on the cells of the grid; None draws it.
            generator, progress: as in `sample_structure`.
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
        )

    def _generated(
        self,
        image: Picture | Sequence[Picture] | None,
        conditions: Context | Mapping[str, Context] | None,
        samples: int,
        generator: Generators,
        progress: bool,
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
            "trellis",
            samples=samples,
            remove_background=remove_background,
            assume_foreground=assume_foreground,
        )
        structure = self.sample_structure(tokens["structure"], generator=generator, progress=progress)
        warn_if_empty(where, structure, stacklevel=4)
        return structure, self.sample_latent(structure, tokens["latent"], generator=generator, progress=progress)
