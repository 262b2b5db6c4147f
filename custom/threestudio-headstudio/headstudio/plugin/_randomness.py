"""Random numbers that follow from a seed and a place in the run, not from what was drawn before.

A run that is gone on with has to draw what it would have drawn had it never stopped. Keeping the
generators' states in the checkpoint is not enough for that: lightning has drawn the next batch of
cameras before a step begins, validation loaders draw from the global generator, and it is up to
the version of lightning whether validation is repeated when a run is resumed. So every batch and
every step has a state of its own, and a checkpoint holds two numbers: the seed, and how many
batches were used.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from threestudio.utils.misc import get_rank

STEP, BATCH = 0, 1
"""What a stream of random numbers is for: the step's noise; the batch's cameras and poses."""


def run_seed() -> int:
    """The seed of the run, the same in all of its processes, whose own are ``seed + rank``.

    To be asked for before anything else seeds torch.
    """
    return (torch.initial_seed() - get_rank()) % 2**63


def seed_everything(seed: int, stream: int, number: int) -> None:
    """Put the generators of Python, numpy and torch, CUDA's included, in a state of their own.

    Args:
        seed: of the run.
        stream: ``STEP`` or ``BATCH``.
        number: which step, or which batch, counted from 0.
    """
    of_torch = _seed_cpu(seed, stream, number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(of_torch)


def _seed_cpu(seed: int, stream: int, number: int) -> int:
    """The same without CUDA's, whose seed is returned.

    Not by ``torch.manual_seed``: it seeds every kind of accelerator, and takes down a stack trace
    for each that was never used, milliseconds in every step.
    """
    mixed = np.random.SeedSequence([seed, stream, number, get_rank()]).generate_state(4)
    random.seed(int(mixed[0]))
    np.random.seed(int(mixed[1]))
    of_torch = (int(mixed[2]) << 31) ^ int(mixed[3])
    torch.default_generator.manual_seed(of_torch)
    return of_torch


@contextmanager
def own_numbers(seed: int, stream: int, number: int) -> Iterator[None]:
    """The same for a block that draws on the CPU alone; afterwards the generators are as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed_cpu(seed, stream, number)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
