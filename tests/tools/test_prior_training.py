"""Training: it stops, goes on, and starts from a finished prior."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    UNet2DConditionModel,
)
from safetensors.torch import load_file
from transformers import CLIPTextModel

from headstudio.errors import HeadStudioError
from tests.fixtures.prior_training import (
    Discs,
    StopsAfter,
    run_in,
    tiny,
    train_in_pieces,
)
from tools.prior import diffusion, training
from tools.prior.optimize import Learner, Progress, learning_rate
from tools.prior.running import PhaseLoop, Run
from tools.prior.settings import Phase
from tools.prior.start import start_record
from tools.prior.training import train, unfinished


def weights(folder: Path) -> dict[str, torch.Tensor]:
    prior = folder / "prior"
    parts = {
        "unet": UNet2DConditionModel,
        "controlnet": ControlNetModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
    }
    return {
        f"{part}.{key}": value
        for part, kind in parts.items()
        for key, value in kind.from_pretrained(prior, subfolder=part).state_dict().items()
    }


def test_stopping_and_going_on_changes_nothing(trained: Path, tmp_path: Path) -> None:
    calls = train_in_pieces(tmp_path, tiny(), steps=5)
    assert calls > 2
    straight, pieces = weights(trained), weights(tmp_path)
    for name, value in straight.items():
        assert torch.equal(value, pieces[name]), name


def test_other_settings_do_not_continue_a_run(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadStudioError, match=r"caption_dropout was 0\.12, now 0\.5"):
        train(run_in(trained, tiny(caption_dropout=0.5)), Discs(), Discs(), tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


def test_damaged_state_is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for file in ("settings.json", "tokenizer"):
        (tmp_path / "state" / file).symlink_to(trained / "state" / file)
    (tmp_path / "state" / "autoencoder.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(HeadStudioError, match=r"autoencoder\.pt cannot be read"):
        train(run_in(tmp_path, tiny()), Discs(), Discs(), tmp_path / "prior")


def test_last_call_plans_the_rest_of_the_phase(tmp_path: Path) -> None:
    phase = Phase(minutes=60, batch=1, learning_rate=1.0, warmup_steps=1)
    run = run_in(tmp_path, tiny())
    learner = Learner({"net": torch.nn.Linear(2, 2)}, phase, run.device)
    loop = PhaseLoop(run, "diffusion", phase, learner)
    loop.progress = Progress(step=10, seconds=60.0)
    assert learning_rate(learner.phase, loop.progress) == pytest.approx(1.0, abs=1e-3)
    loop.end_by(time.monotonic() + 60.0)
    assert learning_rate(learner.phase, loop.progress) == pytest.approx(0.5, abs=1e-2)
    loop.progress.seconds = 119.9
    assert not loop.done
    assert learning_rate(learner.phase, loop.progress) == pytest.approx(0.01)
    loop.progress.seconds = 120.0
    assert loop.done


def test_last_call_completes_the_phase(tmp_path: Path) -> None:
    """Though saving takes time that the phase's own clock leaves out."""
    phase = Phase(minutes=60, batch=1, learning_rate=1.0)

    def opened(run: Run) -> PhaseLoop:
        learner = Learner({"net": torch.nn.Linear(2, 2)}, phase, run.device)
        return PhaseLoop(run, "diffusion", phase, learner)

    settings = tiny(checkpoint_minutes=0.0)  # after every step
    stopped = opened(run_in(tmp_path, settings))
    stopped.run.deadline = time.monotonic() + 0.3
    assert sum(1 for _ in stopped) > 0
    assert not stopped.done

    last = opened(run_in(tmp_path, settings))
    last.resume(0)
    last.run.deadline = time.monotonic() + 1.0
    last.end_by(last.run.deadline)
    assert sum(1 for _ in last) > 0
    assert last.progress.fraction(last.phase) < 1.0
    assert last.done

    later = opened(run_in(tmp_path, settings))
    later.resume(0)
    assert later.done
    assert list(later) == []

    too_late = opened(run_in(tmp_path / "other", settings))
    too_late.end_by(time.monotonic() - 1.0)
    assert not too_late.done


