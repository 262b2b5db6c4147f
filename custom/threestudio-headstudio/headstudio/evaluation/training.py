"""Avatars by the public command: ``launch.py`` in a process of its own, then its export."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from headstudio.errors import HeadStudioError
from headstudio.paths import REPOSITORY, atomic_write

#: What `Trainer` gives each training itself.
OWN_SETTINGS = (
    "system.prompt_processor.prompt",
    "seed",
    "exp_root_dir",
    "name",
    "tag",
    "use_timestamp",
)
_RUN = "run"
_TAIL = 12  # lines of a failed run's log that are shown


def gpu_argument(device: str) -> str:
    """What ``launch.py --gpu`` takes for a device: ``-1`` for the CPU, else the GPU's number.

    Raises:
        HeadStudioError: neither ``cpu`` nor ``cuda`` nor ``cuda:N``.
    """
    kind, _, number = device.partition(":")
    if device == "cpu":
        return "-1"
    if kind == "cuda" and (number.isdecimal() or device == "cuda"):
        return number or "0"
    raise HeadStudioError(f"--device is {device!r}; expected cpu, cuda or cuda:N.")


def read_settings(path: Path) -> dict[str, Any]:
    """What a configuration sets, references not yet filled in.

    Raises:
        HeadStudioError: no such file, one that is not YAML in UTF-8, or that holds no settings.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    # ValueError: what is not UTF-8.
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HeadStudioError(f"{path} is no configuration: {reason}") from error
    if not isinstance(content, dict) or not content:
        raise HeadStudioError(
            f"{path} is no configuration: it holds no settings; expected YAML's key: value."
        )
    return {str(key): value for key, value in content.items()}


def override(key: str, value: Any) -> str:
    """``key=value`` as the host's command line reads it back, whatever signs the value holds."""
    return f"{key}={json.dumps(value)}"


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A nested configuration as overrides ``a.b.c=value``, in order."""
    overrides = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            overrides += flatten(value, f"{name}.")
        else:
            overrides.append(override(name, value))
    return overrides


@dataclass
class Trainer:
    """Trains avatars, several at once if asked to.

    Attributes:
        config: of the experiment.
        device: cpu, cuda or cuda:N.
        overrides: ``key=value``, after those the benchmark gives.
        jobs: how many run at once, which share the CPU's cores.
        launch: the host's ``launch.py``.
    """

    config: Path
    device: str = "cpu"
    overrides: Sequence[str] = ()
    jobs: int = 1
    launch: Path = REPOSITORY / "launch.py"
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def __post_init__(self) -> None:
        for path in (self.config, self.launch):
            if not path.is_file():
                raise HeadStudioError(f"{path} does not exist; it is needed to train avatars.")
        gpu_argument(self.device)

    def train_command(self, prompt: str, seed: int, folder: Path) -> list[str]:
        """The command line that trains."""
        return [
            *self._launch(self.config, "--train"),
            override("system.prompt_processor.prompt", prompt),
            override("seed", seed),
            override("exp_root_dir", str(folder.resolve())),
            override("name", _RUN),
            override("tag", _RUN),
            "use_timestamp=false",
            # The video at the end is not looked at.
            "data.n_test_views=2",
            *self.overrides,
        ]

    def train(self, prompt: str, seed: int, folder: Path, avatar: Path) -> None:
        """Train an avatar and put it at ``avatar``, at once or not at all.

        Args:
            prompt: what to make.
            seed: of everything random.
            folder: for the run; what stands there from a run that was cut off is removed.
            avatar: the file to write.

        Raises:
            HeadStudioError: if the run fails; the message has the end of its log.
        """
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        log = folder / "log.txt"
        self._call(self.train_command(prompt, seed, folder), log)
        run = folder / _RUN / _RUN
        exported = self.export(run, log)
        with atomic_write(avatar) as temporary:
            shutil.copyfile(exported, temporary)

    def export(self, run: Path, log: Path) -> Path:
        """Export the avatar of a run's last checkpoint; returns its ``avatar.ply``."""
        config, checkpoint = run / "configs" / "parsed.yaml", run / "ckpts" / "last.ckpt"
        for path in (config, checkpoint):
            if not path.is_file():
                raise HeadStudioError(f"{run} is no finished run: it has no {path.name}.")
        self._call(
            [*self._launch(config, "--export"), override("resume", str(checkpoint.resolve()))], log
        )
        return exported_avatar(run)

    def _launch(self, config: Path, task: str) -> list[str]:
        gpu = gpu_argument(self.device)
        return [
            sys.executable, str(self.launch), "--config", str(config.resolve()), "--gpu", gpu, task
        ]  # fmt: skip

    def _call(self, command: list[str], log: Path) -> None:
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        environment = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, **os.environ}
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    raise HeadStudioError("stopped")
                process = subprocess.Popen(
                    command,
                    cwd=self.launch.parent,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
        if status != 0:
            lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
            end = "\n  ".join(line for line in lines[-_TAIL:] if line.strip())
            raise HeadStudioError(f"launch.py ended with status {status}; {log} ends with\n  {end}")

    def stop(self) -> None:
        """End the runs that are under way, and start no others."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()


def exported_avatar(run: Path) -> Path:
    """The newest ``save/it<N>-export/avatar.ply`` of a run.

    Raises:
        HeadStudioError: if there is none.
    """
    found = sorted(run.glob("save/it*-export/avatar.ply"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise HeadStudioError(f"{run} has no exported avatar (save/it<N>-export/avatar.ply).")
    return found[-1]
