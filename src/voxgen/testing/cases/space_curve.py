"""Cases of `voxgen.ops.space_curve`. The dtype is that of the codes: int32 for 10 bits an axis, int64 for 21."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from voxgen.core.aliases import Int3
from voxgen.ops.space_curve import decode_hilbert, decode_z_order, encode_hilbert, encode_z_order

from . import Case

DTYPES = (torch.int32, torch.int64)

_CURVES = {"z_order": (encode_z_order, decode_z_order), "hilbert": (encode_hilbert, decode_hilbert)}


def _run(curve: str, bits: int, permute: Int3, backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    encode, decode = _CURVES[curve]
    codes = encode(inputs["cells"], bits=bits, permute=permute, backend=backend)
    return {"codes": codes, "cells": decode(inputs["codes"], bits=bits, permute=permute, backend=backend)}


def cases(dtype: torch.dtype) -> list[Case]:
    """Each curve: no cells, one, the corners of the cube, many unsorted ones with repetitions, strided rows, permuted axes."""
    bits = 10 if dtype == torch.int32 else 21
    top = (1 << bits) - 1
    generator = torch.Generator().manual_seed(7)
    many = torch.randint(0, top + 1, (4001, 3), generator=generator, dtype=torch.int32)
    corners = torch.tensor([[(k >> 2 & 1) * top, (k >> 1 & 1) * top, (k & 1) * top] for k in range(8)], dtype=torch.int32)
    codes = torch.randint(0, (1 << 3 * bits) - 1, (4001,), generator=generator).to(dtype)
    last = torch.tensor([0, 1, (1 << 3 * bits) - 1], dtype=dtype)
    inputs = {
        "empty": (many[:0], codes[:0]),
        "one": (many[:1], codes[:1]),
        "corners": (corners, last),
        "many": (torch.cat((many, many[:9])), torch.cat((codes, codes[:9]))),
        "strided": (many.flip(0)[::3], codes[::3]),
        "int64": (many.long(), codes.long()),
    }
    found = []
    for curve in _CURVES:
        for name, (cells, numbers) in inputs.items():
            run = partial(_run, curve, bits, (0, 1, 2))
            found.append(Case(f"{curve}-{bits}-{name}", {"cells": cells, "codes": numbers}, run))
        run = partial(_run, curve, bits, (2, 0, 1))
        found.append(Case(f"{curve}-{bits}-permuted", {"cells": many, "codes": codes}, run))
    return found