@pytest.fixture
def no_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that nobody looks at take longer than training."""
    for name in ("prompt_grids", "truth_grid"):
        monkeypatch.setattr(training, name, lambda *_: None)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their path in it."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.usefixtures("no_grids")
def test_a_finished_prior_is_trained_on(trained: Path, tmp_path: Path) -> None:
    """Autoencoder and tokenizer stay; with a learning rate of nothing, so does all the rest. What
    is finished stands where it was until what comes after it is finished too."""
    start = tmp_path / "prior"
    shutil.copytree(trained / "prior", start)
    before = contents(start)
    settings = tiny(start_from=str(start), diffusion=Phase(60.0, 8, 0.0, steps=2))
    stopped = StopsAfter(settings, torch.device("cpu"), tmp_path / "state", tmp_path / "logs")
    stopped.steps_left = 2  # one question before the first step, and one after each
    assert not train(stopped, Discs(), Discs(), start)
    assert contents(start) == before
    left = json.loads((unfinished(stopped.state) / "training.json").read_text())
    assert (left["complete"], left["diffusion_steps"]) == (False, 1)

    assert train(run_in(tmp_path, settings), Discs(), Discs(), start)
    assert not unfinished(stopped.state).exists()
    for part, file in (
        ("vae", "diffusion_pytorch_model.safetensors"),
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("controlnet", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "model.safetensors"),
    ):
        old, new = (load_file(f / part / file) for f in (trained / "prior", start))
        assert old.keys() == new.keys()
        assert all(torch.equal(old[k], new[k]) for k in old), part
    # Equal altogether: without the place that it was read from, a path of this machine.
    for name in ("vae/config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"):
        assert (start / name).read_bytes() == before[name], name
    # Also of a call that finds nothing left to do, when the new prior stands where the old one was.
    for _ in range(2):
        about = json.loads((start / "training.json").read_text())
        assert about["diffusion_steps"] == 2
        assert about["started_from"] == json.loads(before["training.json"])
        assert train(run_in(tmp_path, settings), Discs(), Discs(), start)


def test_how_the_start_was_made_is_noted_once(tmp_path: Path) -> None:
    prior, state = tmp_path / "prior", tmp_path / "state"
    prior.mkdir()
    assert start_record(prior, tmp_path / "unknown") == {}
    (prior / "training.json").write_text("[")
    with pytest.raises(HeadStudioError, match=r"training\.json cannot be read"):
        start_record(prior, state)
    for seed in (1, 2):
        (prior / "training.json").write_text(json.dumps({"seed": seed}))
        assert start_record(prior, state) == {"seed": 1}


def test_a_call_that_learned_nothing_saves_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendering the pictures to learn from may take all the time there is."""
    run = run_in(tmp_path, tiny(start_from=str(trained / "prior")))

    class Slow(diffusion.LatentPool):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            run.deadline = time.monotonic() - 1

    monkeypatch.setattr(diffusion, "LatentPool", Slow)
    assert not train(run, Discs(), Discs(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not unfinished(run.state).exists()


def test_a_prior_of_other_sizes_is_not_gone_on_from(trained: Path, tmp_path: Path) -> None:
    sizes = replace(tiny().sizes, unet_channels=(16, 48, 48))
    wrong = tiny(start_from=str(trained / "prior"), sizes=sizes)
    run = Run(wrong, torch.device("cpu"), tmp_path / "state", tmp_path / "logs")
    with pytest.raises(HeadStudioError, match="sizes"):
        train(run, Discs(), Discs(), tmp_path / "out")
    nowhere = tiny(start_from=str(tmp_path / "nothing"))
    run = Run(nowhere, torch.device("cpu"), tmp_path / "state2", tmp_path / "logs")
    with pytest.raises(HeadStudioError, match="to go on from"):
        train(run, Discs(), Discs(), tmp_path / "out")
