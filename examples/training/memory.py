"""What a step keeps for its backward pass, and networks that can keep less."""

from __future__ import annotations

from torch import nn

from voxgen.models import KeptForBackward

__all__ = ["KeptForBackward", "elastic_network"]


def elastic_network(module: nn.Module) -> nn.Module:
    """The part of a module whose blocks can recompute one by one, for `ElasticMemory`; none ends the run."""
    for part in module.modules():
        blocks = getattr(part, "blocks", None)
        if isinstance(blocks, nn.ModuleList) and len(blocks) and all(isinstance(getattr(b, "checkpoint", None), bool) for b in blocks):
            return part
    raise SystemExit("--elastic-memory is for flow transformers: no part of this network has blocks that can recompute one by one.")
