"""Direct3D-S2's pipeline refuses requests, and parts that do not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from models.direct3d_s2_pipeline_cases import SAMPLERS, WIDTH, tiny, tokens  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.models import SmallImageEncoder, build
from voxgen.testing.grids import random_grid


def test_bad_requests() -> None:
    pipeline = tiny()
    with pytest.raises(RangeError, match=r"resolution must be one of \[32, 64\]; got 512"):
        pipeline.generate(conditions=tokens(), resolution=512)
    with pytest.raises(RangeError, match="neither"):
        pipeline.generate()
    with pytest.raises(RangeError, match="both"):
        pipeline.generate(np.zeros((4, 4, 4), dtype=np.uint8), conditions=tokens())
    with pytest.raises(RangeError, match="no image_encoder"):
        pipeline.generate(np.full((40, 40, 4), 255, dtype=np.uint8))
    with pytest.raises(RangeError, match="conditions must have tokens for 'fine'"):
        pipeline.generate(conditions={"structure": tokens(), "coarse": tokens()})
    with pytest.raises(ShapeError, match="as many objects"):
        pipeline.generate(conditions={"structure": tokens(), "coarse": tokens(2), "fine": tokens()})
    with pytest.raises(RangeError, match="samples"):
        pipeline.generate(conditions=tokens(), samples=0)
    grid = random_grid((20,), 4)
    with pytest.raises(RangeError, match="8 cells a side"):
        pipeline.sample_latent(grid, 64, tokens())
    with pytest.raises(ShapeError, match="condition must be of the grid's 1 samples; got 2"):
        pipeline.sample_latent(grid, 32, tokens(2))
    with pytest.raises(ShapeError, match="noise must have 4 channels"):
        pipeline.sample_latent(grid, 32, tokens(), noise=SparseTensor(grid, torch.zeros(20, 3)))
    with pytest.raises(RangeError, match="finite"):
        pipeline.decode(SparseTensor(grid, torch.full((20, 4), torch.nan)), 32)


def test_parts_that_do_not_fit() -> None:
    good = tiny()
    with pytest.raises(RangeError, match="same resolutions"):
        dataclasses.replace(good, vaes={32: good.vaes[32]})
    with pytest.raises(RangeError, match="same resolutions"):
        dataclasses.replace(good, flows={}, vaes={})
    with pytest.raises(RangeError, match="must work on 32 cells a side; got 4"):
        dataclasses.replace(good, flows={256: good.flows[32]}, vaes={256: good.vaes[32]})
    with pytest.raises(ShapeError, match="must make the 8 channels"):
        dataclasses.replace(good, vaes={32: build("voxgen/sdf-vae-small"), 64: good.vaes[64]})
    with pytest.raises(ShapeError, match="structure_vae must read the 3 channels"):
        dataclasses.replace(good, structure_vae=build("voxgen/structure-vae-small"))
    with pytest.raises(RangeError, match="must divide the 4"):
        dataclasses.replace(good, flows={64: good.flows[64]}, vaes={64: good.vaes[64]})
    with pytest.raises(RangeError, match="image_system must be one of"):
        dataclasses.replace(good, image_system="dall-e")  # pyright: ignore[reportArgumentType]
    small = SmallImageEncoder(image_size=32, channels=WIDTH, model_channels=16, halvings=3, num_blocks=0)
    with pytest.raises(RangeError, match="'direct3d-s2', which alone makes masks, for the sparse conditions of 'coarse'; got 'trellis'"):
        tiny("1.0", image_encoder=small, image_system="trellis")
    assert tiny("1.0", image_system="trellis").image_encoder is None, "tokens do not need masks"

    class Foreign:
        image_size, channels = 32, WIDTH

        def tokens(self, images: torch.Tensor) -> torch.Tensor:
            return images

    with pytest.raises(DtypeError, match="'coarse' must say patch"):
        tiny("1.0", image_encoder={"structure": Foreign(), "coarse": Foreign(), "fine": small})
    with pytest.raises(RangeError, match="samplers must have one for 'fine'"):
        dataclasses.replace(good, samplers={"structure": SAMPLERS["structure"], "coarse": SAMPLERS["coarse"]})
    with pytest.raises(RangeError, match="levels must have one for 'coarse'"):
        dataclasses.replace(good, levels={"fine": 0.0})
    with pytest.raises(RangeError, match="shares of the band"):
        dataclasses.replace(good, levels={"coarse": 0.4, "fine": 1.0})
    with pytest.raises(RangeError, match="compat"):
        dataclasses.replace(good, compat="trellis")  # pyright: ignore[reportArgumentType]
