"""What kernels of other libraries can serve."""

from __future__ import annotations

import torch

from voxgen.ops._registry import Call, Reasons, float_types

WIDEST = 256
"""Channels of a head that flash attention's kernels take at most."""


def flash_attn_serves(call: Call) -> Reasons:
    """Half precision on a GPU, heads up to 256 wide."""
    reasons = [] if call.device.type == "cuda" else [f"runs on cuda, the tensors lie on {call.device}"]
    if call.facts.get("width", 0) > WIDEST:
        reasons.append(f"takes heads of at most {WIDEST} channels, got {call.facts['width']}")
    return (*reasons, *float_types(torch.float16, torch.bfloat16)(call))


def reads_offsets(call: Call) -> Reasons:
    """Engines that need the lengths of the samples as numbers."""
    return ("reads the offsets, which torch.compile cannot follow",) if call.facts.get("compiling", False) else ()
