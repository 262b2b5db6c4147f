"""A newcomer's working directory, and the command line in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.tiny_prior import make_tiny_prior

REPOSITORY = Path(__file__).resolve().parents[2]
MINI = REPOSITORY / "custom" / "threestudio-headstudio" / "configs" / "headstudio-mini.yaml"
# The mini configuration, made smaller still: seconds instead of minutes.
SMALL = [
    "data.batch_size=2",
    "data.height=24",
    "data.width=24",
    "data.eval_height=32",
    "data.eval_width=32",
    "data.n_test_views=3",
    "data.val_azimuths_deg=[0,90]",
    "data.val_jaws_deg=[0,15]",
    "system.geometry.n_splats=400",
    "system.geometry.density.start=3",
    "system.geometry.density.interval=3",
    "system.geometry.density.grad_threshold=0.05",
    "system.preview_interval=4",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
]
Launch = Callable[..., int]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``custom/`` and a diffusion prior of random weights, ``prior/``."""
    place = tmp_path_factory.mktemp("workplace")
    (place / "custom").symlink_to(REPOSITORY / "custom")
    make_tiny_prior(place / "prior")
    return place


@pytest.fixture(scope="session")
def small_training(workplace: Path) -> list[str]:
    """The arguments of a small training run."""
    return [
        "--config",
        str(MINI),
        "--train",
        "system.prompt_processor.prompt=red hair",
        f"system.prompt_processor.pretrained_model_name_or_path={workplace / 'prior'}",
        *SMALL,
    ]


@pytest.fixture(scope="session")
def launch(workplace: Path) -> Launch:
    """``python launch.py`` in the workplace, without the start of another Python.

    Returns the exit status; a test that captures output sees what was printed.
    """
    sys.path.insert(0, str(REPOSITORY))
    import launch as launcher

    def run(*arguments: str) -> int:
        before = Path.cwd()
        os.chdir(workplace)
        try:
            return launcher.main(list(arguments))
        finally:
            os.chdir(before)

    return run
