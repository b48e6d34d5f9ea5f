"""Weights of published systems into voxgen's modules and back, strictly; and files of voxgen's own."""

from ._direct3d_s2 import load_direct3d_s2 as load_direct3d_s2
from ._direct3d_s2 import to_direct3d_s2 as to_direct3d_s2
from ._trellis import load_trellis as load_trellis
from ._trellis import read_trellis as read_trellis
from ._trellis import to_trellis as to_trellis
from ._trellis2 import load_trellis2 as load_trellis2
from ._trellis2 import read_trellis2 as read_trellis2
from ._trellis2 import save_trellis2 as save_trellis2
from ._trellis2 import to_trellis2 as to_trellis2

__all__ = [
    "load_direct3d_s2",
    "load_trellis",
    "load_trellis2",
    "read_trellis",
    "read_trellis2",
    "save_trellis2",
    "to_direct3d_s2",
    "to_trellis",
    "to_trellis2",
]
