"""Signals; checkpoints by steps and minutes; runs that do not overwrite each other."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.reliability.conftest import QUIET, REPOSITORY, named, trial
from threestudio.systems.base import BaseSystem
from threestudio.utils.checkpoints import AtomicCheckpointIO
from threestudio.utils.interruption import Interrupted, listening

RUN = Path("outputs/toy/t@now")


def step_of(run: Path) -> int:
    return torch.load(run / "ckpts" / "last.ckpt", weights_only=True)["global_step"]


def signal_in(patch: pytest.MonkeyPatch, hook: str, signum: int, step: int | None = None) -> None:
    """Send this process a signal, once, within a hook of the system's."""
    original = getattr(BaseSystem, hook)
    sent = False

    def hooked(self: Any, *arguments: Any) -> Any:
        nonlocal sent
        if not sent and (step is None or self.true_global_step == step):
            sent = True
            os.kill(os.getpid(), signum)
        return original(self, *arguments)

    patch.setattr(BaseSystem, hook, hooked)


def test_an_avatar_is_kept_and_its_run_goes_on(
    workplace: Path,
    training: list[str],
    launch: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        signal_in(patch, "on_train_batch_start", signal.SIGTERM, step=3)
        assert launch(*training, *named("stopped")) == 128 + signal.SIGTERM
    run = trial(workplace, "stopped")
    assert step_of(run) == 4  # the step that it came in was finished
    said = capsys.readouterr().err
    assert "stopped by SIGTERM" in said
    assert "of step 4" in said
    # What it says to type is what goes on.
    command = re.search(r"python launch.py (.*)", said)
    assert command is not None
    assert launch(*shlex.split(command[1])) == 0
    assert step_of(run) == 6
    assert (run / "save" / "it6-test.mp4").is_file()
    assert (run / "cmd.txt").read_text().count("Namespace(") == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step(
    signum: signal.Signals,
    toy: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signal_in(monkeypatch, "on_train_batch_start", signum, step=2)
    assert toy() == 128 + signum
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert step_of(RUN) == 3
    assert f"stopped by {signum.name}" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "kept"), [(2, 3), (4, 4)])
def test_a_signal_between_two_steps(
    step: int, kept: int, toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the step was looked at, before lightning asks whether it got a signal."""
    signal_in(monkeypatch, "on_train_batch_end", signal.SIGTERM, step=step)
    assert toy("trainer.val_check_interval=1000") == 128 + signal.SIGTERM
    assert step_of(RUN) == kept


def test_a_signal_during_validation(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in(monkeypatch, "on_validation_batch_start", signal.SIGINT)
    assert toy() == 128 + signal.SIGINT
    assert step_of(RUN) == 2
    assert (RUN / "save" / "it2-1.png").is_file()  # its pictures are all there


def test_a_signal_during_the_test(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        signal_in(patch, "on_test_batch_start", signal.SIGTERM)
        assert toy() == 128 + signal.SIGTERM
    assert "of step 4" in capsys.readouterr().err
    assert step_of(RUN) == 4
    # Going on makes the video that is missing, and trains no further.
    assert toy("resume=auto") == 0
    assert step_of(RUN) == 4
    assert (RUN / "save" / "it4-test.mp4").is_file()


def test_a_signal_before_training_leaves_nothing(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in(monkeypatch, "configure_optimizers", signal.SIGTERM)
    assert toy() == 128 + signal.SIGTERM
    assert not RUN.exists()


def test_a_second_signal_does_not_wait() -> None:
    with listening() as request:
        request.wait_for_the_step = True
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signum == signal.SIGINT
        with pytest.raises(Interrupted) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.status == 128 + signal.SIGTERM


def test_a_process_ends_with_the_signals_status(toy: Callable[..., int]) -> None:
    command = [sys.executable, str(REPOSITORY / "launch.py"), "--config", "toy.yaml", "--train"]
    process = subprocess.Popen(
        [*command, *QUIET, "trainer.max_steps=1000000", "checkpoint.every_n_train_steps=50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (RUN / "ckpts" / "last.ckpt").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert f"of step {step_of(RUN)}" in said


# ------------------------------------------------------------------ by steps and by minutes


def test_checkpoints_by_steps_and_by_minutes(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    save = AtomicCheckpointIO.save_checkpoint

    def save_checkpoint(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        written.append((checkpoint["global_step"], Path(path).name))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_checkpoint)
    # Every step takes 6 of a minute's thousandths.
    monkeypatch.setattr(BaseSystem, "on_train_batch_end", lambda *_: time.sleep(0.36))
    steps, last = "checkpoint.every_n_train_steps=3", "last.ckpt"
    assert toy(steps, "checkpoint.every_n_minutes=0.006", "tag=both") == 0
    assert [w for w in written if w[0] != 3] == [(2, last), (4, last)] or [
        w for w in written if w[0] != 3
    ] == [(1, last), (2, last), (4, last)]
    assert (3, "epoch=0-step=3.ckpt") in written
    written.clear()
    assert toy(steps, "checkpoint.train_time_interval={milliseconds: 1}", "tag=interval") == 0
    assert [step for step, name in written if name == last][:2] == [1, 2]
    written.clear()
    assert toy(steps, "checkpoint.every_n_minutes=0", "tag=steps") == 0
    # The end is kept although it is no multiple of three.
    assert written == [(3, "epoch=0-step=3.ckpt"), (3, last), (4, last)]


@pytest.mark.parametrize(
    "wrong",
    [
        "every_n_minutes=often",
        "every_n_minutes=-1",
        "train_time_interval=3",
        "train_time_interval={minuets: 3}",
    ],
)
def test_impossible_intervals(
    wrong: str, toy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy(f"checkpoint.{wrong}") == 2
    assert wrong.partition("=")[0] in capsys.readouterr().err


# ------------------------------------------------------------------ nothing is overwritten


def test_a_run_does_not_overwrite_another(
    toy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[Path, int]:
        found = [path for path in RUN.rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: path.stat().st_mtime_ns for path in found}

    assert toy() == 0
    before = files()
    assert toy() == 2
    assert "holds a run already" in capsys.readouterr().err
    assert files() == before


def test_runs_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    from threestudio.utils.config import load_config

    text = f"exp_root_dir: {tmp_path}\nname: n\ntag: t\n"
    for _ in range(20):
        os.makedirs(load_config(text, from_string=True).trial_dir)  # fails if it exists


def test_two_processes_do_not_train_in_one_folder(
    toy: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    fcntl = pytest.importorskip("fcntl")
    assert toy() == 0
    with open(RUN / ".lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert toy("resume=auto", "trainer.max_steps=5") == 2
        assert "another process" in capsys.readouterr().err
    assert toy("resume=auto", "trainer.max_steps=5") == 0


def test_leftovers_of_a_killed_run_are_removed(toy: Callable[..., int]) -> None:
    assert toy() == 0
    half = RUN / "ckpts" / ".last.ckpt.123.tmp"
    half.write_bytes(b"half")
    assert toy("resume=auto") == 0
    assert not half.exists()
