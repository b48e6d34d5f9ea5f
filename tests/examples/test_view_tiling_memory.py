"""The example that measures the memory of a training step by tiles."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import view_tiling_memory as example


def gradients(source: str, tiles: int) -> tuple[float, torch.Tensor]:
    torch.manual_seed(0)
    model = example.Decoder(16, 8)
    loss = example.step(model, example.scene(16, 48), source, tiles)
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_tiles_change_neither_loss_nor_gradient() -> None:
    loss, expected = gradients("gt", 1)
    for tiles in (2, 4):
        own, found = gradients("gt", tiles)
        assert own == pytest.approx(loss, rel=1e-6)
        # float32 sums in another order
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    more, _ = gradients("all", 1)
    assert more != loss


def test_the_law_is_fitted() -> None:
    assert example.fit([41.577, 27.881, 24.541]) == pytest.approx((23.3, 18.3), abs=0.2)  # the first two alone give these


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc, which is Linux")
def test_a_step_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = example.main(["--resolutions", "16", "--channels", "8", "--step", "mask, 2 × 2 tiles"])
    assert set(found) == {"peak_MB", "loss", "gradient"}
    assert '"loss"' in capsys.readouterr().out
