"""What is not finite is caught in its step, which then changes nothing and names the culprit."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstudio.errors import HeadStudioError
from headstudio.guidance import ScoreDistillation
from headstudio.plugin import system
from headstudio.plugin._guard import FiniteGuard, refuse_broken
from headstudio.plugin.renderer import GsplatRenderer
from headstudio.plugin.system import HeadStudioSystem
from headstudio.splats import DensityControl
from tests.reliability.conftest import named, trial
from threestudio.utils.checkpoints import newest_checkpoint

NAN, INF = float("nan"), float("inf")
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "fused Adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    # Their state does not begin as zeros alone.
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


class Trained:
    """Two parameters, an optimiser and a guard."""

    def __init__(self, optimizer: str, device: str = "cpu", limit: int = 20) -> None:
        self.parameters = {
            "means": nn.Parameter(torch.arange(12.0, device=device).reshape(4, 3)),
            "opacities": nn.Parameter(torch.ones(4, device=device)),
        }
        self.optimizer = OPTIMIZERS[optimizer](list(self.parameters.values()))
        self.guard = FiniteGuard(limit)

    def step(self, gradient: float, wrong: float | None = None, loss: float = 1.0) -> None:
        """One step, whose gradient of the second mean is ``wrong``."""
        for parameter in self.parameters.values():
            parameter.grad = torch.full_like(parameter, gradient)
        if wrong is not None:
            self.parameters["means"].grad[1, 2].fill_(wrong)  # assigning waits for a GPU
        device = self.parameters["means"].device
        self.guard.watch("loss_sds", torch.full((), loss, device=device))
        self.guard.before_update(self.optimizer, self.parameters)
        self.optimizer.step()
        self.guard.after_update(self.optimizer)

    def state(self) -> list[Tensor]:
        tensors = [p.detach().cpu().clone() for p in self.parameters.values()]
        for parameter in self.parameters.values():
            for value in self.optimizer.state[parameter].values():
                if isinstance(value, Tensor):
                    tensors.append(value.cpu().clone())
        return tensors


def assert_equal(a: list[Tensor], b: list[Tensor]) -> None:
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("wrong", [{"wrong": NAN}, {"wrong": -INF}, {"loss": NAN}])
def test_a_skipped_step_has_never_been(
    optimizer: str, wrong: dict[str, float], device: str
) -> None:
    skipping, without = Trained(optimizer, device), Trained(optimizer, device)
    for trained in (skipping, without):
        trained.step(0.5)
        assert trained.guard.report() is None
    skipping.step(0.7, **wrong)
    said = skipping.guard.report()
    assert said is not None
    assert ("loss_sds" in said) == ("loss" in wrong)
    assert ("the gradient of means (1 of 4)" in said) == ("wrong" in wrong)
    assert "opacities" not in said
    assert_equal(skipping.state(), without.state())
    for trained in (skipping, without):
        trained.step(0.3)
        assert trained.guard.report() is None
    assert_equal(skipping.state(), without.state())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_so_for_the_first_step(optimizer: str, device: str) -> None:
    skipping, without = Trained(optimizer, device), Trained(optimizer, device)
    for _ in range(2):
        skipping.step(0.5, wrong=NAN)
        assert skipping.guard.report() is not None
    assert skipping.optimizer.state_dict() == without.optimizer.state_dict()
    for gradient in (0.5, -0.3):
        for trained in (skipping, without):
            trained.step(gradient)
            assert trained.guard.report() is None
        assert_equal(skipping.state(), without.state())


def test_an_update_that_overflows() -> None:
    trained = Trained("SGD")
    before = trained.state()[:2]
    trained.optimizer.param_groups[0]["lr"] = 1e38
    trained.step(1e3)
    said = trained.guard.report()
    assert said is not None
    assert "means after its update (4 of 4)" in said
    assert_equal(trained.state()[:2], before)


def test_too_many_in_a_row_end_the_run() -> None:
    trained = Trained("Adam", limit=3)
    for wrong in (NAN, NAN, None, NAN, NAN):
        trained.step(0.1, wrong)
        trained.guard.report()
    assert (trained.guard.skipped, trained.guard.in_a_row) == (4, 2)
    trained.step(0.1, NAN)
    with pytest.raises(HeadStudioError, match=r"3 steps in a row .* the gradient of means"):
        trained.guard.report()
    unlimited = Trained("Adam", limit=0)
    for _ in range(50):
        unlimited.step(0.1, NAN)
        unlimited.guard.report()
    assert unlimited.guard.skipped == 50


def test_parameters_that_were_broken_before() -> None:
    trained = Trained("Adam")
    trained.parameters["opacities"].data[2] = NAN
    with pytest.raises(HeadStudioError, match=r"opacities \(1 of 4\)"):
        refuse_broken(trained.parameters)
    trained.step(0.1)
    with pytest.raises(HeadStudioError, match="checkpoint"):
        trained.guard.report()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_not_waited_for() -> None:
    trained = Trained("Adam", "cuda")
    for wrong in (NAN, None, NAN):
        torch.cuda.set_sync_debug_mode("error")
        try:
            trained.step(0.1, wrong)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        said = trained.guard.report()  # the one wait, for a step that is over
    assert said is not None


# ------------------------------------------------------------------ in a run


def broken_in(patch: pytest.MonkeyPatch, place: str, steps: set[int]) -> None:
    """Make one number not finite at a place in the training step."""
    now = -1
    start = HeadStudioSystem.on_train_batch_start

    def on_train_batch_start(self: Any, *arguments: Any) -> None:
        nonlocal now
        now = self.true_global_step
        start(self, *arguments)

    def broken(value: Tensor) -> Tensor:
        hole = torch.zeros_like(value)
        hole.view(-1)[0] = NAN if now in steps else 0.0
        return value + hole

    patch.setattr(HeadStudioSystem, "on_train_batch_start", on_train_batch_start)
    if place == "the rendered pictures":
        forward = GsplatRenderer.forward

        def pictures(self: Any, *arguments: Any, **settings: Any) -> dict[str, Any]:
            out = forward(self, *arguments, **settings)
            return out | {"comp_rgb": broken(out["comp_rgb"])}

        patch.setattr(GsplatRenderer, "forward", pictures)
    elif place == "loss_position":
        terms = system.regularisers

        def losses(*arguments: Any, **settings: Any) -> dict[str, Tensor]:
            named = terms(*arguments, **settings)
            return named | {place: broken(named[place].reshape(1))[0]}

        patch.setattr(system, "regularisers", losses)
    elif place == "the guidance's gradient":
        gradient = ScoreDistillation.gradient

        def counted(self: Any, *arguments: Any, **settings: Any) -> Any:
            grad, n_broken, n = gradient(self, *arguments, **settings)
            return grad, n_broken + (now in steps), n

        patch.setattr(ScoreDistillation, "gradient", counted)
    elif place == "the gradient of geometry.splats.scales":
        before = HeadStudioSystem.on_before_optimizer_step

        def gradients(self: Any, optimizer: Any) -> None:
            scales = self.geometry.splats.scales
            scales.grad = broken(scales.grad)
            before(self, optimizer)

        patch.setattr(HeadStudioSystem, "on_before_optimizer_step", gradients)


PLACES = [
    "the rendered pictures",
    "loss_position",
    "the guidance's gradient",
    "the gradient of geometry.splats.scales",
]


def test_a_run_gets_over_single_steps(
    workplace: Path,
    training: list[str],
    launch: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    checkpoint_of: Callable[..., dict[str, Any]],
) -> None:
    for step, place in enumerate(PLACES, 1):
        broken_in(monkeypatch, place, {step})
    seen = []
    observe = DensityControl.observe

    def observed(self: Any, grad: Tensor, radii: Tensor, *rest: Any) -> None:
        observe(self, grad, radii, *rest)
        seen.append(bool((radii > 0).any()))

    monkeypatch.setattr(DensityControl, "observe", observed)
    assert launch(*training, *named("single")) == 0
    # Density control counts nothing of a skipped step.
    assert seen == [True, False, False, False, False, True]
    for step, place in enumerate(PLACES, 1):
        (said,) = (r for r in caplog.messages if r.startswith(f"step {step}: the step was skipped"))
        assert f"not finite: {place} (1" in said
        assert f"{step} so far" in said
    checkpoint = checkpoint_of("single")
    assert checkpoint["headstudio"]["skipped"] == 4
    assert all(bool(v.isfinite().all()) for v in checkpoint["state_dict"].values())
    adam = checkpoint["optimizer_states"][0]["state"]
    assert {int(state["step"]) for state in adam.values()} == {2}  # the others have never been
    log = trial(workplace, "single") / "csv_logs" / "version_0" / "metrics.csv"
    with open(log) as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(float(row["train/n_skipped"])) for row in rows] == [0, 0, 1, 2, 3, 4]


def test_a_run_that_blows_up_ends_with_its_last_checkpoint(
    workplace: Path,
    training: list[str],
    launch: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken_in(monkeypatch, "the gradient of geometry.splats.scales", set(range(3, 100)))
    often = ["trainer.max_steps=20", "checkpoint.every_n_train_steps=2"]
    assert launch(*training, *often, *named("blown"), "system.max_skipped_steps=3") == 1
    said = capsys.readouterr().err
    assert "3 steps in a row were skipped" in said
    assert "the gradient of geometry.splats.scales (1 of" in said
    assert "of step 4" in said
    newest = newest_checkpoint(trial(workplace, "blown") / "ckpts")  # looks at every number
    assert newest is not None
    assert newest[1] == 4
