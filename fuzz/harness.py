"""Runs one reader on one file, and says what that took; and runs a fuzzer on a reader.

What counts as a finding: an exception that is not the reader's own error, more than one second a
KiB (and at least one second), or more memory than ten times the file and `ALLOWANCE`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
for _place in (HERE, REPOSITORY / "custom/threestudio-headstudio", REPOSITORY / "host"):
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

from targets import TARGETS, Target  # noqa: E402

ALLOWANCE = 64 << 20
"""Bytes that reading any file may take: libraries, tables, an avatar's head."""
SECONDS_PER_KIB = 1.0
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep little


@dataclass
class Outcome:
    """What one file did."""

    size: int
    seconds: float
    memory: int
    refused: bool = False
    finding: str = ""
    trace: str = ""


@dataclass
class Statistics:
    """What many files did."""

    reader: str
    executions: int = 0
    refused: int = 0
    slowest_seconds: float = 0.0
    slowest_seconds_per_kib: float = 0.0
    largest_memory: int = 0
    findings: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> bool:
        """Count one more; returns whether it is a finding of a new kind."""
        self.executions += 1
        self.refused += outcome.refused
        kib = max(1.0, outcome.size / 1024)
        self.slowest_seconds = max(self.slowest_seconds, outcome.seconds)
        self.slowest_seconds_per_kib = max(self.slowest_seconds_per_kib, outcome.seconds / kib)
        self.largest_memory = max(self.largest_memory, outcome.memory)
        if not outcome.finding:
            return False
        self.findings[outcome.finding] = self.findings.get(outcome.finding, 0) + 1
        return self.findings[outcome.finding] == 1


def attempt(target: Target, data: bytes, folder: Path) -> Outcome:
    """Read a file of these bytes, as the only one in a folder."""
    path = target.place(folder, data)
    # Garbage of others, collected meanwhile, would be taken off what this file needs; and memory
    # that they freed, but the process still has, would be given to this file unseen.
    collecting = gc.isenabled()
    gc.disable()
    if _trim is not None:
        _trim(0)
    before = _resident()
    _reset_peak()
    start, wall = time.process_time(), time.perf_counter() - _queued()
    refused, finding, trace = False, "", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except target.own_errors() as error:
        refused = True
        if not str(error).strip():
            finding = "an error without a message"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [f for f in place if "headstudio" in f.filename or "host/threestudio" in f.filename]
        frame = (ours or place)[-1]
        finding = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.name}"
        trace = traceback.format_exc()
    seconds, wall = time.process_time() - start, time.perf_counter() - _queued() - wall
    memory = max(0, _peak() - before)
    if collecting:
        gc.enable()
    kib = max(1.0, len(data) / 1024)
    # The processor's time: what a busy machine adds is no file's fault. Waiting is, if it is long.
    if not finding and max(seconds, wall / 10) > SECONDS_PER_KIB * kib:
        finding = "too slow"
    if not finding and memory > 10 * len(data) + ALLOWANCE:
        finding = "too much memory"
    return Outcome(len(data), seconds, memory, refused, finding, trace)


def warm_up(target: Target, folder: Path) -> None:
    """Let a reader import what it needs: what a first call takes is no file's fault."""
    target.own_errors()
    attempt(target, target.files()[0].read_bytes(), folder)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _queued() -> float:
    """Seconds in which the process could run, and others did."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak() -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def replay(target: Target, seconds: float, seed: int, folder: Path) -> tuple[Statistics, list[str]]:
    """Read the corpus, the regressions, and random changes of them for a while.

    Returns:
        What happened, and a trace for each kind of finding.
    """
    quiet()
    statistics, traces = Statistics(target.name), []
    files = [file.read_bytes() for file in target.files()]
    warm_up(target, folder)
    for data in files:
        outcome = attempt(target, data, folder)
        if statistics.add(outcome):
            traces.append(outcome.trace or outcome.finding)
    rng = Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = rng.choice(files)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = target.mutate(data, rng)
        outcome = attempt(target, data, folder)
        if statistics.add(outcome):
            traces.append(outcome.trace or outcome.finding)
    return statistics, traces


def quiet() -> None:
    """Without the readers' log lines."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def main(name: str) -> None:
    """Fuzz a reader with atheris; arguments are libFuzzer's, such as ``-max_total_time=60``.

    The statistics are written to ``$FUZZ_STATISTICS`` or ``fuzz/found/<reader>.json``, inputs that
    are findings to ``fuzz/found/<reader>/``, one of each kind.
    """
    import atheris

    target = TARGETS[name]
    found = HERE / "found"
    report = Path(os.environ.get("FUZZ_STATISTICS", found / f"{name}.json"))
    report.parent.mkdir(parents=True, exist_ok=True)
    quiet()
    included = list(target.instrument)
    with (
        atheris.instrument_imports(include=included, enable_loader_override=False),
        tempfile.TemporaryDirectory() as once,
    ):
        warm_up(target, Path(once))
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=base))
    grown = folder / "corpus"
    grown.mkdir()
    for file in target.files():
        shutil.copy(file, grown)
    (folder / "place").mkdir()
    statistics = Statistics(name)
    last = [0.0]
    warm_up(target, folder / "place")

    def one(data: bytes) -> None:
        outcome = attempt(target, data, folder / "place")
        new = statistics.add(outcome)
        if new:
            (found / name).mkdir(parents=True, exist_ok=True)
            stem = found / name / f"{len(statistics.findings):02d}"
            stem.with_suffix(target.suffix or ".bin").write_bytes(data)
            stem.with_suffix(".txt").write_text(f"{outcome.finding}\n{outcome.trace}")
        if new or time.monotonic() - last[0] > 1:
            last[0] = time.monotonic()
            report.write_text(json.dumps(asdict(statistics)))

    seeds = [file.read_bytes() for file in target.files()]
    good = [s for s in seeds if not attempt(target, s, folder / "place").refused] or seeds

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        # What libFuzzer keeps is soon damaged in many ways, of which readers see the first alone.
        if rng.random() < 0.4:
            return target.mutate(rng.choice(good), rng)[:max_size]
        if rng.random() < 0.3:
            return atheris.Mutate(data, max_size)
        return target.mutate(data, rng)[:max_size]

    options: list[Any] = [a for a in sys.argv[1:] if a.startswith("-")]
    places = [a for a in sys.argv[1:] if not a.startswith("-")] or [str(grown)]
    if not any(option.startswith("-max_len") for option in options):
        options.append("-max_len=65536")
    options += ["-timeout=120", "-rss_limit_mb=4096", f"-artifact_prefix={found / name}-"]
    atheris.Setup([sys.argv[0], *options, *places], one, custom_mutator=mutate)
    atheris.Fuzz()
