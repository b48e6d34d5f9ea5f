"""The viewer: a small web server, the scene that browsers show, and the panel beside it."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxgen.core import TriMesh, VoxelGrid
from voxgen.core.checks import require_int
from voxgen.core.errors import MissingDependency, RangeError, VoxgenError
from voxgen.core.material import srgb_to_linear
from voxgen.io import save_mesh

from ._files import Viewable
from ._layers import FILE_RESOLUTION, Layers, layers

__all__ = ["Viewer"]

RESOLUTIONS = (16, 32, 64, 128, 256, 512, FILE_RESOLUTION)
"""Of the slider; its last place shows the file as it is."""
MAX_CUBES = 200_000
"""Cells that are drawn as cubes; more are drawn as points, which browsers take by the million."""
GAP = 1.15
"""Distance between objects, times the size of the largest."""
SHOWN = {"surface": True, "wireframe": False, "cells": False, "points": False, "open edges": True, "Gaussians": True, "box": False}
"""What the panel can switch, and what is on at the start."""
RED, GREY = (225, 40, 40), (130, 130, 130)


class Viewer:
    """Objects side by side in a browser, with a panel: resolution, overlays, and a plane that cuts everything open.

    The server runs in threads of its own from construction on, until `close` or the end of a `with` block.

    Args:
        items: by name, see `Viewable`. Each is shown in its own up axis; the first one's decides.
        resolution: at the start; `FILE_RESOLUTION` shows the files as they are.
        host: address to listen on. "0.0.0.0" lets other machines see it; there is no password.
        port: 0 takes a free one.
    Attributes:
        url: to open in a browser.
    Raises:
        MissingDependency: viser is not installed.   RangeError: nothing to show, or a resolution that the slider has not.
        OSError: the port is taken, or the address is none of this machine's.
    Example:
        >>> with Viewer({"chair": mesh, "voxels": ovoxel}) as viewer:      # doctest: +SKIP
        ...     print(viewer.url); viewer.wait()
    """

    def __init__(
        self, items: Mapping[str, Viewable], *, resolution: int = FILE_RESOLUTION, host: str = "127.0.0.1", port: int = 8080
    ) -> None:
        where = "Viewer"
        if not items:
            raise RangeError(f"{where}: items must have at least one object; it is empty.")
        if resolution not in RESOLUTIONS:
            raise RangeError(f"{where}: resolution must be one of {RESOLUTIONS}, where 0 is the file's own; got {resolution}.")
        require_int(where, "port", port, 0, 65_535)
        try:
            import viser
        except ImportError as error:
            raise MissingDependency(f"{where}: needs the package viser; pip install 'voxgen[view]'.") from error
        self._items = dict(items)
        self._lock = threading.Lock()
        self._drawn: dict[str, dict[str, list[Any]]] = {}
        first = {name: layers(item, resolution) for name, item in self._items.items()}  # an object that cannot be shown raises here
        _require_address(where, host, port)
        self._server: Any = viser.ViserServer(host=host, port=port, label="voxgen", verbose=False)
        self._build_panel(resolution)
        self._show(first)
        self._look()

    @property
    def url(self) -> str:
        return f"http://{self._server.get_host()}:{self._server.get_port()}"

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> None:
        """Until the process is interrupted."""
        self._server.sleep_forever()

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def set_resolution(self, resolution: int) -> None:
        """What moving the slider does."""
        if resolution not in RESOLUTIONS:
            raise RangeError(f"Viewer.set_resolution: resolution must be one of {RESOLUTIONS}; got {resolution}.")
        self._slider.value = RESOLUTIONS.index(resolution)

    def set_overlay(self, name: str, on: bool) -> None:
        """Switch one of `SHOWN`, as its box in the panel does."""
        if name not in self._boxes:
            raise RangeError(f"Viewer.set_overlay: name must be one of {', '.join(self._boxes)}; got {name!r}.")
        self._boxes[name].value = on

    @property
    def drawn(self) -> dict[str, tuple[str, ...]]:
        """By object, the kinds of things that are in the scene (visible or switched off)."""
        return {name: tuple(kinds) for name, kinds in self._drawn.items()}

    def _build_panel(self, resolution: int) -> None:
        gui = self._server.gui
        gui.configure_theme(show_logo=False, show_share_button=False)
        marks = tuple((i, "file" if r == FILE_RESOLUTION else str(r)) for i, r in enumerate(RESOLUTIONS))
        last = len(RESOLUTIONS) - 1
        self._slider = gui.add_slider("resolution", 0, last, 1, RESOLUTIONS.index(resolution), marks=marks)
        self._boxes = {name: gui.add_checkbox(name, on) for name, on in SHOWN.items()}
        self._axis = gui.add_dropdown("cut along", ("x", "y", "z"))
        self._cut = gui.add_slider("cut", 0.0, 1.0, 0.01, 1.0, hint="what lies beyond this share of the box is left out")
        self._facts = gui.add_markdown("")
        for handle in (self._slider, self._axis, self._cut):
            handle.on_update(self._guarded(self._redraw))
        for box in self._boxes.values():
            box.on_update(self._guarded(self._switch))

    def _guarded(self, action: Callable[[], None]) -> Callable[[Any], None]:
        """Callbacks come from several threads; a mistake is told in the panel."""

        def call(_: Any) -> None:
            with self._lock:
                try:
                    action()
                except VoxgenError as error:
                    self._facts.content = f"**{type(error).__name__}**: {error}"

        return call

    def _redraw(self) -> None:
        resolution = RESOLUTIONS[int(self._slider.value)]
        self._show({name: layers(item, resolution) for name, item in self._items.items()})

    def _switch(self) -> None:
        for kinds in self._drawn.values():
            for kind, handles in kinds.items():
                for handle in handles:
                    handle.visible = bool(self._boxes[kind].value)

    def _show(self, shown: Mapping[str, Layers]) -> None:
        self._server.scene.reset()
        self._up = next(iter(shown.values())).up
        self._server.scene.set_up_direction("+" + self._up)
        boxes = {name: scene.bounds() for name, scene in shown.items()}
        step = GAP * max(float((high - low).max()) for low, high in boxes.values())
        self._width = step * len(shown)
        lines = []
        for index, (name, scene) in enumerate(shown.items()):
            low, high = boxes[name]
            shift = torch.tensor([(index - (len(shown) - 1) / 2) * step, 0.0, 0.0]) - (low + high) / 2
            cut = scene if float(self._cut.value) >= 1 else _cut(scene, "xyz".index(self._axis.value), float(self._cut.value), low, high)
            self._drawn[name] = self._draw(f"/{index}", cut, tuple(shift.tolist()), low, high)
            lines.append(f"**{name}**  \n" + "  \n".join(scene.facts))
        self._facts.content = "\n\n".join(lines)
        self._switch()

    def _draw(self, path: str, scene: Layers, position: tuple[float, ...], low: Tensor, high: Tensor) -> dict[str, list[Any]]:
        draw = self._server.scene
        drawn: dict[str, list[Any]] = {}
        size = float((high - low).max())
        if scene.surface is not None and scene.surface.num_faces:
            drawn["surface"] = [draw.add_glb(f"{path}/surface", _glb(scene.surface), position=position)]
            vertices, faces = _numpy(scene.surface.vertices), scene.surface.faces.cpu().numpy()
            drawn["wireframe"] = [draw.add_mesh_simple(f"{path}/wireframe", vertices, faces, color=GREY, wireframe=True, position=position)]
        if scene.open_edges is not None and len(scene.open_edges):
            edges = _numpy(scene.open_edges)
            drawn["open edges"] = [draw.add_line_segments(f"{path}/edges", edges, RED, thickness=0.004 * size, position=position)]
        if scene.grid is not None and scene.cell_colors is not None and len(scene.grid):
            drawn["cells"] = [_cells(draw, f"{path}/cells", scene.grid, scene.cell_colors, position)]
        if scene.points is not None and len(scene.points):
            points = _numpy(scene.points)
            drawn["points"] = [
                draw.add_point_cloud(
                    f"{path}/points", points, RED, point_size=0.004 * size, point_shape="circle", precision="float32", position=position
                )
            ]
        if scene.splats is not None and len(scene.splats):
            drawn["Gaussians"] = [draw.add_gaussian_splats(f"{path}/splats", **_splats(scene.splats), position=position)]
        middle = torch.tensor(position) + (low + high) / 2
        drawn["box"] = [draw.add_box(f"{path}/box", GREY, tuple((high - low).tolist()), wireframe=True, position=tuple(middle.tolist()))]
        return drawn

    def _look(self) -> None:
        """The camera of browsers that connect: a little from above, far enough for all objects."""
        far = 0.6 * self._width + 0.5
        self._server.initial_camera.position = (0.1 * far, 0.3 * far, far) if self._up == "y" else (0.1 * far, -far, 0.3 * far)
        self._server.initial_camera.look_at = (0.0, 0.0, 0.0)


def _require_address(where: str, host: str, port: int) -> None:
    """Raise where nothing can listen: viser would take the next port, or wait forever for an address that is not this machine's."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        raise OSError(f"{where}: cannot listen on {host}, port {port}: {error}. Take another port (0 is any free one) or host.") from error


