"""Mask upsampling on and off: the same texture autoencoder, shapes, seed, order and steps, decoded on the mask's cells or on all children.

    OMP_WAIT_POLICY=passive python benchmarks/ablations/mask_upsampling.py --json mask.json   # some fifteen minutes on two cores
    python benchmarks/ablations/mask_upsampling.py --smallest

Sparse-Up decodes only the children that hold surface, by a mask that its network predicts. Expected: a fraction of the Gaussians and of
the memory, no loss of quality. Measured on held-out views after equally many steps: PSNR in decibels, Gaussians a shape, and what a step
keeps for its backward pass.
"""

from __future__ import annotations

from switched import arguments, compare, write

RUNS = {"mask": ["--mask", "gt"], "all children": ["--mask", "all"]}


def main() -> None:
    given = arguments((__doc__ or "").splitlines()[0], steps=120)
    size = ["--steps", str(given.steps), "--shapes", "24", "--held-out", "4", "--resolution", "64", "--view-size", "128"]
    common = ["--smallest"] if given.smallest else size
    common += ["--seed", str(given.seed)]
    outcomes = compare("train_texture_vae", RUNS, common, given.out / "mask", ("psnr", "gaussians", "kept_megabytes", "seconds"))
    write(given.json, "mask upsampling on and off", outcomes)


if __name__ == "__main__":
    main()
