"""Full disks, folders that cannot be written to, GPUs that vanish: a sentence, nothing lost."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headstudio.plugin.renderer import GsplatRenderer
from tests.reliability.conftest import named, trial
from tests.reliability.test_checkpoints import content, forked
from threestudio.systems.base import BaseSystem
from threestudio.utils import checkpoints, pictures
from threestudio.utils.checkpoints import AtomicCheckpointIO, newest_checkpoint
from threestudio.utils.failures import explain

RUN = Path("outputs/toy/t@now")
EVERY_STEP = "checkpoint.every_n_train_steps=1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def in_step(patch: pytest.MonkeyPatch, step: int, what: Callable[[], Any]) -> None:
    """Do something at the beginning of a training step."""
    original = BaseSystem.on_train_batch_start

    def on_train_batch_start(self: Any, *arguments: Any) -> Any:
        if self.true_global_step == step:
            what()
        return original(self, *arguments)

    patch.setattr(BaseSystem, "on_train_batch_start", on_train_batch_start)


def fill(folder: Path) -> None:
    """Leave no byte free."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filler").write_bytes(bytes(free))
    assert os.statvfs(folder).f_bavail == 0


def test_a_disk_that_fills_up(
    toy: Callable[..., int],
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = [f"exp_root_dir={small_disk}", EVERY_STEP]
    with monkeypatch.context() as patch:
        in_step(patch, 3, lambda: fill(small_disk))
        assert toy(*settings) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "of step 3" in said
    folder = small_disk / "toy" / "t@now" / "ckpts"
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest[1] == 3
    assert not list(folder.glob(".*"))
    # With room again it goes on.
    (small_disk / "filler").unlink()
    assert toy(*settings, "resume=auto") == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_checkpoint_that_cannot_be_written(
    number: int,
    toy: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(self: Any, data: Any) -> int:
        self.error = OSError(number, os.strerror(number), "last.ckpt")
        raise self.error

    in_step(monkeypatch, 2, lambda: monkeypatch.setattr(checkpoints._Writer, "write", refuse))
    assert toy(EVERY_STEP) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the run cannot write")
    assert os.strerror(number) in said
    assert "of step 2" in said
    assert "Traceback" not in said


def test_a_picture_that_cannot_be_written(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: str, img: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(pictures, "write", refuse)
    assert toy(EVERY_STEP) == 1  # in the validation after step 2
    said = capsys.readouterr().err
    assert "it2-0.png" in said
    assert "of step 2" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(content(1), path)

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match="File too large") as refused:
            writer.save_checkpoint(content(2), path)
        assert "File too large" in str(explain(refused.value))

    assert forked(write) == 0
    assert newest_checkpoint(tmp_path) == (path, 1)
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_read_only_disk_is_said_before_anything_begins(
    toy: Callable[..., int], small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert toy(f"exp_root_dir={small_disk}") == 2
    assert "not writable" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_becomes_read_only(
    number: int,
    toy: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: str | Path, target: str | Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    in_step(monkeypatch, 2, lambda: monkeypatch.setattr(os, "replace", refuse))
    assert toy(EVERY_STEP) == 1
    said = capsys.readouterr().err
    assert os.strerror(number) in said
    assert "of step 2" in said


def test_a_folder_that_is_removed_while_it_runs(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def remove() -> None:
        (RUN / "ckpts").rename(RUN / "moved")
        (RUN / "ckpts").write_text("a file where the folder was")

    in_step(monkeypatch, 3, remove)
    assert toy(EVERY_STEP) == 1
    assert "cannot write" in capsys.readouterr().err
    newest = newest_checkpoint(RUN / "moved")
    assert newest is not None
    assert newest[1] == 3


def test_a_gpu_that_vanishes(
    workplace: Path,
    training: list[str],
    launch: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The renderer fails as on a GPU that fell off the bus, and so does tidying up after it."""
    lost = "CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later"
    forward = GsplatRenderer.forward
    calls = 0

    def fail(self: Any, *arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise torch.AcceleratorError(lost)
        return forward(self, *arguments, **settings)

    def teardown(self: Any) -> None:
        if calls == 5:
            raise torch.AcceleratorError("CUDA error: the context is destroyed")

    with monkeypatch.context() as patch:
        patch.setattr(GsplatRenderer, "forward", fail)
        patch.setattr("pytorch_lightning.strategies.SingleDeviceStrategy.teardown", teardown)
        status = launch(*training, *named("vanished"), EVERY_STEP)
    assert status == 1
    said = capsys.readouterr().err
    assert "the GPU stopped working: CUDA error: unspecified launch failure" in said
    assert "of step 4" in said
    again = [*training, *named("vanished"), EVERY_STEP, "resume=auto"]
    assert launch(*again) == 0
    newest = newest_checkpoint(trial(workplace, "vanished") / "ckpts")
    assert newest is not None
    assert newest[1] == 6


def test_a_gpu_whose_memory_is_full(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    in_step(monkeypatch, 2, fail)
    assert toy(EVERY_STEP) == 1
    said = capsys.readouterr().err
    assert "Tried to allocate" in said
    assert "data.batch_size" in said
    assert "of step 2" in said


def test_mistakes_of_ours_keep_their_traceback(
    toy: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("shapes do not fit")

    in_step(monkeypatch, 2, fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        toy(EVERY_STEP)
    newest = newest_checkpoint(RUN / "ckpts")
    assert newest is not None
    assert newest[1] == 2
