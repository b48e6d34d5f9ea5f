"""The parts of transformers: times, positions, norms, full attention, against goldens, definitions and bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.attention import (
    FeedForward,
    MultiHeadRMSNorm,
    TimestepEmbedder,
    absolute_embedding,
    apply_rope,
    full_attention,
    grid_positions,
    rope_phases,
    timestep_features,
)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.testing.compare import assert_same

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden() -> tuple[dict, dict[str, torch.Tensor]]:
    with np.load(GOLDEN / "trellis2_structure_flow.npz") as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return json.loads((GOLDEN / "trellis2_structure_flow.json").read_text()), values


# --- time -----------------------------------------------------------------------------------------------------------


def test_timestep_features_of_the_original(golden) -> None:
    _, arrays = golden
    # Angles reach 1000 radians, where one unit in the last place of a float32 is 6e-5.
    assert_same(timestep_features(arrays["t"]), arrays["timestep_features"], "features", 1e-4)
    first = timestep_features(torch.tensor([500.0]))[0]
    expected = torch.tensor([-0.88384926, 0.99855685, -0.46777180, 0.05370453])
    assert_same(first[[0, 127, 128, 255]], expected, "published", 1e-4)


def test_timestep_embedder_works_in_the_dtype_of_its_weights() -> None:
    embedder = TimestepEmbedder(32)
    t = torch.tensor([0.0, 999.5])
    out = embedder(t)
    half = embedder.half()(t)
    assert half.dtype == torch.float16
    assert_same(half.float(), out, "half", 2e-3)  # half's precision on values of about 0.1, through two layers
    assert not torch.equal(out[0], out[1])
    assert embedder(torch.zeros(0)).shape == (0, 32)


def test_timesteps_in_bad_form() -> None:
    with pytest.raises(ShapeError, match="One time a sample"):
        timestep_features(torch.zeros(2, 1))
    with pytest.raises(DtypeError, match="float"):
        timestep_features(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(RangeError, match="even"):
        timestep_features(torch.zeros(2), 7)


# --- positions ------------------------------------------------------------------------------------------------------


def test_absolute_embedding_of_the_originals(golden) -> None:
    _, arrays = golden
    assert_same(absolute_embedding(arrays["rope_coords"], 64), arrays["absolute_embedding"], "embedding", 1e-5)
    code = absolute_embedding(torch.tensor([3, 5, 7]), 1024)
    assert_same(code[[0, 170, 340, 510]], torch.tensor([0.14112, -0.9899925, -0.95892427, 0.2836622]), "published", 1e-6)
    assert torch.equal(code[-4:], torch.zeros(4))
    assert code.sum().item() == pytest.approx(480.2622, abs=1e-3)
    assert absolute_embedding(torch.tensor([3, 5, 7]), 512).sum().item() == pytest.approx(239.3766, abs=1e-3)


def test_rope_of_the_original(golden) -> None:
    description, arrays = golden
    coords = arrays["rope_coords"]
    for width in (32, 128):
        assert_same(rope_phases(coords, width), arrays[f"rope_phases_{width}"], f"phases of {width}", 1e-6)
    q = torch.from_numpy(recipe.normal("rope_q", (1, 6, 2, 32), description["seed"]))
    assert_same(apply_rope(q, rope_phases(coords, 32)), arrays["rope_rotated"], "rotated", 1e-5)


def test_rope_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 24, dtype=torch.float64)
    near = torch.tensor([[3.0, 1.0, 4.0], [5.0, 9.0, 2.0]], dtype=torch.float64)

    def score(positions: torch.Tensor) -> torch.Tensor:
        phases = rope_phases(positions, 24)
        return (apply_rope(q, phases[:1]) * apply_rope(k, phases[1:])).sum()

    assert_same(score(near + torch.tensor([7.0, -2.0, 11.0])), score(near), "moved", 1e-12)
    assert abs(score(near) - score(near * 2)) > 1e-3


def test_rope_keeps_dtype_and_takes_phases_of_a_batch() -> None:
    x = torch.randn(2, 5, 3, 16)
    phases = rope_phases(torch.randint(0, 9, (2, 5, 3)), 16)
    turned = apply_rope(x, phases)
    assert_same(apply_rope(x[1], phases[1]), turned[1], "one sample", 0)
    assert_same(turned.norm(dim=-1), x.norm(dim=-1), "length", 1e-5)
    assert apply_rope(x.bfloat16(), phases).dtype == torch.bfloat16


def test_grid_positions_count_x_slowest() -> None:
    positions = grid_positions(3)
    assert positions[[1, 3, 9]].tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_positions_in_bad_form() -> None:
    with pytest.raises(ShapeError, match="batch column"):
        absolute_embedding(torch.zeros(5, 4, dtype=torch.int32), 64)
    with pytest.raises(RangeError, match="at least 6"):
        absolute_embedding(torch.zeros(5, 3), 5)
    with pytest.raises(RangeError, match="pairs"):
        rope_phases(torch.zeros(5, 3), 13)
    with pytest.raises(RangeError, match="positive"):
        rope_phases(torch.zeros(5, 3), 12, (1.0, 0.0))
    with pytest.raises(ShapeError, match="rope_phases"):
        apply_rope(torch.zeros(1, 4, 2, 12), rope_phases(torch.zeros(5, 3), 12))


# --- norm and feed-forward ------------------------------------------------------------------------------------------


def test_rms_norm_by_its_definition() -> None:
    norm = MultiHeadRMSNorm(6, 2).double()
    torch.nn.init.normal_(norm.gamma)
    x = torch.randn(3, 4, 2, 6, dtype=torch.float64)
    x[0, 0, 0] = 0
    expected = x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-300) * norm.gamma
    assert_same(norm(x), expected, "norm", 1e-12)
    assert torch.autograd.gradcheck(lambda a: norm(a), x[1:2].requires_grad_())


def test_rms_norm_in_half_precision_is_rounded_once() -> None:
    norm = MultiHeadRMSNorm(64, 2)
    x = torch.randn(5, 2, 64).half() * 200  # squares overflow half precision
    assert_same(norm(x), norm(x.float()).half(), "half", 0)
    with pytest.raises(ShapeError, match=r"\(2, 64\)"):
        norm(x[:, :1])


def test_feed_forward_takes_tokens_of_either_kind() -> None:
    layer = FeedForward(6, 5.3334)
    assert layer.mlp[0].out_features == 32  # int(), as the released widths need: 1536 · 5.3334 → 8192
    grid, _ = VoxelGrid.build(torch.tensor([[0, 1, 2, 3], [1, 0, 0, 0]], dtype=torch.int32), resolution=4)
    feats = torch.randn(2, 6)
    sparse = layer(SparseTensor(grid, feats))
    assert sparse.grid is grid
    assert_same(sparse.feats, layer(feats), "feats", 0)
    with pytest.raises(RangeError, match="ratio"):
        FeedForward(6, 0.1)


# --- full attention -------------------------------------------------------------------------------------------------


def by_definition(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    group = q.shape[2] // k.shape[2]
    out = torch.empty(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for h in range(q.shape[2]):
        weights = torch.softmax(scale * q[:, :, h] @ k[:, :, h // group].mT, -1)
        out[:, :, h] = weights @ v[:, :, h // group]
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_full_attention_by_its_definition(heads: int, kv_heads: int) -> None:
    q = torch.randn(2, 5, heads, 8, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 7, kv_heads, 8, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 7, kv_heads, 8, dtype=torch.float64, requires_grad=True)
    out = full_attention(q, k, v)
    expected = by_definition(q, k, v, 1 / math.sqrt(8))
    assert_same(out, expected, "out", 1e-12)
    given = torch.randn_like(out)
    for name, a, b in zip("qkv", torch.autograd.grad(out, (q, k, v), given), torch.autograd.grad(expected, (q, k, v), given), strict=True):
        assert_same(a, b, f"gradient of {name}", 1e-12)
    assert_same(full_attention(q, k, v, scale=0.3), by_definition(q, k, v, 0.3), "scale", 1e-12)


def test_full_attention_without_keys_queries_or_samples() -> None:
    q, k = torch.randn(2, 5, 4, 8), torch.randn(2, 0, 4, 8)
    assert torch.equal(full_attention(q, k, k), torch.zeros(2, 5, 4, 8))
    assert full_attention(q[:, :0], q, q).shape == (2, 0, 4, 8)
    assert full_attention(q[:0], q[:0], q[:0]).shape == (0, 5, 4, 8)


def test_full_attention_in_bad_form() -> None:
    q = torch.randn(2, 5, 4, 8)
    with pytest.raises(RangeError, match="divide"):
        full_attention(q, q[:, :, :3], q[:, :, :3])
    with pytest.raises(ShapeError, match="k must be"):
        full_attention(q, q[:1], q[:1])
    with pytest.raises(ShapeError, match="v must be"):
        full_attention(q, q, q[:, :4])
    with pytest.raises(DtypeError, match="float32"):
        full_attention(q, q.half(), q.half())
