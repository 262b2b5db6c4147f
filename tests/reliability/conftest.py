"""A working directory with a tiny prior, and the command line in it, here or in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.end_to_end.conftest import MINI, REPOSITORY, SMALL
from tests.fixtures import tiny_prior

# Nothing but training, so that a test is about that.
BARE = [
    "data.n_test_views=2",
    "data.eval_height=16",
    "data.eval_width=16",
    "data.val_azimuths_deg=[0]",
    "data.val_jaws_deg=[0]",
    "data.height=16",
    "data.width=16",
    "system.preview_interval=0",
    "trainer.val_check_interval=1000",
]


QUIET = ["--gpu", "-1", "tag=t", "timestamp=@now", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``custom/`` and a diffusion prior of random weights, ``prior/``."""
    place = tmp_path_factory.mktemp("reliability")
    (place / "custom").symlink_to(REPOSITORY / "custom")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_prior, "TEXT_LENGTH", 77)  # as much as Stable Diffusion's reads
        tiny_prior.make_tiny_prior(place / "prior")
    return place


@pytest.fixture(scope="session")
def training(workplace: Path) -> list[str]:
    """The arguments of a small training run that does little else."""
    prior = f"system.prompt_processor.pretrained_model_name_or_path={workplace / 'prior'}"
    prompt = "system.prompt_processor.prompt=red hair"
    return ["--config", str(MINI), "--gpu", "-1", "--train", prompt, prior, *SMALL, *BARE]


@pytest.fixture
def launch(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """``python launch.py`` in this process, in the workplace; returns the exit status."""
    sys.path.insert(0, str(REPOSITORY))
    import launch as launcher

    monkeypatch.chdir(workplace)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda *arguments: launcher.main([str(argument) for argument in arguments])
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def start(workplace: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """``python launch.py`` as a process of its own.

    ``before`` is Python that runs first, in which ``system`` is HeadStudio's class of that name.
    """
    processes = []

    def run(*arguments: str, before: str = "pass") -> subprocess.Popen:
        script = (
            f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / 'host')!r}, "
            f"{str(REPOSITORY / 'custom' / 'threestudio-headstudio')!r}]\n"
            "import launch\n"
            f"{before}\n"
            "sys.exit(launch.main(sys.argv[1:]))\n"
        )
        environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            cwd=workplace,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """The same with the smallest system there is, in a directory of its own: what the host does."""
    import launch as launcher
    import threestudio

    source = REPOSITORY / "tests" / "host_contract"
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "toy.py").write_text((source / "toy_extension.py").read_text())
    (tmp_path / "toy.yaml").write_text((source / "toy.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    before = dict(threestudio.__modules__)

    def run(*arguments: str) -> int:
        threestudio.__modules__.clear()
        threestudio.__modules__.update(before)
        bare = [] if "--config" in arguments else ["--config", "toy.yaml", "--train", *QUIET]
        return launcher.main([*bare, *arguments])

    yield run
    threestudio.__modules__.clear()
    threestudio.__modules__.update(before)
    sys.modules.pop("toy", None)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def checkpoint_of(workplace: Path) -> Callable[..., dict[str, Any]]:
    """The content of a checkpoint of the run of a name, with the tag ``t@now``."""

    def load(name: str, file: str = "last.ckpt") -> dict[str, Any]:
        return torch.load(trial(workplace, name) / "ckpts" / file, weights_only=True)

    return load


def trial(workplace: Path, name: str) -> Path:
    """The folder of a run that was given ``named(name)``."""
    return workplace / "outputs" / name / "t@now"


def named(name: str) -> list[str]:
    """Settings that give a run a folder of its own."""
    return [f"name={name}", "tag=t", "timestamp=@now"]
