"""Depth carving on and off: one SparseFlex autoencoder, shapes, seed, order and steps, pictures of carved or of all latents.

    OMP_WAIT_POLICY=passive python benchmarks/ablations/carving.py --json carving.json       # some twenty minutes on two cores
    python benchmarks/ablations/carving.py --smallest

Focusing carves latents that no pixel of the training view needs, before they are decoded. Expected: less memory a step, more steps in the
same time, and no loss of quality. `carve and zoom` is the example's default. Measured on held-out shapes after equally many steps:
Chamfer distance and F-score in voxels; `peak_MB` is that of the whole process; benchmarks/carving.py has the memory of a step alone.
"""

from __future__ import annotations

from switched import arguments, compare, write

RUNS = {"carve and zoom": [], "carve": ["--no-zoom"], "neither": ["--no-carve", "--no-zoom"]}


def main() -> None:
    given = arguments((__doc__ or "").splitlines()[0], steps=150)
    common = ["--smallest"] if given.smallest else ["--steps", str(given.steps), "--shapes", "48", "--held-out", "6"]
    common += ["--seed", str(given.seed)]
    outcomes = compare("train_focusing", RUNS, common, given.out / "carving", ("chamfer", "f1", "iou", "seconds"))
    write(given.json, "depth carving on and off", outcomes)


if __name__ == "__main__":
    main()
