"""Schedules, checkpoints and paths."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from threestudio.utils.misc import (
    C,
    barrier,
    broadcast,
    cleanup,
    enable_gradient,
    find_last_path,
    get_device,
    get_rank,
    load_module_weights,
    parse_version,
)


def test_a_number_is_its_own_schedule() -> None:
    assert C(0.3, 5, 100) == 0.3
    assert C(2, 5, 100) == 2


@pytest.mark.parametrize("step", [0, 10, 15, 20, 29, 30, 99])
def test_a_schedule_of_four_is_a_ramp(step: int) -> None:
    schedule = OmegaConf.create([10, 1.0, 5.0, 30])
    assert C(schedule, 0, step) == pytest.approx(np.interp(step, [10, 30], [1.0, 5.0]))


@pytest.mark.parametrize("step", [0, 5, 10, 15])
def test_a_schedule_of_three_starts_at_zero(step: int) -> None:
    schedule = OmegaConf.create([4.0, 2.0, 10])
    assert C(schedule, 0, step) == pytest.approx(np.interp(step, [0, 10], [4.0, 2.0]))


@pytest.mark.parametrize("step", [0, 3, 10, 12, 20, 25, 40, 50])
def test_a_longer_schedule_goes_through_all_corners(step: int) -> None:
    schedule = OmegaConf.create([0, 1.0, 3.0, 10, 3.0, 20, -1.0, 40])
    expected = np.interp(step, [0, 10, 20, 40], [1.0, 3.0, 3.0, -1.0])
    assert C(schedule, 0, step) == pytest.approx(expected)


def test_a_float_as_last_step_counts_epochs() -> None:
    assert C(OmegaConf.create([0, 0.0, 10.0, 10.0]), epoch=3, global_step=900) == pytest.approx(3.0)


def test_exponential_interpolation() -> None:
    schedule = OmegaConf.create([0, 1.0, 0.01, 100])
    assert C(schedule, 0, 50, interpolation="exp") == pytest.approx(math.sqrt(0.01))


def test_this_process() -> None:
    assert get_rank() == 0
    assert isinstance(get_device(), torch.device)
    assert parse_version("0.10.1") > parse_version("0.9")
    tensor = torch.ones(2)
    assert broadcast(tensor) is tensor
    barrier()
    cleanup()
    module = torch.nn.Linear(2, 2)
    enable_gradient(module, False)
    assert not any(p.requires_grad for p in module.parameters())


def test_weights_of_one_module_or_of_all_but_some(tmp_path: Path) -> None:
    state = {"a.x": torch.ones(1), "a.b.y": torch.zeros(2), "ab.x": torch.ones(3)}
    path = tmp_path / "c.ckpt"
    torch.save({"state_dict": state, "epoch": 1, "global_step": 5}, path)
    weights, epoch, step = load_module_weights(path, module_name="a", map_location="cpu")
    assert (set(weights), epoch, step) == ({"x", "b.y"}, 1, 5)
    weights, _, _ = load_module_weights(path, ignore_modules=["a"], map_location="cpu")
    assert set(weights) == {"ab.x"}
    with pytest.raises(ValueError, match="module_name"):
        load_module_weights(path, module_name="a", ignore_modules=["b"])


def test_the_last_path(tmp_path: Path) -> None:
    for name in ("run@20240101", "run@20240301", "run@20240201", "other@20250101"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.ckpt").touch()
    found = find_last_path(f"{tmp_path}/run@LAST/last.ckpt")
    assert found == f"{tmp_path}/run@20240301/last.ckpt"
    with pytest.raises(FileNotFoundError):
        find_last_path(f"{tmp_path}/run@LAST/first.ckpt")
    assert find_last_path("a/b.ckpt") == "a/b.ckpt"
    assert find_last_path(None) is None
