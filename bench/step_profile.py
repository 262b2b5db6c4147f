"""What a training step spends its time on: torch's tables, and who made the host wait for the GPU.

Used by ``bench/train_step.py --profile FILE``.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

PROFILED_STEPS = 3
# Then one under CUDA's own watch for synchronisations, which says where each came from.
EXTRA_STEPS = PROFILED_STEPS + 1
CALLS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "Memcpy DtoH",
         "Memcpy HtoD", "cudaMemcpyAsync", "cudaLaunchKernel", "cuLaunchKernel",
         "cudaGraphLaunch")  # fmt: skip
HERE = ("headstudio", "threestudio", "gsplat", "diffusers", "pytorch_lightning", "bench/")


class StepProfile(pl.Callback):
    """Profiles the last :data:`EXTRA_STEPS` steps of a run.

    Attributes:
        text: the report, once the run has ended.
    """

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.on_gpu = torch.cuda.is_available()
        self.text = ""
        self._profiler: Any = None
        self._waits: Counter[str] = Counter()
        self._shown: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step - self.first_step
        if step == 0:
            self._profiler = torch.profiler.profile()
            self._profiler.__enter__()
        elif step == PROFILED_STEPS:
            self._end_profile()
            if self.on_gpu:
                self._shown, warnings.showwarning = warnings.showwarning, self._note
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")

    def on_train_end(self, *_: Any) -> None:
        if self._shown is not None:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = self._shown
            lines = [f"{n} x {where}" for where, n in self._waits.most_common()]
            self.text += "\n".join(["", "One step's synchronisations, by who asked:", *lines, ""])

    def write(self, path: str | Path) -> None:
        """Save the report."""
        Path(path).write_text(self.text, encoding="utf-8")

    def _end_profile(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
        self._profiler.__exit__(None, None, None)
        averages = self._profiler.key_averages()
        parts = [f"{PROFILED_STEPS} steps"]
        if self.on_gpu:
            parts += ["by the GPU's time:", _table(averages, "self_cuda_time_total", 60)]
        parts += ["by the CPU's time:", _table(averages, "self_cpu_time_total", 40)]
        parts.append("Calls per step, and ms of the host's time per step:")
        for event in averages:
            if any(event.key.startswith(call) for call in CALLS):
                ms = event.self_cpu_time_total / 1e3 / PROFILED_STEPS
                parts.append(f"{event.count / PROFILED_STEPS:9.1f} {ms:9.3f} {event.key}")
        parts.append(_idle(self._profiler))
        self.text = "\n".join(parts)

    def _note(self, message: Any, *rest: Any, **more: Any) -> None:
        if "synchroniz" not in str(message):
            return
        stack = [f for f in traceback.extract_stack() if any(name in f.filename for name in HERE)]
        frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in stack[-6:]]
        self._waits[" < ".join(reversed(frames))] += 1


def _table(averages: Any, by: str, rows: int) -> str:
    return str(averages.table(sort_by=by, row_limit=rows, max_name_column_width=90))


def _idle(profiler: Any) -> str:
    """How long the GPU had nothing to do, and the longest of these times, per step."""
    cuda = torch.autograd.DeviceType.CUDA
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in profiler.events()
        if event.device_type == cuda
        and event.time_range.end > event.time_range.start
        and not event.is_user_annotation  # such as the optimiser's, over the whole step
    )
    if not spans:
        return "no work on a GPU"
    gaps, end, last = [], spans[0][1], spans[0][2]
    for start, stop, name in spans[1:]:
        if start > end:
            gaps.append((start - end, last, name))
        if stop >= end:
            end, last = stop, name
    total = sum(gap for gap, _, _ in gaps)
    lines = [f"GPU idle {total / 1e3 / PROFILED_STEPS:.3f} ms of a step's "
             f"{(end - spans[0][0]) / 1e3 / PROFILED_STEPS:.3f}; the longest, us:"]  # fmt: skip
    for gap, before, after in sorted(gaps, reverse=True)[:30]:
        lines.append(f"{gap:9.1f}  after {before[:70]}  before {after[:70]}")
    return "\n".join(lines)
