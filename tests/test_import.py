"""Importing voxgen is cheap and quiet."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import sys, time
import torch
start = time.process_time()
import voxgen
from voxgen.core import VoxelGrid, SparseTensor, Frame, TriMesh, Camera
from voxgen.representations import OVoxel
import voxgen.io, voxgen.metrics, voxgen.render
seconds = time.process_time() - start
heavy = [m for m in ("numba", "triton", "trimesh", "scipy", "igl", "PIL", "matplotlib") if m in sys.modules]
assert not torch.cuda.is_initialized()
print(seconds, ",".join(heavy))
"""


def test_import_starts_nothing_and_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    seconds, heavy = done.stdout.rstrip("\n").split(" ")
    assert heavy == "", f"import voxgen pulls in {heavy}"
    assert float(seconds) < 1.0, "the promise is less than a second of work beyond torch"


def test_unknown_names_raise() -> None:
    import pytest

    import voxgen

    with pytest.raises(AttributeError, match="no attribute"):
        voxgen.nothing  # noqa: B018
    assert set(voxgen.__all__) <= set(dir(voxgen))
