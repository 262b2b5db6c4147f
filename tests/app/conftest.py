"""A workplace: what a working directory must hold for the doctor to find everything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headstudio import paths
from tests.fixtures.tiny_prior import make_tiny_prior

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a repository: ``load/`` with a tiny prior, ``host/``."""
    place = tmp_path_factory.mktemp("complete")
    shutil.copytree(REPOSITORY / "load" / "motion", place / "load" / "motion")
    (place / "load" / "flame").mkdir()
    shutil.copy(REPOSITORY / "load" / "flame" / "open_head.npz", place / "load" / "flame")
    make_tiny_prior(place / "load" / "prior")
    shutil.copytree(
        REPOSITORY / "host", place / "host", ignore=shutil.ignore_patterns("__pycache__")
    )
    return place


@pytest.fixture
def workplace(complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to break things in: the working directory and the repository at once."""
    place = tmp_path / "work place"
    shutil.copytree(complete, place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(paths, "REPOSITORY", place)
    monkeypatch.delenv("HEADSTUDIO_HOST", raising=False)
    return place
