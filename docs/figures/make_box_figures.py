"""generated.png: what the system in the box makes of pictures of the first sixteen assets of the test split, with the first sixteen seeds.

python docs/figures/make_box_figures.py      # half a minute on two cores; `make demo` draws the same sheet in a larger size
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from voxgen.demo import generate_sheet, held_out_conditions
from voxgen.models.pipelines import shipped_pipeline

OUT = Path(__file__).with_name("generated.png")
SAMPLES = 16
SIZE = 112


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(generate_sheet(shipped_pipeline(), held_out_conditions(SAMPLES), Path(folder), SIZE))
        Image.open(Path(folder) / "generated.png").convert("RGB").save(OUT, optimize=True)  # a palette would change colours


if __name__ == "__main__":
    main()
