"""viewer.png: `voxgen view` in a headless Chromium, an asset as mesh, as O-Voxel cells and as Gaussians.

python docs/figures/make_viewer_figure.py      # needs viser, playwright, and a Chromium on the path
"""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from voxgen.data import procedural_asset
from voxgen.representations import GaussianSplats, OVoxel
from voxgen.view import Viewer

OUT = Path(__file__).with_name("viewer.png")
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]


def main() -> None:
    mesh = procedural_asset(0).mesh
    ovoxel = OVoxel.from_mesh(mesh, resolution=64)
    items = {"asset": mesh, "O-Voxel, 64³": ovoxel, "Gaussians": GaussianSplats.from_ovoxel(OVoxel.from_mesh(mesh, resolution=128))}
    with Viewer(items, port=0) as viewer, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 640})
        page.goto(viewer.url)
        page.wait_for_selector("canvas")
        viewer.set_overlay("cells", True)
        page.wait_for_timeout(6000)
        notes = page.locator(".mantine-Notification-closeButton")
        for _ in range(notes.count()):
            notes.first.click()
        page.wait_for_timeout(2000)
        page.screenshot(path=OUT)
        browser.close()
    Image.open(OUT).convert("RGB").quantize(128).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
