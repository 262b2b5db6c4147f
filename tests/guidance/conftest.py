"""Tiny random priors, made once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstudio.guidance import DiffusionPrior
from tests.fixtures.tiny_prior import make_tiny_prior


@pytest.fixture(scope="session")
def prior_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture(scope="session")
def prior(prior_folder: Path) -> DiffusionPrior:
    return DiffusionPrior.from_pretrained(prior_folder)


@pytest.fixture(scope="session")
def v_prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    """The same weights, said to predict v."""
    folder = tmp_path_factory.mktemp("prior") / "v"
    return DiffusionPrior.from_pretrained(make_tiny_prior(folder, prediction_type="v_prediction"))