def _cut(scene: Layers, axis: int, share: float, low: Tensor, high: Tensor) -> Layers:
    """What lies before the plane: faces, points and cells by their middles."""
    edge = float(low[axis] + share * (high[axis] - low[axis]))
    surface, splats, grid, colors = scene.surface, scene.splats, scene.grid, scene.cell_colors
    if surface is not None:
        surface = surface.select_faces(surface.vertices[surface.faces.long()].mean(1)[:, axis] <= edge)
    if splats is not None:
        splats = splats.select(splats.means[:, axis] <= edge)
    if grid is not None and colors is not None:
        keep = grid.frame.centers(grid.cells)[:, axis] <= edge
        grid, colors = grid.select(keep), colors[keep]
    points = None if scene.points is None else scene.points[scene.points[:, axis] <= edge]
    edges = None if scene.open_edges is None else scene.open_edges[scene.open_edges.mean(1)[:, axis] <= edge]
    return Layers(surface, edges, grid, colors, points, splats, scene.up, scene.facts)


def _cells(draw: Any, path: str, grid: VoxelGrid, colors: Tensor, position: tuple[float, ...]) -> Any:
    centers, side = _numpy(grid.frame.centers(grid.cells)), grid.frame.voxel_size[0]
    if len(centers) > MAX_CUBES:
        return draw.add_point_cloud(
            path, centers, colors.numpy(), point_size=side, point_shape="square", precision="float32", position=position
        )
    corners = (np.indices((2, 2, 2)).reshape(3, 8).T - 0.5).astype(np.float32) * side * 0.92
    sides = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    faces = np.concatenate((sides[:, [0, 1, 2]], sides[:, [0, 2, 3]]))
    linear = (srgb_to_linear(colors.float() / 255) * 255).round().to(torch.uint8).numpy()  # as the browser takes those of instances
    straight = np.tile(np.array([[1.0, 0.0, 0.0, 0.0]], np.float32), (len(centers), 1))
    return draw.add_batched_meshes_simple(
        path, corners, faces, straight, centers, batched_colors=linear, flat_shading=True, side="double", position=position
    )


def _glb(mesh: TriMesh) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "surface.glb"
        save_mesh(mesh.replace(up="y"), path)  # not turned: the scene has the mesh's own axes
        return path.read_bytes()


def _splats(splats: Any) -> dict[str, np.ndarray]:
    """What viser draws: centres, covariances, constant colours, opacities."""
    w, x, y, z = (splats.rotations / splats.rotations.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    axes = torch.stack([torch.stack(row, 1) for row in rows], 1) * splats.scales[:, None]
    return {
        "centers": _numpy(splats.means),
        "covariances": _numpy(axes @ axes.mT),
        "rgbs": _numpy((0.5 + 0.28209479177387814 * splats.sh[:, 0]).clamp(0, 1)),
        "opacities": _numpy(splats.opacities[:, None]),
    }


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
