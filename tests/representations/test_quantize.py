"""Bytes of dual vertices, materials, normals and edge flags: the original's numbers, and why the default differs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.representations.ovoxel import _quantize as q

GOLDEN = Path(__file__).parents[1] / "golden"
MODES = [None, "trellis2"]
ALL_BYTES = torch.arange(256, dtype=torch.uint8).reshape(-1, 1)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "ovoxel_quantise.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_compat_gives_the_bytes_of_the_original(golden) -> None:
    value = golden["value"]
    assert torch.equal(q.quantize_dual(value, compat="trellis2"), golden["dual_byte"])
    assert torch.equal(q.quantize_attribute(value, compat="trellis2"), golden["attribute_byte"])
    assert torch.equal(q.quantize_normal(value, compat="trellis2"), golden["normal_byte"])
    assert torch.equal(q.pack_edge_flags(golden["flags"]), golden["flag_byte"])


def test_decoded_values_of_the_original(golden) -> None:
    # 1e-7: the tolerance that the golden states
    assert torch.allclose(q.dequantize_dual(golden["dual_byte"]), golden["dual_decoded"], rtol=0, atol=1e-7)
    assert torch.allclose(q.attribute_to_network(golden["dual_byte"]), golden["attribute_network"], rtol=0, atol=1e-7)
    assert torch.equal(q.unpack_edge_flags(golden["flag_byte"]), golden["flags"])


@pytest.mark.parametrize("compat", MODES)
def test_decoding_and_encoding_again_gives_the_same_byte(compat) -> None:
    rows = ALL_BYTES.expand(-1, 3)
    assert torch.equal(q.quantize_dual(q.dequantize_dual(rows), compat=compat), rows)
    assert torch.equal(q.quantize_attribute(q.dequantize_attribute(rows), compat=compat), rows)
    assert torch.equal(q.quantize_normal(q.dequantize_normal(rows, compat=compat), compat=compat), rows)
    through_network = q.network_to_attribute(q.attribute_to_network(ALL_BYTES))
    assert torch.equal(q.quantize_attribute(through_network), ALL_BYTES)


def test_naive_truncation_of_decoded_normals_would_lose_bytes() -> None:
    """Why `dequantize_normal` needs `compat`: in float32 63 bytes sink by one when they are decoded and truncated again."""
    rows = ALL_BYTES.expand(-1, 3)
    again = q.quantize_normal(q.dequantize_normal(rows), compat="trellis2")
    assert int((again[:, 0] != rows[:, 0]).sum()) == 63
    moved = (q.dequantize_normal(rows, compat="trellis2") - q.dequantize_normal(rows)).abs().max()
    assert 0 < float(moved) < 1e-7


def test_rounding_is_unbiased_and_halves_the_error() -> None:
    value = torch.linspace(0, 1, 300_001, dtype=torch.float64)[:, None].expand(-1, 3)
    error = {mode: q.dequantize_dual(q.quantize_dual(value, compat=mode)).double() - value for mode in MODES}
    step = 1 / 255
    # 2e-3 of a step: the ends of [0, 1] count half
    assert abs(float(error[None].mean())) < 2e-3 * step
    assert abs(float(error["trellis2"].mean()) + 0.5 * step) < 2e-3 * step
    # 1.001: decoded bytes are float32
    assert float(error[None].abs().max()) <= 0.5 * step * 1.001
    assert float(error["trellis2"].abs().max()) > 0.99 * step
    assert float(error[None].abs().mean()) < 0.51 * float(error["trellis2"].abs().mean())


def test_values_outside_are_clamped_and_halves_are_widened() -> None:
    wild = torch.tensor([[-0.5, 1.5, 0.5]])
    assert q.quantize_dual(wild).tolist() == [[0, 255, 128]]
    assert q.quantize_normal(torch.tensor([[-2.0, 2.0, 1.0]])).tolist() == [[0, 255, 255]]
    half = q.dequantize_dual(ALL_BYTES.expand(-1, 3)).half()
    assert torch.equal(q.quantize_dual(half), ALL_BYTES.expand(-1, 3))


def test_empty_rows() -> None:
    assert q.quantize_dual(torch.zeros(0, 3)).shape == (0, 3)
    assert q.dequantize_normal(torch.zeros(0, 3, dtype=torch.uint8), compat="trellis2").shape == (0, 3)
    assert q.unpack_edge_flags(q.pack_edge_flags(torch.zeros(0, 3, dtype=torch.bool))).shape == (0, 3)


def test_edge_flags_take_one_bit_an_axis() -> None:
    flags = torch.tensor([[k & 1, k >> 1 & 1, k >> 2 & 1] for k in range(8)]).bool()
    assert q.pack_edge_flags(flags)[:, 0].tolist() == list(range(8))
    assert torch.equal(q.unpack_edge_flags(q.pack_edge_flags(flags)), flags)


def test_bad_input_raises() -> None:
    with pytest.raises(RangeError, match=r"dual_vertices must be finite.*row 1"):
        q.quantize_dual(torch.tensor([[0.0, 0, 0], [0, float("nan"), 0]]))
    with pytest.raises(RangeError, match="values must be finite"):
        q.quantize_attribute(torch.tensor([[float("inf")]]))
    with pytest.raises(ShapeError, match=r"\(n, 3\)"):
        q.quantize_dual(torch.zeros(4, 2))
    with pytest.raises(DtypeError, match="uint8"):
        q.dequantize_dual(torch.zeros(4, 3))
    with pytest.raises(RangeError, match="compat must be one of 'trellis2'"):
        q.quantize_dual(torch.zeros(4, 3), compat="trellis")
    with pytest.raises(RangeError, match=r"\[0, 7\].*got 8"):
        q.unpack_edge_flags(torch.tensor([[8]], dtype=torch.uint8))
    with pytest.raises(DtypeError, match="bool"):
        q.pack_edge_flags(torch.zeros(2, 3))
