"""How fast each phase runs here, with and without compiling: minutes that save an hour."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tools.prior.data import TRAINING, PictureSource, render_chunk
from tools.prior.logs import say
from tools.prior.running import Run
from tools.prior.settings import Settings
from tools.prior.training import train

# Eager first: it shows within a minute whether the code runs on this machine at all.
VARIANTS = (("none", False), ("all", True), ("all", False))


@dataclass
class Timing:
    """One variant's speeds."""

    variant: str
    steps_per_second: dict[str, float]
    total_seconds: float
    peak_gib: float


def measure(run: Run, source: PictureSource, held_out: PictureSource) -> list[Timing]:
    """Run everything briefly in each variant and print a table.

    The variants share nothing; their files go to a temporary folder, except the logs of each,
    which are kept in a folder of its name. Variants that no time is left for are skipped.
    """
    _time_rendering(run, source)
    timings = []
    for compile_mode, channels_last in VARIANTS:
        name = f"compile-{compile_mode}" + ("-channels-last" if channels_last else "")
        if run.out_of_time():
            say(f"{name}: no time left, skipped")
            continue
        settings = replace(run.settings, compile=compile_mode, channels_last=channels_last)
        timings.append(_measure_one(run, settings, name, source, held_out))
    for timing in timings:
        speeds = ", ".join(f"{k} {v:.2f} steps/s" for k, v in timing.steps_per_second.items())
        say(
            f"{timing.variant:28s} {speeds}, {timing.total_seconds:.0f} s in all, "
            f"peak {timing.peak_gib:.1f} GiB"
        )
    return timings


def _measure_one(
    run: Run, settings: Settings, name: str, source: PictureSource, held_out: PictureSource
) -> Timing:
    start = time.monotonic()
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        one = replace(
            run, settings=settings, state=Path(folder) / "state", logs=run.logs / name, tables={}
        )
        train(one, source, held_out, Path(folder) / "prior")
    peak = torch.cuda.max_memory_allocated() if run.device.type == "cuda" else 0
    return Timing(name, dict(one.speeds), time.monotonic() - start, peak / 2**30)


def _time_rendering(run: Run, source: PictureSource) -> None:
    """Say how many pictures a second are rendered, after a first chunk that compiles kernels."""
    render_chunk(source, run.settings, TRAINING, 0)
    start, chunks = time.monotonic(), 4
    for index in range(chunks):
        picture = render_chunk(source, run.settings, TRAINING, index).image
    picture.sum().item()  # waits for the device
    count = chunks * run.settings.chunk
    say(f"rendering: {count / (time.monotonic() - start):.0f} pictures/s")
