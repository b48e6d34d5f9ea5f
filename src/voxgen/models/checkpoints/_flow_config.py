"""What TRELLIS.2's JSON files say of a flow."""

from __future__ import annotations

from typing import Any

from voxgen.core.errors import RangeError
from voxgen.models.latent_flow import LatentFlow
from voxgen.models.structure import StructureFlow

_FIELDS = (
    "resolution",
    "in_channels",
    "out_channels",
    "model_channels",
    "cond_channels",
    "num_blocks",
    "num_heads",
    "mlp_ratio",
    "pe_mode",
    "share_mod",
    "initialization",
    "qk_rms_norm",
    "qk_rms_norm_cross",
)
_OPTIONAL = {"rope_freq": [1.0, 10_000.0], "patch_size": 1}
"""Fields that a file names where they differ from these."""


def flow_config(module: LatentFlow | StructureFlow, published_class: str | None) -> tuple[str, dict[str, Any]]:
    """Class name and constructor arguments of a flow.

    Raises:
        RangeError: a class that the module is not, or an attention that TRELLIS.2 does not have.
    """
    classes = ("SparseStructureFlowModel",) if isinstance(module, StructureFlow) else ("SLatFlowModel", "ElasticSLatFlowModel")
    if published_class not in (None, *classes):
        raise RangeError(f"published_config: this module is a {' or '.join(classes)}; got published_class={published_class!r}.")
    values = module.description()
    if values.get("attention", "full") != "full":
        raise RangeError(f"published_config: TRELLIS.2's flows have full attention; this module has {values['attention']!r}.")
    args = {name: values[name] for name in _FIELDS}
    args |= {name: values[name] for name, usual in _OPTIONAL.items() if values.get(name, usual) != usual}
    return published_class or classes[0], {**args, "dtype": values["torso_dtype"]}
