"""The folders of runs: one run each, and never two that write into one."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import threestudio
from threestudio.utils.checkpoints import newest_checkpoint, remove_leftovers
from threestudio.utils.config import folder_name, load_config
from threestudio.utils.errors import UserError
from threestudio.utils.misc import get_rank

AUTO = "auto"
LOCK = ".lock"


def load_run(config: str, overrides: list[str], must_exist: bool, n_gpus: int) -> Any:
    """The configuration of a run; ``resume=auto`` in it is replaced by what is found.

    That is the newest checkpoint that is whole, of the newest run of this name and tag that has
    one; the run goes on in its own folder. A configuration that was kept by a run, with its
    timestamp, means that run alone.

    Args:
        must_exist: whether it is an error if there is nothing to go on from. Otherwise the run is
            a new one: the same command starts a run and goes on with it.

    Raises:
        UserError: as ``load_config``, and if there has to be a checkpoint but is none.
    """
    cfg = load_config(config, cli_args=overrides, n_gpus=n_gpus)
    if cfg.resume != AUTO:
        return cfg
    trials = _trials(cfg)
    for trial in trials:
        found = newest_checkpoint(trial / "ckpts")
        if found is None:
            threestudio.warn(f"{trial} has no checkpoint to go on from")
            continue
        checkpoint, step = found
        threestudio.info(f"resume=auto: {checkpoint}, step {step}")
        timestamp = trial.name.removeprefix(folder_name(str(cfg.tag)))
        mine = [f"timestamp='{timestamp}'", f"resume='{_quoted(str(checkpoint))}'"]
        return load_config(config, cli_args=[*overrides, *mine], n_gpus=n_gpus)
    where = os.path.join(cfg.exp_dir, folder_name(str(cfg.tag)))
    if must_exist:
        raise UserError(f"resume=auto found no checkpoint under {where}*; train first")
    threestudio.info(f"resume=auto found no checkpoint under {where}*: this is a new run")
    return load_config(config, cli_args=[*overrides, "resume=null"], n_gpus=n_gpus)


def _quoted(text: str) -> str:
    """The inside of a YAML string in single quotes."""
    return text.replace("'", "''")


def _trials(cfg: Any) -> list[Path]:
    """Folders of the runs with this name and tag, the newest first."""
    if os.path.isdir(cfg.trial_dir):
        return [Path(cfg.trial_dir)]  # named by its timestamp, or without any
    tag = os.path.join(glob.escape(cfg.exp_dir), glob.escape(folder_name(str(cfg.tag))))
    folders = [Path(path) for path in glob.glob(tag + "@*") if os.path.isdir(path)]
    # Timestamps sort as they follow each other.
    return sorted(folders, reverse=True)


@contextmanager
def claimed(trial_dir: str, resumed: bool) -> Iterator[None]:
    """Have a run's folder for oneself while training.

    Args:
        resumed: whether an earlier run's folder may be gone on in.

    Raises:
        UserError: if another process trains in the folder, or it holds another run.
    """
    if get_rank() != 0:
        yield
        return
    folder = Path(trial_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # The file stays: removing it would let two others lock two files of one name.
    with open(folder / LOCK, "a+", encoding="utf-8") as lock:
        _lock(lock, folder)
        if not resumed and any((folder / name).exists() for name in ("ckpts", "save", "cmd.txt")):
            raise UserError(
                f"{folder} holds a run already, which would be overwritten. resume=auto goes on "
                "with it; another tag=..., name=... or use_timestamp=true starts a new one"
            )
        remove_leftovers(folder / "ckpts")
        yield


def _lock(file: Any, folder: Path) -> None:
    """Take the lock, which ends with the process however that ends."""
    try:
        import fcntl
    except ImportError:
        threestudio.debug("files cannot be locked here: two runs in one folder go unnoticed")
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{folder} is being trained in by another process; wait for it, or start a new run "
            "without resume="
        ) from error
    except OSError as error:
        threestudio.warn(f"{folder} cannot be locked: {error.strerror}")


def how_to_go_on(trial_dir: str, resumed_from: str | None) -> str:
    """Name the last whole checkpoint of a run, and the command that goes on from it."""
    found = newest_checkpoint(Path(trial_dir) / "ckpts")
    if found is None and resumed_from is not None:
        return f"There is no newer checkpoint than {resumed_from}, which the run started from."
    if found is None:
        return "There is no checkpoint yet."
    checkpoint, step = found
    config = shlex.quote(os.path.join(trial_dir, "configs", "parsed.yaml"))
    resume = shlex.quote(f"resume={checkpoint}")
    return (
        f"The last whole checkpoint is {checkpoint}, of step {step}. To go on from it:\n"
        f"  python launch.py --config {config} --train {resume}"
    )
