"""The arguments of a training run that all examples share."""

from __future__ import annotations

import argparse
from pathlib import Path

from .average import SCHEDULES
from .task import Task

FIXED = (
    *("data", "budget", "part_weights", "learning_rate", "betas", "weight_decay", "schedule"),
    *("ema", "ema_schedule", "bf16", "seed", "smallest"),
)
"""Arguments that a resumed run must have in common with the one that it continues; tasks have more."""


def parse(task: Task, argv: list[str] | None) -> argparse.Namespace:
    """Arguments of a command line, complete and checked."""
    parser = argparse.ArgumentParser(description=task.description)
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="time to train; preparation before and measuring after come on top")
    add("--steps", type=int, help="train for so many steps instead: then two runs are equal, also if one was interrupted")
    add("--budget", type=int, help=f"{task.unit} a part of a batch; default: {task.budget:,}")
    add("--parts", type=int, default=1, help="parts of a batch and process, one after another: a larger batch in the same memory")
    add(
        "--part-weights",
        choices=("equal", "tokens"),
        default="equal",
        help=f"of parts and processes in the loss; tokens: by their {task.unit}",
    )
    add("--learning-rate", type=float, default=task.learning_rate)
    add("--schedule", choices=("cosine", "constant"), default="cosine", help="of the learning rate; constant as published")
    add("--betas", type=float, nargs=2, default=(0.9, 0.99), help="of AdamW")
    add("--weight-decay", type=float, default=0.0)
    add("--ema", type=float, default=0.99, help="decay of the averaged weights, which are the result; longer runs want 0.999 or more")
    add("--ema-schedule", choices=SCHEDULES, default=SCHEDULES[0], help="of that decay; constant as published, with 0.9999")
    add("--bf16", action="store_true", help="bfloat16 autocast")
    add("--fsdp", action="store_true", help="cut weights, averages and optimiser over the processes; blocks are gathered one at a time")
    add("--elastic-memory", type=float, metavar="SHARE", help="recompute as many blocks as it takes to fill this share of the memory; 0.75")
    add("--memory-limit", type=float, metavar="GB", help="what --elastic-memory takes for all memory; default: that of the GPU")
    add("--workers", type=int, default=0, help="processes that load data")
    add("--checkpoint-every", type=int, default=100, metavar="STEPS")
    add("--picture-every", type=int, default=300, metavar="STEPS", help="of held-out samples, for TensorBoard")
    add("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    add("--resume-from", type=Path, metavar="FILE", help="go on from this checkpoint instead")
    add("--bad-losses", type=int, default=1, metavar="K", help="stop at so many steps in a row with a loss that is not finite")
    add("--bad-gradients", type=int, default=20, metavar="K", help="stop at so many steps in a row that a gradient made us skip")
    add("--replay", type=Path, metavar="FILE", help="repeat the step in failed-step-N.pt, say where it goes wrong, and end")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("out") / task.name)
    add("--smallest", action="store_true", help="the size that tests run")
    task.arguments(parser)
    if task.options is not None:
        task.options(parser)
    parser.set_defaults(**task.defaults)
    arguments = parser.parse_args(argv)
    if arguments.smallest:
        arguments.steps, arguments.checkpoint_every, arguments.picture_every = arguments.steps or 8, 3, 1000
        arguments.budget = arguments.budget or task.smallest_budget
    for name in ("parts", "bad_losses", "bad_gradients", "checkpoint_every", "picture_every"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1; got {getattr(arguments, name)}")
    if arguments.elastic_memory is not None and not 0 < arguments.elastic_memory <= 1:
        parser.error(f"--elastic-memory must be a share of the memory, more than 0 and at most 1; got {arguments.elastic_memory}")
    task.settle(arguments, parser)
    if arguments.budget is None:
        arguments.budget = task.budget
    return arguments
