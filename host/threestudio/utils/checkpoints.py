"""Checkpoints that are whole or absent, kept by the minute and when a run is stopped."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

import threestudio
from threestudio.utils.errors import UserError
from threestudio.utils.interruption import Interrupted, StopRequest
from threestudio.utils.misc import load_checkpoint

TEMPORARY = ".tmp"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint, sees it on the disk, and renames.

    Lightning's own writes to the system's temporary folder, which may be smaller than a checkpoint,
    and if it is on another disk copies over the checkpoint that was there: whoever is killed
    during that has lost both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.saved: dict[str, int] = {}
        """The step of each checkpoint that was written, by path."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """
        Raises:
            OSError: if the disk is full, or the folder cannot be written to. What was at ``path``
                is still there, and nothing else is.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
        try:
            with open(temporary, "wb") as file:
                _save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
            self.saved[str(path)] = checkpoint.get("global_step", -1)
        finally:
            temporary.unlink(missing_ok=True)


class _Writer:
    """A file that remembers why it could not be written: torch only says that it could not."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(checkpoint: dict[str, Any], file: Any) -> None:
    writer = _Writer(file)
    try:
        torch.save(checkpoint, writer)  # type: ignore[arg-type]
    except Exception as error:
        if writer.error is not None:
            raise writer.error from error
        raise


def _sync_folder(folder: Path) -> None:
    """See the renaming on the disk too, where folders can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:
        # Some network file systems do not know how; the file itself is safe.
        threestudio.debug(f"{folder} cannot be synchronised")
    finally:
        os.close(handle)


class KeepCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` every so many minutes, at the end of training, and before a stop.

    Besides lightning's ``ModelCheckpoint``, which can count steps or minutes but not both.
    """

    def __init__(
        self,
        folder: str | Path,
        io: AtomicCheckpointIO,
        every: timedelta | None,
        request: StopRequest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            folder: where checkpoints are kept.
            io: what the trainer writes them with.
            every: how long at most a run goes on without one; None is for ever.
            request: asked after every step.
        """
        self.path = os.path.join(folder, "last.ckpt")
        self.io = io
        self.every = every
        self.request = request
        self.clock = clock
        self._saved_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = self.clock()
        # From here on there is something to save before stopping.
        self.request.listen()
        self.request.wait_for_the_step = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients are being gathered, which no checkpoint holds
        if self._agreed(trainer, self.request.signum is not None):
            self._stop(trainer)
        elif self._agreed(trainer, self._is_due(trainer)):
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # What came while pictures were made. A checkpoint within them would repeat some.
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if fitting and self._agreed(trainer, self.request.signum is not None):
            self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.request.wait_for_the_step = False
        if not self._is_saved(trainer):
            self._save(trainer)
        if self._agreed(trainer, self.request.signum is not None):
            raise Interrupted(self.request.signum)  # it came after the last step was looked at

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.request.wait_for_the_step = False

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if 0 < trainer.max_steps <= trainer.global_step:
            return not self._is_saved(trainer)
        return (
            self.every is not None and self.clock() - self._saved_at >= self.every.total_seconds()
        )

    def _is_saved(self, trainer: pl.Trainer) -> bool:
        """Whether ``ModelCheckpoint`` has just written the same file; all processes have to ask.

        The first process writes, and it alone knows.
        """
        saved = self.io.saved.get(self.path) == trainer.global_step
        return saved if trainer.world_size == 1 else bool(trainer.strategy.broadcast(saved))

    def _agreed(self, trainer: pl.Trainer, wish: bool) -> bool:
        """Whether any process wishes to; all write a checkpoint together."""
        if trainer.world_size == 1:
            return wish
        return trainer.strategy.reduce_boolean_decision(wish, all=False)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_at = self.clock()

    def _stop(self, trainer: pl.Trainer) -> None:
        if not self._is_saved(trainer):
            self._save(trainer)
        raise Interrupted(self.request.signum)


def check_checkpoint(path: str | Path) -> int:
    """Look whether training can go on from a checkpoint; returns the step it was written at.

    Raises:
        UserError: if it is cut short, damaged, no checkpoint, or holds weights that are not finite.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is cut short or damaged: {error}") from error
    if damaged is not None:
        raise UserError(f"{path} is damaged: {damaged} has another checksum than is written there")
    checkpoint = load_checkpoint(path, map_location="cpu")
    for name, value in checkpoint["state_dict"].items():
        if isinstance(value, torch.Tensor) and not bool(value.isfinite().all()):
            raise UserError(f"{path} holds values in {name} that are not finite")
    return int(checkpoint["global_step"])


def newest_checkpoint(folder: str | Path) -> tuple[Path, int] | None:
    """The newest checkpoint in a folder that training can go on from, and its step.

    Those that are damaged are passed over, with a warning for each.
    """

    def age(path: Path) -> tuple[int, str]:
        return path.stat().st_mtime_ns, path.name

    for path in sorted(Path(folder).glob("*.ckpt"), key=age, reverse=True):
        try:
            return path, check_checkpoint(path)
        except UserError as error:
            threestudio.warn(f"Passed over: {error}")
    return None


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a killed run was writing; only while no other run writes there."""
    for path in Path(folder).glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)
