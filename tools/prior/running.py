"""Parts both training phases share: when to stop, what to keep, what to compile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write
from tools.prior.logs import Row, describe, say, write_csv
from tools.prior.optimize import Learner, Progress
from tools.prior.settings import Phase, Settings


@dataclass
class Run:
    """One invocation of the program.

    Attributes:
        settings: what to train.
        device: where.
        state: folder of the files a stopped run goes on from.
        logs: folder of tables, curves and pictures.
        deadline: ``time.monotonic()`` after which no further step is begun.
        last_call: whether the second phase is to end, with its learning rate run down, by the
            deadline, whatever was planned; for when no other call can follow.
        state_only: whether to end without judging and saving the prior, since another call follows.
        tables: figures by phase, for the curves.
        speeds: steps per second by phase, of this invocation.
    """

    settings: Settings
    device: torch.device
    state: Path
    logs: Path
    deadline: float = float("inf")
    last_call: bool = False
    state_only: bool = False
    tables: dict[str, list[Row]] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)

    def out_of_time(self) -> bool:
        return time.monotonic() > self.deadline

    def generator(self, seed: int) -> torch.Generator:
        """A generator on the run's device."""
        return torch.Generator(self.device).manual_seed(seed)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, replacing the last one only when it is complete."""
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint, or None if there is none yet.

    Raises:
        HeadStudioError: for a damaged file.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise HeadStudioError(
            f"{path} cannot be read ({error}); delete it to start this phase again"
        ) from error


def compiled(
    module: nn.Module, wanted: bool, trial: Callable[[nn.Module], None], name: str
) -> nn.Module:
    """``torch.compile(module)`` if that is wanted and works, else ``module`` itself.

    Args:
        module: what to compile.
        wanted: False returns the module as it is.
        trial: calls the module as training will, with a backward pass, so that compilation happens
            now and not inside the time that is counted as training.
        name: for the log.
    """
    if not wanted:
        return module
    start = time.monotonic()
    try:
        fast = torch.compile(module, dynamic=False)
        trial(fast)
    except Exception as error:  # the compiler fails in many ways, all of which end in eager mode
        say(f"{name}: compiling failed, going on without ({type(error).__name__}: {error})"[:600])
        fast = module
    else:
        say(f"{name}: compiled in {time.monotonic() - start:.1f} s")
    for p in module.parameters():
        p.grad = None
    return fast


class PhaseLoop:
    """Steps of one phase: the clock, the table of figures, the checkpoint.

    Iterating yields once per step until the phase's budget is spent or the run is out of time; the
    body must call :meth:`log` with device tensors, which are read every ``phase.log_every`` steps
    only, since reading one waits for the device.
    """

    def __init__(self, run: Run, name: str, phase: Phase, learner: Learner) -> None:
        self.run, self.name, self.phase, self.learner = run, name, phase, learner
        self.progress = Progress()
        self.generator = run.generator(0)
        self.rows: list[Row] = []
        self.extra: dict[str, float] = {}
        self._ends_here = False
        self._path = run.state / f"{name}.pt"

    def resume(self, seed: int) -> bool:
        """Load the checkpoint if there is one, else seed the generator."""
        self.generator.manual_seed(seed)
        state = load_state(self._path, self.run.device)
        if state is not None:
            try:
                self.learner.load_state_dict(state["learner"])
            except (ValueError, RuntimeError) as error:
                raise HeadStudioError(
                    f"{self._path} does not fit these settings ({error}); use the settings it was "
                    "made with, or another --state folder"
                ) from error
            self.generator.set_state(state["generator"].cpu())
            self.progress = Progress(**state["progress"])
            self.rows, self.extra = state["rows"], state["extra"]
            say(f"{self.name}: going on from step {self.progress.step}")
        self.run.tables[self.name] = self.rows
        return state is not None

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "learner": self.learner.state_dict(),
            "generator": self.generator.get_state(),
            "progress": vars(self.progress),
            "rows": self.rows,
            "extra": self.extra,
        }
        save_state(self._path, state)

    @property
    def done(self) -> bool:
        """Whether the phase's budget is spent, or a last call has run its learning rate down."""
        return "complete" in self.extra or self.progress.fraction(self.phase) >= 1.0

    def end_by(self, deadline: float) -> None:
        """Plan the rest of the phase to end at a time of ``time.monotonic()``.

        After that the phase is done, for later calls on the same state too, although the clock of
        the phase, which leaves out the disk's time, says a little less than was planned.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            say(f"{self.name}: no time left to run its learning rate down in")
            return
        self._ends_here = True
        self.phase = replace(self.phase, minutes=(self.progress.seconds + left) / 60)
        self.learner.phase = self.phase
        say(f"{self.name}: planned to end in {left:.0f} s")

    def __iter__(self) -> Iterator[int]:
        last = saved = time.monotonic()
        first, begin = self.progress.step, last
        while not self.done and not self.run.out_of_time():
            yield self.progress.step
            self.progress.step += 1
            now = time.monotonic()
            self.progress.seconds += now - last
            last = now
            if now - saved > 60 * self.run.settings.checkpoint_minutes:
                self.save()
                saved = last = time.monotonic()  # the disk's time is not the phase's
        if self.progress.step > first:
            if self._ends_here:
                self.extra["complete"] = 1.0
            speed = (self.progress.step - first) / (time.monotonic() - begin)
            self.run.speeds[self.name] = speed
            say(
                f"{self.name}: {self.progress.step - first} steps at "
                f"{speed:.2f}/s, {100 * self.progress.fraction(self.phase):.0f} % "
                "of the phase done"
            )
            self.save()

    def due(self) -> bool:
        """Whether this step's figures are to be read."""
        return self.progress.step % self.phase.log_every == 0

    def log(self, figures: dict[str, Any]) -> None:
        """Append a row, print it and rewrite the table.

        Raises:
            HeadStudioError: if a figure is not finite; the last checkpoint is kept.
        """
        row: Row = {"step": float(self.progress.step), "seconds": self.progress.seconds}
        row["learning_rate"] = self.learner.rate
        row.update({k: torch.as_tensor(v).item() for k, v in figures.items()})
        wrong = [k for k, v in row.items() if not abs(v) < float("inf")]
        if wrong:
            raise HeadStudioError(
                f"{self.name} diverged at step {self.progress.step}: {', '.join(wrong)} is not "
                "finite. Lower the learning rate; the last checkpoint was kept."
            )
        self.rows.append(row)
        say(f"{self.name}: {describe(row)}")
        write_csv(self.run.logs / f"{self.name}.csv", self.rows)
