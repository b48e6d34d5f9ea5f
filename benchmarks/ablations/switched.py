"""An example trained several times with one thing switched: what the runs share, what they differ in, and a table of both.

Run by carving.py and mask_upsampling.py, or by hand for any example:

    python benchmarks/ablations/switched.py train_focusing carved= whole=--no-carve --common=--steps --common=100
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import numba
import torch

import voxgen

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """One run: its arguments, the numbers of its result.json, processor seconds, and the most memory that its process took."""

    name: str
    arguments: list[str]
    numbers: dict[str, float]
    cpu_s: float
    wall_s: float
    peak_MB: float = field(default=0.0)


def train(example: str, name: str, arguments: Sequence[str], folder: Path) -> Outcome:
    """Run an example to its end in a process of its own, unless its result is there already."""
    out = folder / name.replace(" ", "_")
    known = out / "outcome.json"
    if known.exists():
        return Outcome(**json.loads(known.read_text()))
    command = [sys.executable, str(ROOT / "examples" / f"{example}.py"), *arguments, "--out", str(out)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    numbers = json.loads((out / "result.json").read_text())
    outcome = Outcome(name, list(arguments), numbers, cpu, time.perf_counter() - start, after.ru_maxrss / 1024)
    known.write_text(json.dumps(asdict(outcome), indent=1))
    return outcome


def compare(example: str, runs: Mapping[str, Sequence[str]], common: Sequence[str], folder: Path, shown: Sequence[str]) -> list[Outcome]:
    """Train all, and print a line for each with the numbers `shown`."""
    outcomes = [train(example, name, [*common, *own], folder) for name, own in runs.items()]
    print(f"\n{'run':<28}" + "".join(f"{name:>18}" for name in (*shown, "cpu_s")))
    for outcome in outcomes:
        values = [outcome.numbers.get(name, float("nan")) for name in shown] + [outcome.cpu_s]
        print(f"{outcome.name:<28}" + "".join(f"{value:>18.4f}" for value in values))
    return outcomes


def write(path: Path | None, about: str, outcomes: Sequence[Outcome]) -> None:
    """The outcomes as JSON, with what they were measured on."""
    if path is None:
        return
    record = {
        "about": about,
        "date": str(date.today()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "numba": numba.__version__},
        "runs": [asdict(outcome) for outcome in outcomes],
    }
    path.write_text(json.dumps(record, indent=1))
    print(f"wrote {path}")


def arguments(description: str, steps: int) -> argparse.Namespace:
    """The options that the ablations share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smallest", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("out") / "ablations", help="runs that are complete there are not repeated")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("example")
    parser.add_argument("runs", nargs="+", metavar="NAME=ARGUMENTS", help="arguments of one run, with commas between them")
    parser.add_argument("--common", action="append", default=[], help="an argument of all runs; as often as needed")
    parser.add_argument("--shown", nargs="+", default=["steps", "seconds"])
    parser.add_argument("--out", type=Path, default=Path("out") / "ablations")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    runs = {name: [a for a in own.split(",") if a] for name, own in (run.split("=", 1) for run in given.runs)}
    write(given.json, given.example, compare(given.example, runs, given.common, given.out / given.example, given.shown))


if __name__ == "__main__":
    main()
