"""Fixtures of the tests of preparation."""

from __future__ import annotations

from pathlib import Path

import pytest
from prepared import digests, run, write_assets


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    return write_assets(tmp_path / "assets")


@pytest.fixture
def whole(assets: Path, tmp_path: Path) -> dict[str, str]:
    """The files of a run that nothing disturbed."""
    run(assets, tmp_path / "whole")
    return digests(tmp_path / "whole")
