"""The examples in the docstrings run and give what they say."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch

import voxgen
from models.sc_vae_cases import decoder  # pyright: ignore[reportMissingImports]
from voxgen import models
from voxgen.models import build, checkpoints, sc_vae
from voxgen.representations import OVoxel
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import torus

OBJECTS = [
    *(getattr(models, name) for name in ("available", "build", "save_pretrained")),
    *(getattr(sc_vae, name) for name in ("SCEncoder", "SCDecoder", "SCVAE", "Tiling", "LatentNormalization")),
    checkpoints.load_trellis2,
]


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.__name__)
def test_examples(item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints.save_trellis2(decoder(), tmp_path / "decoder")
    vae: Any = build("voxgen/shape-vae-small", latent_channels=4)
    mesh = torus()
    ovoxel = OVoxel.from_mesh(mesh, resolution=16, materials=False)
    names = {"voxgen": voxgen, "torch": torch, "vae": vae, "mesh": mesh, "ovoxel": ovoxel, "grid": random_grid((30,), 16)}
    names.update(vars(models), SparseTensor=voxgen.core.SparseTensor, OVoxel=OVoxel, load_trellis2=checkpoints.load_trellis2)
    names.update(latent_grid=random_grid((5,), 4), latent=vae.encode(ovoxel), config=decoder().config)
    examples = doctest.DocTestFinder(recurse=False).find(item, globs=names)
    assert any(test.examples for test in examples)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in examples:
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
