"""Everything that needs a GPU, in one run: parity of every op on it, tile shapes tuned, convolution and attention timed.

    python benchmarks/gpu.py --json gpu.json                    # parity, tuning, timing: about eight minutes
    python benchmarks/gpu.py --only parity                      # of: parity, tune, time, attention
    python benchmarks/gpu.py --minutes 4 --channels 64 128      # a smaller run

Parity runs the cases of `tests/parity` on the device, each engine of each op against the reference there; a failed row is
written down and does not stop the run. Tuning measures the tile shapes of the Triton convolution, each checked against the
reference first. Timing takes the convolution of `benchmarks/conv.py`, before and after tuning, as a share of torch.mm in the
same run, and `benchmarks/attention.py` at the settings of the released Direct3D-S2 flows. The file is written after each
part, so that a run which is cut off leaves what it had. Without a CUDA device it says so and ends well: nothing was run.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from conv import measure_layer

import voxgen
from voxgen import selftest
from voxgen.core.atomic import atomic_write
from voxgen.ops.conv.tuning import tune_conv
from voxgen.ops.neighbors import NeighborTable, neighbor_table
from voxgen.testing.shells import shell

PARTS = ("parity", "tune", "time", "attention")


def parity() -> dict[str, Any]:
    """Verdict by op and backend, on the device."""
    rows = [row for row in selftest.run(devices=["cuda"]) if row.backend != "reference"]
    for row in rows:
        print(f"  {row.op:<24} {row.backend:<12} {row.verdict}")
    return {f"{row.op}: {row.backend}": {"passed": row.passed, "failures": row.failures, "verdict": row.verdict} for row in rows}


def tune(table: NeighborTable, channels: list[int], dtypes: list[torch.dtype], until: float) -> dict[str, str]:
    """The chosen tile shape by channels and dtype."""
    chosen: dict[str, str] = {}
    for dtype in dtypes:
        for c in channels:
            if time.perf_counter() > until:
                return chosen
            name = f"{c} → {c}, {str(dtype).removeprefix('torch.')}"
            chosen[name] = str(tune_conv(table, c, c, dtype))
            print(f"  {name}: {chosen[name]}")
    return chosen


def timings(table: NeighborTable, options: argparse.Namespace, until: float) -> dict[str, Any]:
    """Layers by dtype and channels."""
    found: dict[str, Any] = {}
    for dtype in options.dtype:
        for channels in options.channels:
            if time.perf_counter() > until:
                return found
            layer = argparse.Namespace(dtype=dtype, device="cuda", engine=["triton", "torch"], no_backward=False, repeats=15, budget=6.0)
            found[f"{dtype}, C={channels}"] = measure_layer(table, channels, layer)
    return found


def attention(until: float) -> dict[str, Any]:
    """`benchmarks/attention.py` in a process of its own for each setting: side of a compression block, and blocks chosen."""
    found: dict[str, Any] = {}
    for name, compression, top_k in (("v1.1", 8, 8), ("v1.0", 4, 32)):
        left = until - time.perf_counter()
        if left <= 0:
            break
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "attention.json"
            command = [sys.executable, str(Path(__file__).with_name("attention.py")), "--device", "cuda", "--dtype", "float16"]
            command += ["--tokens", "8192", "32768", "131072", "--compression", str(compression), "--top-k", str(top_k)]
            try:
                subprocess.run([*command, "--json", str(result)], timeout=left, check=True)
            except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
                found[name] = f"not run to its end: {error}"
                continue
            found[name] = json.loads(result.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--resolution", type=int, default=256, help="cells a side of the surface that is timed")
    parser.add_argument("--channels", type=int, nargs="*", default=[32, 64, 128, 256, 512, 1024])
    parser.add_argument("--dtype", nargs="*", default=["bfloat16", "float16", "float32"])
    parser.add_argument("--minutes", type=float, default=8.0, help="no new measurement begins after this")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here; nothing was run.")
        return
    until = time.perf_counter() + 60 * options.minutes
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(),
        "machine": platform.machine(),
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    print(", ".join(f"{key} {value}" for key, value in report.items()))

    def note(part: str, found: Any) -> None:
        report[part] = found
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(options.json, "w") as file:
                file.write(json.dumps(report, indent=1) + "\n")

    if "parity" in options.only:
        note("parity", parity())
    table = neighbor_table(shell(resolution=options.resolution).grid.to("cuda"))
    report["surface"] = {"resolution": options.resolution, "cells": len(table), "pairs": table.num_pairs()}
    if "time" in options.only:
        note("before tuning", timings(table, options, until))
    if "tune" in options.only:
        note("tile shapes", tune(table, options.channels, [getattr(torch, name) for name in options.dtype], until))
        if "time" in options.only:
            note("after tuning", timings(table, options, until))
    if "attention" in options.only:
        note("attention", attention(until))


if __name__ == "__main__":
    main()
