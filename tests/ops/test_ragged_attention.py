"""Full attention over ragged batches: against torch's own attention of each sample, libraries, operators, bad input."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from voxgen.core.errors import BackendUnavailable, DtypeError, RangeError, ShapeError
from voxgen.ops._registry import Call
from voxgen.ops.ragged_attention import RAGGED_ATTENTION, ragged_attention
from voxgen.ops.ragged_attention._flash_attn import attend as attend_flash
from voxgen.testing.cases.ragged_attention import bounds
from voxgen.testing.compare import difference

CPU = ["numba", "sdpa", "torch", "reference"]


def operands(rows: int, keys: int, heads: int, key_heads: int, width: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = (rows, heads), (keys, key_heads), (keys, key_heads)
    return [torch.randn(*shape, width).to(dtype).requires_grad_() for shape in shapes]


def dense(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Torch's own attention of one sample."""
    heads_first = (t.transpose(0, 1)[None] for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads_first, scale=scale, enable_gqa=True)[0].transpose(0, 1)


def assert_equal(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Values and gradients agree."""
    assert difference(actual, expected) < 1e-5
    upstream = torch.randn_like(expected)
    found = torch.autograd.grad(actual, inputs, upstream)
    wanted = torch.autograd.grad(expected, inputs, upstream, retain_graph=True)
    for a, e in zip(found, wanted, strict=True):
        assert difference(a, e) < 1e-5


@pytest.mark.parametrize("backend", CPU)
def test_full_attention_of_each_sample(backend: str) -> None:
    q, k, v = operands(150, 150, 6, 2, 20)
    expected = torch.cat([dense(q[a:b], k[a:b], v[a:b]) for a, b in ((0, 70), (70, 150))])
    assert_equal(ragged_attention(q, k, v, bounds([70, 0, 80]), backend=backend), expected, [q, k, v])


@pytest.mark.parametrize("backend", CPU)
def test_attention_to_another_batch(backend: str) -> None:
    q, k, v = operands(30, 25, 4, 4, 8)
    expected = torch.cat((dense(q[:10], k[:20], v[:20], 0.7), torch.zeros(8, 4, 8), dense(q[18:], k[20:], v[20:], 0.7)))
    actual = ragged_attention(q, k, v, bounds([10, 8, 12]), bounds([20, 0, 5]), scale=0.7, backend=backend)
    assert actual[10:18].eq(0).all()
    assert_equal(actual, expected, [q, k, v])


def test_key_heads_are_repeated_where_torch_does_not_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxgen.ops.ragged_attention._sdpa._shares_keys", lambda _: False)
    q, k, v = operands(30, 25, 6, 2, 8)
    expected = torch.cat((dense(q[:10], k[:20], v[:20]), dense(q[10:], k[20:], v[20:])))
    assert_equal(ragged_attention(q, k, v, bounds([10, 20]), bounds([20, 5]), backend="sdpa"), expected, [q, k, v])


@pytest.mark.parametrize("backend", CPU)
def test_queries_without_keys_get_zero_even_if_they_are_nan(backend: str) -> None:
    q, k, v = operands(6, 3, 2, 1, 8)
    bad = torch.cat((q[:5], q[5:] * torch.nan))
    out = ragged_attention(bad, k, v, bounds([5, 1]), bounds([3, 0]), backend=backend)
    assert out[5:].eq(0).all()
    assert difference(out[:5], dense(q[:5], k, v)) < 1e-5


@pytest.mark.parametrize("backend", CPU)
def test_large_logits(backend: str) -> None:
    q, k, v = operands(40, 40, 2, 1, 16)
    out = ragged_attention(q * 1000, k, v, bounds([40]), backend=backend)
    assert bool(out.isfinite().all())
    assert difference(out, dense((q * 1000).double(), k.double(), v.double())) < 1e-3  # logits of a thousand are rounded to 1e-4


@pytest.mark.parametrize("backend", CPU)
def test_a_sample_alone_gives_what_it_gives_in_a_batch(backend: str) -> None:
    q, k, v = (t.detach() for t in operands(60, 60, 4, 2, 16))
    batch = ragged_attention(q, k, v, bounds([20, 20, 20]), backend=backend)
    alone = ragged_attention(q[20:40], k[20:40], v[20:40], bounds([20]), backend=backend)
    assert difference(batch[20:40], alone) < 1e-6  # products of other sizes are summed in another order


@pytest.mark.parametrize("backend", ["numba", "torch", "auto"])
def test_compiles_as_one_graph(backend: str) -> None:
    torch.compiler.reset()

    def layer(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> Tensor:
        return 2 * ragged_attention(q, k, v, offsets, backend=backend)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for counts in ((30, 0, 10), (25, 3, 20)):
        tensors = operands(sum(counts), sum(counts), 2, 1, 8)
        assert_equal(compiled(*tensors, bounds(counts)), layer(*tensors, bounds(counts)), tensors)


@pytest.mark.parametrize("backend", ["numba", "sdpa", "torch"])
def test_checkpointing_and_gradients_of_any_strides(backend: str) -> None:
    tensors = operands(70, 70, 2, 1, 8)
    offsets = bounds([40, 0, 30])

    def layer(*args: Tensor) -> Tensor:
        return ragged_attention(*args, offsets, backend=backend)

    expected = torch.autograd.grad(layer(*tensors).square().sum(), tensors)
    actual = torch.autograd.grad(checkpoint(layer, *tensors, use_reentrant=False).square().sum(), tensors)  # type: ignore[union-attr]
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    assert_equal(layer(*tensors).transpose(0, 2), ragged_attention(*tensors, offsets, backend="reference").transpose(0, 2), tensors)
    torch.autograd.grad(layer(*tensors).sum(), tensors)  # an expanded gradient


def test_the_definition_has_derivatives_of_any_order() -> None:
    tensors = operands(7, 7, 2, 1, 3, torch.float64)
    call = lambda *t: ragged_attention(*t, bounds([3, 0, 4]), backend="reference")  # noqa: E731
    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


def test_autocast() -> None:
    tensors = operands(30, 30, 2, 1, 8)
    for backend in CPU:
        with torch.autocast("cpu", torch.bfloat16):
            assert ragged_attention(*tensors, bounds([30]), backend=backend).dtype == torch.bfloat16


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Tensor:
    """The library's function as it documents it."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert type(max_seqlen_q) is type(max_seqlen_k) is int
    assert max_seqlen_q == int(cu_seqlens_q.diff().max())
    assert max_seqlen_k == int(cu_seqlens_k.diff().max())
    assert deterministic
    assert (dropout_p, causal, window_size, softcap, return_attn_probs) == (0.0, False, (-1, -1), 0.0, False)
    assert alibi_slopes is None
    assert block_table is None
    return ragged_attention(q, k, v, cu_seqlens_q.long(), cu_seqlens_k.long(), scale=softmax_scale, backend="reference")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = ModuleType("flash_attn")
    package.flash_attn_varlen_func = flash_attn_varlen_func
    package.__spec__ = ModuleSpec("flash_attn", None)
    monkeypatch.setitem(sys.modules, "flash_attn", package)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("counts", [((28, 0, 17), (28, 0, 17)), ((9, 4), (0, 6)), ((0, 0), (3, 2)), ((3, 2), (0, 0)), ((), ())])
def test_what_flash_attn_is_handed(counts: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    offsets, ends = (bounds(c) for c in counts)
    tensors = operands(int(offsets[-1]), int(ends[-1]), 4, 2, 8)
    expected = ragged_attention(*tensors, offsets, ends, scale=0.4, backend="reference")
    assert_equal(attend_flash(*tensors, offsets, ends, 0.4), expected, tensors)


@pytest.mark.usefixtures("stand_in")
def test_what_flash_attn_serves() -> None:
    def reasons(device: str, dtype: torch.dtype, **facts: Any) -> str:
        return "; ".join(RAGGED_ATTENTION.backends["flash-attn"].unsupported(Call(torch.device(device), dtype, True, facts)))

    assert reasons("cuda", torch.float16, width=256, compiling=False) == ""
    assert reasons("cuda", torch.bfloat16) == ""
    assert "at most 256 channels, got 264" in reasons("cuda", torch.float16, width=264)
    assert "takes float16, bfloat16, got float32" in reasons("cuda", torch.float32)
    assert "runs on cuda" in reasons("cpu", torch.float16)
    assert "torch.compile cannot follow" in reasons("cuda", torch.float16, compiling=True)


@pytest.mark.usefixtures("stand_in")
def test_automatic_choice() -> None:
    def chosen(device: str, dtype: torch.dtype, **facts: Any) -> str:
        return RAGGED_ATTENTION.choose("auto", Call(torch.device(device), dtype, True, facts)).name

    assert chosen("cpu", torch.float32) == "numba"
    assert chosen("cpu", torch.float64) == "sdpa"
    assert chosen("cpu", torch.float64, compiling=True) == "torch"
    assert chosen("cuda", torch.float16) == "flash-attn"
    assert chosen("cuda", torch.float16, width=300) == "sdpa"
    assert chosen("cuda", torch.float32) == "sdpa"


def test_a_library_that_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(BackendUnavailable, match="flash-attn: package flash_attn is not installed"):
        ragged_attention(*operands(4, 4, 2, 1, 8), bounds([4]), backend="flash-attn")


@pytest.mark.skipif(find_spec("flash_attn") is None or not torch.cuda.is_available(), reason="needs flash-attn and a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_library_itself(dtype: torch.dtype) -> None:
    tensors = [t.detach().cuda().requires_grad_() for t in operands(40, 45, 4, 2, 24, dtype)]
    offsets, ends = bounds([28, 0, 12]).cuda(), bounds([40, 5, 0]).cuda()
    outs = [ragged_attention(*tensors, offsets, ends, backend=b) for b in ("flash-attn", "reference")]
    upstream = torch.randn_like(outs[0])
    found, wanted = ([out, *torch.autograd.grad(out, tensors, upstream)] for out in outs)
    for a, e in zip(found, wanted, strict=True):
        assert difference(a, e) < 3e-2  # weights are rounded to 8 bits before they meet the values


BAD: list[tuple[str, type[Exception], str, Any]] = [
    ("heads", ShapeError, "multiple of those of k", lambda q, k, v, o: ragged_attention(q[:, :3], k, v, o)),
    ("dtypes", DtypeError, "one dtype", lambda q, k, v, o: ragged_attention(q.double(), k, v, o)),
    ("integers", DtypeError, "q must be", lambda q, k, v, o: ragged_attention(q.int(), k, v, o)),
    ("widths", ShapeError, r"k must be \(n_k, Hk, 8\)", lambda q, k, v, o: ragged_attention(q, k[..., :3], v, o)),
    ("values", ShapeError, "Values have the shape", lambda q, k, v, o: ragged_attention(q, k, v[:9], o)),
    ("rows", ShapeError, "Give key_offsets", lambda q, k, v, o: ragged_attention(q[:7], k, v, o)),
    ("no heads", ShapeError, "at least one head", lambda q, k, v, o: ragged_attention(q, k[:, :0], v[:, :0], o)),
    ("offsets", RangeError, "rise from 0 to the number of rows, 20", lambda q, k, v, o: ragged_attention(q, k, v, o + 1)),
    ("key offsets", RangeError, "key_offsets must rise", lambda q, k, v, o: ragged_attention(q, k, v, o, o.flip(0))),
    ("no offsets", ShapeError, "at least one entry", lambda q, k, v, o: ragged_attention(q, k, v, o[:0])),
    ("samples", ShapeError, "key_offsets must be", lambda q, k, v, o: ragged_attention(q, k, v, o, o[:2])),
    ("offset dtype", DtypeError, "offsets must be", lambda q, k, v, o: ragged_attention(q, k, v, o.int())),
    ("scale", RangeError, "scale must be a finite number", lambda q, k, v, o: ragged_attention(q, k, v, o, scale=0.0)),
    ("backend", BackendUnavailable, "'nope' cannot serve", lambda q, k, v, o: ragged_attention(q, k, v, o, backend="nope")),
]


@pytest.mark.parametrize(("error", "text", "call"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input(error: type[Exception], text: str, call: Any) -> None:
    with pytest.raises(error, match=text):
        call(*operands(20, 20, 4, 2, 8), bounds([8, 12]))
