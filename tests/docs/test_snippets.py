"""The Python blocks of the README and the docs run as they stand, page by page, from top to bottom."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: str(p.relative_to(ROOT)))
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in BLOCK.findall(page.read_text()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(block, str(page), "exec"), names)


def test_every_op_stands_in_the_table_of_backends() -> None:
    from voxgen.ops._registry import load_all_ops

    table = (ROOT / "docs" / "backends.md").read_text()
    for name, op in load_all_ops().items():
        row = next((line for line in table.splitlines() if line.startswith(f"| `{name}` ")), None)
        assert row is not None, f"docs/backends.md lacks a row for {name}"
        for backend in op.backends:
            assert backend in row, f"docs/backends.md does not name the backend {backend} of {name}"


def test_pages_name_only_what_exists() -> None:
    """`voxgen.x.y` in prose must import."""
    import importlib

    import voxgen  # noqa: F401

    for page in PAGES:
        for dotted in set(re.findall(r"`(voxgen(?:\.[a-z_0-9]+)+(?:\.\w+)?)", page.read_text())):
            parts = dotted.split(".")
            for cut in range(len(parts), 0, -1):
                try:
                    found = importlib.import_module(".".join(parts[:cut]))
                except ModuleNotFoundError:
                    continue
                for name in parts[cut:]:
                    found = getattr(found, name)
                break


def test_the_readme_opens_with_the_two_commands_and_a_picture() -> None:
    head = (ROOT / "README.md").read_text()[:1500]
    assert head.index("make demo") < head.index("make test")
    picture = re.search(r"!\[.*?\]\((.*?)\)", head)
    assert picture is not None
    assert os.path.getsize(ROOT / picture.group(1)) > 10_000
