"""The viewer: what files hold, what is drawn of each kind, the panel, and what a headless browser sees."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from voxgen.cli import main
from voxgen.core.errors import DtypeError, FileFormatError, RangeError
from voxgen.io import save_mesh
from voxgen.representations import GaussianSplats, OrientedPoints, OVoxel, SparseFlex, SparseSDF
from voxgen.testing.shapes import bowl, torus
from voxgen.view import Viewer, layers, open_file

CHROMIUM = os.environ.get("VOXGEN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def every_kind() -> dict[str, object]:
    mesh = torus()
    ovoxel = OVoxel.from_mesh(mesh, resolution=24)
    return {
        "mesh.glb": mesh,
        "ovoxel.vxz": ovoxel,
        "ovoxel.npz": ovoxel,
        "sdf.npz": SparseSDF.from_mesh(mesh, resolution=24),
        "flex.safetensors": SparseFlex.from_mesh(mesh, resolution=24),
        "splats.ply": GaussianSplats.from_ovoxel(ovoxel),
        "splats.safetensors": GaussianSplats.from_ovoxel(ovoxel),
        "points.safetensors": OrientedPoints.from_mesh(mesh, 300),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("view")
    for name, item in every_kind().items():
        if name == "mesh.glb":
            save_mesh(item, folder / name)
        elif name == "splats.ply":
            item.save_ply(folder / name)
        else:
            item.save(folder / name)
    save_mesh(bowl(), folder / "bowl.ply")
    return {path.name: path for path in sorted(folder.iterdir())}


def test_open_file_knows_every_kind(files: dict[str, Path]) -> None:
    for name, item in every_kind().items():
        assert type(open_file(files[name])) is type(item), name
    assert open_file(files["bowl.ply"]).num_faces == bowl().num_faces  # a PLY of a mesh is no PLY of Gaussians


def test_open_file_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="suffix must be one of"):
        open_file(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "missing.ply")
    rubbish = tmp_path / "rubbish.npz"
    rubbish.write_bytes(b"no numbers")
    with pytest.raises(FileFormatError, match="holds nothing that can be shown") as told:
        open_file(rubbish)
    assert str(told.value).count("|") == 1  # the reason of each reader
    foreign = tmp_path / "foreign.safetensors"
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, foreign)
    with pytest.raises(FileFormatError, match="holds nothing that can be shown"):
        open_file(foreign)


def test_layers_of_each_kind(files: dict[str, Path]) -> None:
    found = {name: layers(open_file(path)) for name, path in files.items()}
    assert found["mesh.glb"].grid is None
    assert found["bowl.ply"].open_edges is not None
    assert len(found["bowl.ply"].open_edges) > 0
    assert len(found["mesh.glb"].open_edges) == 0
    for name in ("ovoxel.vxz", "sdf.npz", "flex.safetensors"):
        scene = found[name]
        assert scene.surface.num_faces > 0, name
        assert scene.cell_colors.shape == (len(scene.grid), 3), name
    assert found["splats.ply"].splats is not None
    assert len(found["points.safetensors"].points) == 300
    standing = OrientedPoints.from_mesh(torus().with_up("z"), 300)
    assert [found["points.safetensors"].up, layers(standing).up] == ["y", "z"]


def test_dual_vertices_lie_on_the_surface(files: dict[str, Path]) -> None:
    scene = layers(open_file(files["ovoxel.vxz"]))
    used = torch.cdist(scene.surface.vertices.double(), scene.points.double()).amin(1)
    assert float(used.max()) < 1e-5  # vertices of an O-Voxel's mesh are its dual vertices


@pytest.mark.parametrize("name", ["mesh.glb", "ovoxel.vxz", "sdf.npz", "flex.safetensors"])
def test_coarser_layers(files: dict[str, Path], name: str) -> None:
    item = open_file(files[name])
    assert layers(item, 16).grid.resolution == (16, 16, 16)
    if name != "mesh.glb":
        assert layers(item, 128).grid.resolution == (24, 24, 24)  # not finer than the file


def test_layers_refuse_what_cannot_be_shown() -> None:
    with pytest.raises(DtypeError, match="item must be a mesh"):
        layers(torch.zeros(3))


def test_viewer_refuses_bad_arguments() -> None:
    with pytest.raises(RangeError, match="at least one object"):
        Viewer({})
    with pytest.raises(RangeError, match="resolution must be one of"):
        Viewer({"torus": torus()}, resolution=17)


def test_viewer_says_where_it_cannot_listen() -> None:
    pytest.importorskip("viser")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="Take another port"):
        Viewer({"torus": torus()}, port=taken.getsockname()[1])
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1"):  # an address that documentation has, and no machine
        Viewer({"torus": torus()}, host="192.0.2.1", port=0)


def test_panel_changes_the_scene(files: dict[str, Path]) -> None:
    pytest.importorskip("viser")
    items = {name: open_file(files[name]) for name in ("bowl.ply", "ovoxel.vxz", "splats.ply")}
    with Viewer(items, port=0) as viewer:
        assert viewer.drawn["bowl.ply"] == ("surface", "wireframe", "open edges", "box")
        assert "cells" in viewer.drawn["ovoxel.vxz"]
        assert viewer.drawn["splats.ply"] == ("points", "Gaussians", "box")
        cells = viewer._drawn["ovoxel.vxz"]["cells"][0]
        assert not cells.visible
        viewer.set_overlay("cells", True)
        _until(lambda: viewer._drawn["ovoxel.vxz"]["cells"][0].visible)
        viewer.set_resolution(16)
        _until(lambda: "cells" in viewer.drawn["bowl.ply"])
        before = len(viewer._drawn["ovoxel.vxz"]["cells"][0].batched_positions)
        viewer._cut.value = 0.5
        _until(lambda: len(viewer._drawn["ovoxel.vxz"]["cells"][0].batched_positions) < before)
        with pytest.raises(RangeError, match="name must be one of"):
            viewer.set_overlay("clouds", True)


def _until(done) -> None:
    for _ in range(200):
        if done():
            return
        threading.Event().wait(0.05)
    raise AssertionError("the panel did nothing in ten seconds")


def test_command_line_says_what_is_wrong(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    same = str(files["bowl.ply"])
    assert main(["view", same, same, "--no-browser"]) == 2
    assert "each file can be shown once" in capsys.readouterr().err
    assert main(["view", "nothing.abc", "--no-browser"]) == 2
    assert "suffix must be one of" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_objects(files: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("viser")
    playwright = pytest.importorskip("playwright.sync_api")
    items = {name: open_file(files[name]) for name in ("mesh.glb", "ovoxel.vxz")}
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
    with Viewer(items, port=0) as viewer, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 500})
        page.goto(viewer.url)
        page.wait_for_selector("canvas")
        shown = _picture(page, tmp_path / "shown.png")
        viewer.set_overlay("cells", True)
        viewer.set_overlay("surface", False)
        changed = _picture(page, tmp_path / "cells.png")
        browser.close()
    scene = (slice(180, 500), slice(0, 860))  # what the panel and a note of the browser's leave free
    before, after = shown[scene].astype(int), changed[scene].astype(int)
    ground = before[-5, 5]
    for image in (before, after):  # something stands in front of a plain ground
        assert (np.abs(image - ground).max(-1) > 20).mean() > 0.02
    assert (np.abs(before - after).max(-1) > 20).mean() > 0.01


def _picture(page, path: Path) -> np.ndarray:
    page.wait_for_timeout(4000)  # the browser loads, draws and settles
    page.screenshot(path=path)
    return np.asarray(Image.open(path).convert("RGB"))
