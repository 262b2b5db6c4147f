"""A run that was stopped in the middle ends as one that never was, bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from headstudio.plugin.system import HeadStudioSystem
from headstudio.splats import DensityControl
from tests.reliability.conftest import named, trial

# What a run of hours has, within 60 steps: density control, schedules of lightning's and of ours,
# close-ups that begin on the way, noise levels that narrow, and validation in between.
RICH = [
    "trainer.max_steps=60",
    "trainer.val_check_interval=20",
    "checkpoint.every_n_train_steps=30",
    "system.geometry.density.interval=6",
    "system.geometry.density.max_splats=900",
    "system.guidance.min_step_percent=[10,0.7,0.02,30]",
    "system.guidance.max_step_percent=[0,0.98,0.3,60]",
    "system.scheduler={name: ExponentialLR, interval: step, args: {gamma: 0.99}}",
    "system.learning_rates={geometry.splats.means: [0, 1.0e-2, 1.0e-3, 60]}",
    "data.close_ups=[{probability: 0.5, start_step: 20, end_step: 50, offset: 0.1}]",
    "data.camera_perturb=0.1",
]
# As if the power went: in step 38, after the checkpoint of step 30.
KILL = """
import os, signal
from pytorch_lightning.callbacks import LearningRateMonitor
def kill(self, trainer, *rest):
    if trainer.global_step == 37:
        os.kill(os.getpid(), signal.SIGKILL)
LearningRateMonitor.on_train_batch_start = kill
"""


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Every tensor and number alike, to the last bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


def test_sixty_steps_are_thirty_a_kill_and_thirty(
    workplace: Path,
    training: list[str],
    launch: Callable[..., int],
    start: Callable[..., Any],
    checkpoint_of: Callable[..., dict[str, Any]],
) -> None:
    killed = start(*training, *RICH, *named("killed"), before=KILL)
    assert launch(*training, *RICH, *named("whole")) == 0
    said = killed.communicate(timeout=120)[0]
    assert killed.returncode == -signal.SIGKILL, said
    assert checkpoint_of("killed")["global_step"] == 30

    # The same command, with four more letters.
    assert launch(*training, *RICH, *named("killed"), "resume=auto") == 0
    whole, resumed = checkpoint_of("whole"), checkpoint_of("killed")
    assert whole["global_step"] == resumed["global_step"] == 60
    halfway = checkpoint_of("killed", "epoch=0-step=30.ckpt")["state_dict"]
    # Splats were born both before the kill and after it.
    counts = [len(c["geometry.splats.face"]) for c in (halfway, whole["state_dict"])]
    assert 400 < counts[0] < counts[1]
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "headstudio", "epoch"):
        assert_same(whole[part], resumed[part], part)
    a, b = (trial(workplace, name) / "save" / "it60-test.mp4" for name in ("whole", "killed"))
    assert a.read_bytes() == b.read_bytes()


def test_gathered_gradients_go_on_too(
    training: list[str], launch: Callable[..., int], checkpoint_of: Callable[..., dict[str, Any]]
) -> None:
    """With two batches to a step, the batches are counted, not the steps."""
    both = ["trainer.accumulate_grad_batches=2", "checkpoint.every_n_train_steps=2"]
    assert launch(*training, *both, *named("gathered"), "trainer.max_steps=4") == 0
    assert launch(*training, *both, *named("gathered-2"), "trainer.max_steps=2") == 0
    again = [*both, *named("gathered-2"), "trainer.max_steps=4", "resume=auto"]
    assert launch(*training, *again) == 0
    assert checkpoint_of("gathered")["headstudio"]["batches"] == 8
    assert_same(checkpoint_of("gathered")["state_dict"], checkpoint_of("gathered-2")["state_dict"])


def test_density_control_counts_all_views_of_a_step(
    training: list[str], launch: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three batches of two views, before one update; nothing is cloned or previewed between."""
    seen, controlled, previews = [], [], []
    observe, control = DensityControl.observe, DensityControl.step

    def observed(self: Any, grad: torch.Tensor, *rest: Any) -> None:
        observe(self, grad, *rest)
        seen.append(grad.shape[:-2].numel())

    def stepped(self: Any, step: int, *rest: Any) -> Any:
        controlled.append(step)
        return control(self, step, *rest)

    monkeypatch.setattr(DensityControl, "observe", observed)
    monkeypatch.setattr(DensityControl, "step", stepped)
    monkeypatch.setattr(
        HeadStudioSystem, "_save_preview", lambda self, *_: previews.append(self.true_global_step)
    )
    # An epoch of seven batches ends in a step of one.
    settings = ["trainer.accumulate_grad_batches=3", "trainer.limit_train_batches=7"]
    settings += ["trainer.max_steps=5", "checkpoint.every_n_train_steps=5"]
    settings += ["system.geometry.density.start=0", "system.geometry.density.interval=2"]
    settings += ["system.preview_interval=2", "trainer.val_check_interval=1.0"]
    assert launch(*training, *settings, *named("all-views")) == 0
    assert seen == [6, 6, 2, 6, 6]
    assert controlled == [0, 2, 4]
    assert previews == [0, 2, 4]
