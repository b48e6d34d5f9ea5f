"""The arguments of a training run that all examples share."""

from __future__ import annotations

import argparse
from pathlib import Path

from .task import Task

FIXED = ("data", "budget", "learning_rate", "betas", "weight_decay", "schedule", "ema", "bf16", "seed", "smallest")
"""Arguments that a resumed run must have in common with the one that it continues; tasks have more."""


def parse(task: Task, argv: list[str] | None) -> argparse.Namespace:
    """Arguments of a command line, complete and checked."""
    parser = argparse.ArgumentParser(description=task.description)
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="time to train; preparation before and measuring after come on top")
    add("--steps", type=int, help="train for so many steps instead: then two runs are equal, also if one was interrupted")
    add("--budget", type=int, help=f"{task.unit} a batch and process; default: {task.budget:,}")
    add("--learning-rate", type=float, default=task.learning_rate)
    add("--schedule", choices=("cosine", "constant"), default="cosine", help="of the learning rate; constant as published")
    add("--betas", type=float, nargs=2, default=(0.9, 0.99), help="of AdamW")
    add("--weight-decay", type=float, default=0.0)
    add("--ema", type=float, default=0.99, help="decay of the averaged weights, which are the result; longer runs want 0.999 or more")
    add("--bf16", action="store_true", help="bfloat16 autocast")
    add("--workers", type=int, default=0, help="processes that load data")
    add("--checkpoint-every", type=int, default=100, metavar="STEPS")
    add("--picture-every", type=int, default=300, metavar="STEPS", help="of held-out samples, for TensorBoard")
    add("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
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
    task.settle(arguments, parser)
    if arguments.budget is None:
        arguments.budget = task.budget
    return arguments
