"""What other libraries' convolutions can serve."""

from __future__ import annotations

import torch

from voxgen.ops._registry import Call, Reasons, float_types, no_gradient


def spconv_serves(call: Call) -> Reasons:
    """Any table on a GPU. Its CPU build (seen in 2.3.8) needs CUDA for the gradient and is wrong with several threads."""
    if call.device.type == "cuda":
        return float_types(torch.float32, torch.float16)(call)
    if call.device.type != "cpu":
        return (f"runs on cuda and cpu, the tensors lie on {call.device}",)
    several = torch.get_num_threads() > 1
    racing = ("its CPU build gives wrong rows with several threads; torch.set_num_threads(1) before",) if several else ()
    return (*racing, *no_gradient(call), *float_types(torch.float32)(call))


def torchsparse_serves(call: Call) -> Reasons:
    """Submanifold layers: of others the order of the output rows is its own."""
    reasons = [] if call.device.type == "cuda" else [f"runs on cuda, the tensors lie on {call.device}"]
    if not call.facts.get("submanifold", False):
        reasons.append("its adapter serves submanifold tables")
    if call.facts.get("dilation", (1, 1, 1)) != (1, 1, 1):
        reasons.append("it ignores dilation")
    if call.facts.get("volume", 27) > 31:
        reasons.append(f"takes at most 31 offsets, got {call.facts['volume']}")
    return (*reasons, *float_types(torch.float32, torch.float16)(call))
