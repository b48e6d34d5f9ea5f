"""Z-order and Hilbert codes: the original's numbers, the defining properties of the curves, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxgen.core.errors import BackendUnavailable, DtypeError, RangeError, ShapeError
from voxgen.ops.space_curve import decode_hilbert, decode_z_order, encode_hilbert, encode_z_order

GOLDEN = Path(__file__).parents[1] / "golden"
BACKENDS = ["reference", "torch", "numba"]
CURVES = {"z_order": (encode_z_order, decode_z_order), "hilbert": (encode_hilbert, decode_hilbert)}


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "ovoxel_codes.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("permute", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_codes_of_the_original(golden, curve, permute, backend) -> None:
    encode, decode = CURVES[curve]
    cells = golden["coords"][:, 1:]
    codes = encode(cells, permute=permute, backend=backend)
    expected = golden[f"{curve}_{''.join(map(str, permute))}"]
    assert codes.dtype == torch.int32
    assert torch.equal(codes, expected)
    assert torch.equal(decode(expected, permute=permute, backend=backend), cells)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("curve", CURVES)
def test_cells_of_the_first_codes_of_the_original(golden, curve, backend) -> None:
    cells = CURVES[curve][1](torch.arange(4096, dtype=torch.int32), backend=backend)
    assert cells.dtype == torch.int32
    assert torch.equal(cells, golden[f"{curve}_decode_first_4096"].int())


@pytest.mark.parametrize("backend", BACKENDS)
def test_codes_written_down_in_the_format_notes(backend) -> None:
    rows = {
        (1, 0, 0): (4, 7),
        (0, 1, 0): (2, 3),
        (0, 0, 1): (1, 1),
        (5, 7, 9): (919, 781),
        (511, 0, 1023): (230087533, 172565650),
        (1023, 1023, 1023): (1073741823, 766958445),
        (256, 256, 256): (117440512, 83886080),
    }
    cells = torch.tensor(list(rows), dtype=torch.int32)
    assert encode_z_order(cells, backend=backend).tolist() == [z for z, _ in rows.values()]
    assert encode_hilbert(cells, backend=backend).tolist() == [h for _, h in rows.values()]
    assert encode_z_order(torch.tensor([[1, 2, 3]]), permute=(2, 0, 1), backend=backend).tolist() == [46]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("bits", "dtype"), [(10, torch.int32), (21, torch.int64)])
def test_hilbert_neighbours_share_a_face(bits, dtype, backend) -> None:
    """The property that makes it a Hilbert curve, at the start, in the middle and at the end of either curve."""
    size = 1 << 3 * bits
    for start in (0, size // 2 - 2048, size // 7, size - 4096):
        cells = decode_hilbert(start + torch.arange(4096, dtype=dtype), bits=bits, backend=backend)
        assert bool(((cells[1:] - cells[:-1]).abs().sum(1) == 1).all())


def test_z_order_is_component_wise_monotone() -> None:
    """A cell whose coordinates are all no larger has no larger code; the file format's neighbour filter leans on it."""
    cells = torch.randint(0, 1 << 21, (2000, 3), dtype=torch.int32)
    lower = (cells.double() * torch.rand(2000, 3, dtype=torch.float64)).int()
    assert bool((encode_z_order(lower, bits=21) <= encode_z_order(cells, bits=21)).all())


@given(st.lists(st.tuples(*[st.integers(0, (1 << 21) - 1)] * 3), max_size=40), st.permutations([0, 1, 2]), st.sampled_from(BACKENDS))
def test_there_and_back_at_21_bits(rows, permute, backend) -> None:
    cells = torch.tensor(rows, dtype=torch.int32).reshape(-1, 3)
    for encode, decode in CURVES.values():
        codes = encode(cells, bits=21, permute=permute, backend=backend)
        assert codes.dtype == torch.int64
        assert torch.equal(decode(codes, bits=21, permute=permute, backend=backend), cells)


def test_the_long_z_order_continues_the_short_one() -> None:
    cells = torch.randint(0, 1024, (500, 3), dtype=torch.int32)
    assert torch.equal(encode_z_order(cells, bits=21), encode_z_order(cells).long())


@pytest.mark.parametrize("encode", [encode_z_order, encode_hilbert])
def test_bad_cells_raise(encode) -> None:
    with pytest.raises(RangeError, match=r"cells must lie in \[0, 1024\); got values from 3 to 1024"):
        encode(torch.tensor([[3, 1024, 5]], dtype=torch.int32))
    with pytest.raises(RangeError, match="got values from -1"):
        encode(torch.tensor([[0, -1, 0]]), bits=21)
    with pytest.raises(RangeError, match="2097152"):
        encode(torch.tensor([[1 << 21, 0, 0]]), bits=21)
    with pytest.raises(RangeError, match="bits must be 10"):
        encode(torch.zeros(1, 3, dtype=torch.int32), bits=16)
    with pytest.raises(RangeError, match="permute must be a permutation"):
        encode(torch.zeros(1, 3, dtype=torch.int32), permute=(0, 0, 2))
    with pytest.raises(ShapeError, match=r"\(n, 3\)"):
        encode(torch.zeros(1, 4, dtype=torch.int32))
    with pytest.raises(DtypeError, match="int32"):
        encode(torch.zeros(1, 3))
    with pytest.raises(BackendUnavailable, match="triton"):
        encode(torch.zeros(1, 3, dtype=torch.int32), backend="triton")


@pytest.mark.parametrize("decode", [decode_z_order, decode_hilbert])
def test_bad_codes_raise(decode) -> None:
    with pytest.raises(RangeError, match="codes must lie in"):
        decode(torch.tensor([1 << 30]))
    with pytest.raises(RangeError, match="-5"):
        decode(torch.tensor([-5]), bits=21)
    with pytest.raises(ShapeError, match=r"\(n,\)"):
        decode(torch.zeros(2, 3, dtype=torch.int32))
    with pytest.raises(DtypeError, match="int32"):
        decode(torch.zeros(2))
