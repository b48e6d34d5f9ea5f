"""SparseFlexVAE: what it refuses, and its examples."""

from __future__ import annotations

import doctest
from typing import Any, cast

import pytest
import torch
from sparse_flex_vae_cases import cloud_and_grid, latent_of, small

import voxgen
from voxgen import models
from voxgen.core import Selection, SparseTensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.models import (
    FlexDecoderConfig,
    FlexEncoderConfig,
    PointEncoderConfig,
    SparseFlexDecoder,
    SparseFlexEncoder,
    SparseFlexVAE,
    occupied_children,
)
from voxgen.representations import OrientedPoints
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import torus


@pytest.mark.parametrize(
    ("make", "fields", "words"),
    [
        (FlexDecoderConfig, {"model_channels": 36, "num_heads": 2}, "multiple of 8"),
        (FlexDecoderConfig, {"norm": "batch"}, "norm must be one of"),
        (FlexDecoderConfig, {"norm": "group", "num_groups": 7}, "num_groups must divide"),
        (FlexDecoderConfig, {"out_channels": 0}, "out_channels"),
        (FlexDecoderConfig, {"prune": 1}, "prune must be True or False"),
        (FlexEncoderConfig, {"num_heads": 5}, "num_heads must divide"),
        (FlexEncoderConfig, {"in_channels": 0}, "in_channels"),
        (FlexEncoderConfig, {"torso_dtype": "float8"}, "torso_dtype"),
        (PointEncoderConfig, {"compat": "trellis"}, "compat must be one of"),
        (PointEncoderConfig, {"use_normals": 1}, "use_normals must be"),
    ],
)
def test_configurations_that_make_no_network(make: Any, fields: dict[str, Any], words: str):
    with pytest.raises((RangeError, DtypeError), match=words):
        make(**fields)


def test_parts_that_do_not_fit(small_flex_vae: SparseFlexVAE):
    encoder = SparseFlexEncoder(FlexEncoderConfig(model_channels=16, num_blocks=1, num_heads=2, in_channels=9, latent_channels=4))
    with pytest.raises(ShapeError, match="width of a voxel's feature, 8; got 9"):
        SparseFlexVAE(small_flex_vae.points, encoder, small_flex_vae.decoder)
    decoder = SparseFlexDecoder(FlexDecoderConfig(model_channels=16, num_blocks=1, num_heads=2, latent_channels=5))
    with pytest.raises(ShapeError, match="must be the encoder's, 4; got 5"):
        SparseFlexVAE(small_flex_vae.points, small_flex_vae.encoder, decoder)
    with pytest.raises(ShapeError, match="normalisation must have 4 channels"):
        SparseFlexVAE(small_flex_vae.points, small_flex_vae.encoder, small_flex_vae.decoder, models.LatentNormalization((0.0,), (1.0,)))


def test_bad_input(small_flex_vae: SparseFlexVAE):
    cloud, grid = cloud_and_grid()
    z = small_flex_vae.encode(cloud, grid).z
    structures = small_flex_vae.decode(z).structures
    with pytest.raises(DtypeError, match="must be OrientedPoints"):
        small_flex_vae.encode(cloud.points, grid)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="without sample=True"):
        small_flex_vae.encode(cloud, grid, generator=torch.Generator())
    with pytest.raises(RangeError, match="each point must lie in a voxel"):
        small_flex_vae.encode(cloud, grid.select((grid.cells != grid.frame.to_cell(cloud.points[:1])).any(1)))
    with pytest.raises(ShapeError, match="offsets must be"):
        small_flex_vae.encode(cloud, grid.sample(0))
    with pytest.raises(RangeError, match="points must be finite"):
        small_flex_vae.encode(cloud.replace(points=cloud.points / 0), grid)
    for factor in (0.0, float("nan")):
        with pytest.raises(RangeError, match="factor must be positive"):
            small_flex_vae.decode(z, factor=factor)
    with pytest.raises(RangeError, match="latent must be finite"):
        small_flex_vae.decode(z.with_feats(z.feats / 0))
    with pytest.raises(DtypeError, match="what encode gives"):
        small_flex_vae.decode(z.feats)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="4 channels"):
        small_flex_vae.decode(z.with_feats(z.feats[:, :3]))
    with pytest.raises(ShapeError, match="select must be"):
        small_flex_vae.decode(z, select=torch.ones(3, dtype=torch.bool))
    with pytest.raises(DtypeError, match="select must be"):
        small_flex_vae.decode(z, select=torch.arange(len(z)))
    with pytest.raises(DtypeError, match="select must be"):
        small_flex_vae.decode(z, select=[True])  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="same cells"):
        small_flex_vae.decode(z, select=Selection.all(latent_of(7).grid))
    with pytest.raises(ShapeError, match="2 entries"):
        small_flex_vae.decode(z, structure=structures[:1])
    with pytest.raises(RangeError, match="coarse to fine"):
        small_flex_vae.decode(z, structure=structures[::-1])
    with pytest.raises(RangeError, match="tile"):
        small_flex_vae.decode(z, tile=0)
    broken = small().requires_grad_(False)
    cast(Any, broken.decoder.upsample[0]).predict[2].bias.fill_(float("nan"))
    with pytest.raises(RangeError, match="logits of step 0 must not be NaN"):
        broken.decode(z)


@pytest.mark.parametrize("item", [SparseFlexVAE, SparseFlexEncoder, SparseFlexDecoder, occupied_children])
def test_examples(item: Any):
    names = {"voxgen": voxgen, "torch": torch, "OrientedPoints": OrientedPoints, "mesh": torus(), **vars(models)}
    cloud, grid = cloud_and_grid()
    sparse = random_grid((20,), 8)
    names |= {"x": SparseTensor(sparse, torch.randn(20, 16)), "z": SparseTensor(sparse, torch.randn(20, 4))}
    names |= {"vae": small(), "cloud": cloud, "grid": grid}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs=names)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
