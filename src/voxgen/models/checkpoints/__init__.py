"""Weights of published systems into voxgen's modules and back, strictly; and files of voxgen's own."""

from ._direct3d_s2 import load_direct3d_s2 as load_direct3d_s2
from ._direct3d_s2 import to_direct3d_s2 as to_direct3d_s2
from ._inspect import CheckpointEntry as CheckpointEntry
from ._inspect import Match as Match
from ._inspect import inspect_checkpoint as inspect_checkpoint
from ._trellis import load_trellis as load_trellis
from ._trellis import read_trellis as read_trellis
from ._trellis import to_trellis as to_trellis
from ._trellis2 import load_trellis2 as load_trellis2
from ._trellis2 import read_trellis2 as read_trellis2
from ._trellis2 import save_trellis2 as save_trellis2
from ._trellis2 import to_trellis2 as to_trellis2
from ._triposf import load_triposf as load_triposf
from ._triposf import read_triposf as read_triposf
from ._triposf import save_triposf as save_triposf
from ._triposf import to_triposf as to_triposf

__all__ = [
    "CheckpointEntry",
    "Match",
    "inspect_checkpoint",
    "load_direct3d_s2",
    "load_trellis",
    "load_trellis2",
    "load_triposf",
    "read_trellis",
    "read_trellis2",
    "read_triposf",
    "save_trellis2",
    "save_triposf",
    "to_direct3d_s2",
    "to_trellis",
    "to_trellis2",
    "to_triposf",
]
