"""`python -m voxgen.selftest`: does every op give the right numbers on this machine?

Runs the cases of the parity test: each backend of each op against the reference, forward and gradients, on every device.
Prints one row for each op, backend and device; exits with 1 if a row failed.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from voxgen import __version__
from voxgen.ops._registry import load_all_ops
from voxgen.testing.cases import Case, cases_of, dtypes_of
from voxgen.testing.compare import compare_backends, evaluate


@dataclass
class Row:
    """What happened to one op on one backend and device."""

    op: str
    backend: str
    device: str
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def verdict(self) -> str:
        if self.failures:
            return f"FAILED {len(self.failures)} of {self.passed + len(self.failures)}: {self.failures[0]}"
        if self.passed:
            return f"ok ({self.passed} cases)"
        return f"not available: {self.reasons.most_common(1)[0][0]}" if self.reasons else "no cases"


def run(progress: bool = True, devices: Sequence[str] | None = None) -> list[Row]:
    """Run everything that can run on these devices; None: on the CPU, and on a GPU if there is one."""
    devices = devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    jobs: list[tuple[Row, Case]] = []
    rows = []
    for name, op in sorted(load_all_ops().items()):
        cases = [case for dtype in dtypes_of(name) for case in cases_of(name, dtype)]
        for backend in op.backends:
            for device in devices:
                rows.append(Row(name, backend, device))
                jobs += [(rows[-1], case) for case in cases]
    for row, case in tqdm(jobs, desc="selftest", unit="case", disable=not progress, leave=False):
        _run_case(row, case)
    return rows


def _run_case(row: Row, case: Case) -> None:
    backend = load_all_ops()[row.op].backends[row.backend]
    reasons = backend.unsupported(case.call(row.device))
    if reasons:
        row.reasons.update(reasons)
        return
    try:
        if row.backend == "reference":
            evaluate(case, "reference", row.device)
        else:
            compare_backends(case, row.backend, row.device)
        row.passed += 1
    except Exception as error:  # whatever goes wrong is what a self-test reports; it then exits with 1
        row.failures.append(f"{case.name}: {type(error).__name__}: {error}".splitlines()[0])


def main(argv: list[str] | None = None) -> int:
    """Command-line entry: 0 if nothing failed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m voxgen.selftest", description="Does every op give the right numbers on this machine?")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"voxgen {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, {gpu}")
    rows = run(progress=not arguments.quiet and sys.stderr.isatty())
    width = max(len(r.op) for r in rows)
    for row in rows:
        print(f"{row.op:<{width}}  {row.backend:<12} {row.device:<5} {row.verdict}")
    failed = sum(bool(r.failures) for r in rows)
    print(f"{len(rows) - failed} rows without a failure, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
