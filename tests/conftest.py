"""Settings for the whole suite, made before anything imports triton or starts threads."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real meshes; tests that use it skip where it does not exist."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VOXGEN_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no folder of real meshes at {folder}; set VOXGEN_DATA to one")
    return folder
