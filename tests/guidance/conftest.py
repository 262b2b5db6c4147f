"""Tiny random priors, made once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tensors as small as the tiny prior's only lose time on the way between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
