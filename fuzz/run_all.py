"""Fuzzes every reader in turn and prints a table: ``python fuzz/run_all.py --minutes 10``.

Ends with status 1 if there is a finding. Inputs that are findings lie in ``fuzz/found/``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from targets import TARGETS  # noqa: E402

HEAD = (
    "| reader | seconds | of a processor | executions | edges | refused "
    "| slowest, s | s/KiB | memory, MiB | findings |"
)


def run(name: str, seconds: float) -> dict:
    """Fuzz one reader; returns its statistics, with ``edges``, ``seconds`` and the processor's."""
    report = HERE / "found" / f"{name}.json"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    start, used = time.monotonic(), _processor()
    done = subprocess.run(
        [sys.executable, str(HERE / f"fuzz_{name}.py"), f"-max_total_time={seconds:.0f}"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "FUZZ_STATISTICS": str(report)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    statistics = json.loads(report.read_text()) if report.is_file() else {"findings": {}}
    edges = re.findall(r"cov: (\d+)", done.stderr)
    total = re.findall(r"Done (\d+) runs", done.stderr)
    statistics.update(
        seconds=time.monotonic() - start,
        processor=_processor() - used,
        edges=int(edges[-1]) if edges else 0,
        executions=int(total[-1]) if total else statistics.get("executions", 0),
    )
    if done.returncode != 0:
        statistics["findings"][f"the fuzzer ended with status {done.returncode}"] = 1
        (HERE / "found" / f"{name}.log").write_text(done.stderr[-20000:])
    return statistics


def _processor() -> float:
    """Seconds of a processor that fuzzers have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def row(name: str, s: dict) -> str:
    """A line of the table."""
    findings = "; ".join(s["findings"]) or "none"
    refused = 100 * s.get("refused", 0) / max(1, s["executions"])
    return (
        f"| `{name}` | {s['seconds']:.0f} | {s['processor']:.0f} "
        f"| {s['executions']} | {s['edges']} | {refused:.0f} % "
        f"| {s.get('slowest_seconds', 0):.2f} | {s.get('slowest_seconds_per_kib', 0):.2f} "
        f"| {s.get('largest_memory', 0) / 2**20:.1f} | {findings} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each reader")
    parser.add_argument("readers", nargs="*", choices=[[], *TARGETS], help="default: all")
    args = parser.parse_args()
    print(HEAD)
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    bad = False
    for name in args.readers or TARGETS:
        statistics = run(name, 60 * args.minutes)
        bad = bad or bool(statistics["findings"])
        print(row(name, statistics), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
