"""Training of an image encoder: what it is asked, and the run at its smallest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
import train_image_encoder  # noqa: E402
from train_image_encoder import SIDE, Training, target  # noqa: E402
from training.latents import LatentBatch  # noqa: E402

from voxgen.core import VoxelGrid  # noqa: E402
from voxgen.models import SmallImageEncoder, load_pretrained  # noqa: E402
from voxgen.representations import OVoxel  # noqa: E402


def ovoxel_of(cells: list[list[int]], colors: list[list[float]]) -> OVoxel:
    """Cells of a cube of 32³, each in a colour."""
    coords = torch.tensor([[0, *c] for c in cells], dtype=torch.int32)
    grid, rows = VoxelGrid.build(coords, resolution=32)
    paint = torch.tensor(colors)[rows]
    count = len(cells)
    return OVoxel(grid, torch.full((count, 3), 0.5), torch.zeros(count, 3, dtype=torch.bool), materials={"base_color": paint})


def test_targets_by_hand() -> None:
    # a query's cube is 4 cells of 32³ along a side, and each of its 2³ cells is 2
    said = target(ovoxel_of([[0, 0, 0], [1, 1, 3], [31, 0, 5]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.2, 0.4, 0.6]]))
    assert said.shape == (11, SIDE, SIDE, SIDE)
    cells = said[:8]
    assert cells.sum() == 3
    assert cells[0, 0, 0, 0] == 1  # (0, 0, 0) in the lower half of every axis
    assert cells[1, 0, 0, 0] == 1  # z = 3 is in the upper half: the last axis runs fastest
    assert cells[4, 7, 0, 1] == 1  # x = 31 in the upper half, z = 5 in the lower half of its cube
    torch.testing.assert_close(said[8:, 0, 0, 0], torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(said[8:, 7, 0, 1], torch.tensor([0.2, 0.4, 0.6]))
    assert float(said[8:].sum()) == pytest.approx(1.0 + 1.2)


def test_the_encoder_learns_to_tell_pictures_apart() -> None:
    torch.manual_seed(0)
    encoder = SmallImageEncoder(32, 16, 16, halvings=2, num_blocks=1, num_heads=2)
    module = Training(encoder, width=32)
    slabs = [[[x, y, z] for x in (8 * i, 8 * i + 2, 8 * i + 4) for y in range(0, 32, 2) for z in range(0, 32, 2)] for i in range(4)]
    truth = torch.stack([target(ovoxel_of(slab, [[i / 4, 0.5, 0.0]] * len(slab))) for i, slab in enumerate(slabs)])
    images = (255 * torch.rand(4, 3, 32, 32)).to(torch.uint8)
    batch = LatentBatch(truth, images)
    optimizer = torch.optim.AdamW(module.parameters(), 5e-3)
    losses = []
    for _ in range(150):
        terms = module(batch, torch.Generator())
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        losses.append(terms.numbers()["total"])
    assert all(p.grad is not None for p in encoder.parameters())
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        right = module.answers(batch.pictures())[0] > 0
        wrong = module.answers(batch.pictures().roll(1, 0))[0] > 0
    there = truth[:, :8] > 0
    assert (right == there).float().mean() > 0.97  # it says where, and that by the picture alone: a slab is 3 in 16 of all cells
    assert (wrong == there).float().mean() < 0.75


def test_smallest_run_writes_an_encoder_and_goes_on(tmp_path: Path) -> None:
    whole = train_image_encoder.main(["--smallest", "--out", str(tmp_path / "whole")])
    assert 0 <= whole["iou"] <= 1
    assert isinstance(load_pretrained(tmp_path / "whole" / "image_encoder.safetensors"), SmallImageEncoder)
    assert (tmp_path / "whole" / "answers.png").stat().st_size > 1000
    again = train_image_encoder.main(["--smallest", "--resume", "--out", str(tmp_path / "whole")])
    assert again["steps"] == whole["steps"]
    assert again["iou"] == whole["iou"]
