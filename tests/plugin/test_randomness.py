"""What seeds steps and batches, and which steps are logged."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from headstudio.plugin._randomness import BATCH, STEP, own_numbers, seed_everything
from headstudio.plugin.system import HeadStudioSystem


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_place_in_the_run_has_numbers_of_its_own() -> None:
    numbers = {}
    for place in ((0, STEP, 0), (1, STEP, 0), (0, BATCH, 0), (0, STEP, 1)):
        seed_everything(*place)
        numbers[place] = drawn()
        drawn()
        seed_everything(*place)
        assert drawn() == numbers[place]
    assert all(len(set(column)) == len(numbers) for column in zip(*numbers.values(), strict=True))


def test_torch_is_seeded_as_by_itself() -> None:
    """Runs that began when it was seeded so go on with the same numbers."""
    seed_everything(3, STEP, 7)
    seed, found = torch.initial_seed(), torch.randn(5)
    torch.manual_seed(seed)
    assert torch.equal(torch.randn(5), found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_seeded_too() -> None:
    seed_everything(3, STEP, 7)
    found = torch.randn(5, device="cuda")
    torch.manual_seed(torch.initial_seed())
    assert torch.equal(torch.randn(5, device="cuda"), found)


def test_a_block_with_own_numbers_leaves_the_others_as_they_were() -> None:
    seed_everything(0, BATCH, 4)
    inside = drawn()
    seed_everything(0, STEP, 0)
    expected = [drawn(), drawn()]
    seed_everything(0, STEP, 0)
    found = [drawn()]
    with own_numbers(0, BATCH, 4):
        assert drawn() == inside
    found.append(drawn())
    assert found == expected


@pytest.mark.parametrize(
    ("every", "max_steps", "steps"), [(1, 4, [0, 1, 2, 3]), (3, 7, [2, 5, 6]), (3, -1, [2, 5])]
)
def test_steps_that_lightning_writes_down_are_logged_and_the_last(
    every: int, max_steps: int, steps: list[int]
) -> None:
    trainer = SimpleNamespace(log_every_n_steps=every, max_steps=max_steps)

    def at(step: int) -> SimpleNamespace:
        return SimpleNamespace(trainer=trainer, true_global_step=step)

    n = max_steps if max_steps > 0 else 7
    logged = [step for step in range(n) if HeadStudioSystem._log_is_due(cast(Any, at(step)))]
    assert logged == steps
