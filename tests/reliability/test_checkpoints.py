"""Which checkpoint a run goes on from after it was killed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from threestudio.utils import checkpoints
from threestudio.utils.checkpoints import AtomicCheckpointIO, check_checkpoint, newest_checkpoint
from threestudio.utils.errors import UserError


def content(step: int) -> dict[str, Any]:
    weights = {"w": torch.arange(300.0) + step}
    return {"state_dict": weights, "epoch": 0, "global_step": step}


def forked(work: Callable[[], None]) -> int:
    """Run something in a process that may kill itself; returns how that ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_after(lines: int, work: Callable[[], None]) -> int:
    """Run something in a process that is killed after so many lines of the module."""
    left = lines

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != checkpoints.__file__:
            return None
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def traced() -> None:
        sys.settrace(trace)
        work()

    return forked(traced)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_killed_at_any_moment_of_writing(tmp_path: Path) -> None:
    """Killed at a line of the writer, between its writes: the old one or the new one is there."""
    path = tmp_path / "ckpts" / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(content(1), path)
    found = []
    for lines in range(0, 1000, 4):
        ended = kill_after(lines, lambda: writer.save_checkpoint(content(2), path))
        assert ended in (0, -signal.SIGKILL)
        newest = newest_checkpoint(path.parent)
        assert newest is not None
        found.append(newest[1])
        if ended == 0:
            break
    assert found[0] == 1
    assert found[-1] == 2
    assert found == sorted(found)
    assert found.count(1) > 5


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_what_is_cut_short_is_passed_over(
    fraction: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(content(5), tmp_path / "good.ckpt")
    whole = (tmp_path / "good.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: int(fraction * len(whole))])
    os.utime(tmp_path / "last.ckpt", (2e9, 2e9))
    assert newest_checkpoint(tmp_path) == (tmp_path / "good.ckpt", 5)
    assert "last.ckpt" in caplog.text


def test_a_flipped_bit_and_a_nan_are_found(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint = content(5)
    torch.save(checkpoint, path)
    assert check_checkpoint(path) == 5
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(checkpoint["state_dict"]["w"].numpy().tobytes()[400:800])] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged"):
        check_checkpoint(path)
    checkpoint["state_dict"]["w"][7] = float("nan")
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="not finite"):
        check_checkpoint(path)


def test_resume_auto_finds_the_newest_run_that_can_be_gone_on_with(
    toy: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = Path("outputs/toy")
    settings = ["timestamp=null", "resume=auto", "checkpoint.every_n_train_steps=2"]
    # There is none yet: a new run.
    assert toy(*settings, "trainer.max_steps=2") == 0
    (first,) = runs.iterdir()
    # A newer one whose checkpoints are cut short, a newer one that was killed before it had any,
    # and one of another tag.
    for name in ("t@29990101-000000", "t@29990102-000000", "other@29990101-000000"):
        shutil.copytree(first, runs / name)
    shutil.rmtree(runs / "t@29990102-000000" / "ckpts")
    for path in (runs / "t@29990101-000000" / "ckpts").iterdir():
        path.write_bytes(path.read_bytes()[:-500])
    assert toy(*settings, "trainer.max_steps=4") == 0
    assert len(list(runs.iterdir())) == 4
    newest = newest_checkpoint(first / "ckpts")
    assert newest is not None
    assert newest[1] == 4
    assert "cut short" in caplog.text
    assert "t@29990102-000000 has no checkpoint" in caplog.text
    # The configuration that a run has kept means that run alone.
    shutil.rmtree(first / "ckpts")
    own = ["--config", str(first / "configs" / "parsed.yaml")]
    assert toy(*own, "--export", "resume=auto") == 2
    assert "found no checkpoint" in capsys.readouterr().err
