"""A prior trained for a few steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.fixtures.prior_training import (
    Discs,
    run_in,
    tiny,
)
from tools.prior.training import train


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tensors this small only lose time on the way between threads; and sums differ by their
    number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with _one_thread():
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with _one_thread():  # made before what a module asks for
        assert train(run_in(folder, tiny()), Discs(), Discs(), folder / "prior")
    return folder
