"""Training learns: what it ends with is clearly better than what it begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from tests.fixtures.prior_training import (
    Discs,
    StopsAfter,
    run_in,
    tiny,
)
from tools.prior.autoencoder import reconstruct, reconstruction_loss, train_autoencoder
from tools.prior.data import (
    HELD_OUT,
    FirstPictures,
    as_input,
    attribute_classes,
    render_pictures,
)
from tools.prior.diffusion import Trainer, train_diffusion
from tools.prior.running import Run
from tools.prior.settings import Settings
from tools.prior.tokenizer import load_tokenizer, train_tokenizer
from tools.prior.training import train


def longer(autoencoder: dict[str, float], diffusion: dict[str, float]) -> Settings:
    """The tiny preset with other steps; its sizes stay."""
    base = tiny()
    return replace(
        base,
        autoencoder=replace(base.autoencoder, log_every=20, **autoencoder),
        diffusion=replace(base.diffusion, log_every=20, **diffusion),
    )


def test_both_losses_fall_in_a_few_steps(tmp_path: Path) -> None:
    """Those of the averaged weights, which are what is kept, on the same pictures and noise."""
    settings = longer({"steps": 12, "learning_rate": 5e-3}, {"steps": 10, "learning_rate": 5e-3})
    settings = replace(settings, refresh_every=0)  # the pool's pictures stay the same
    run = run_in(tmp_path, settings)
    no_step = StopsAfter(settings, run.device, run.state, run.logs)
    discs = Discs()
    first = FirstPictures(discs, settings)
    seen = render_pictures(discs, settings, HELD_OUT, settings.held_out_pictures)
    image, control = (as_input(p, torch.float32) for p in (seen.image, seen.control))

    def autoencoder_after(run: Run) -> tuple[AutoencoderKL, float]:
        autoencoder, _ = train_autoencoder(run, first, discs)
        output = reconstruct(autoencoder, image)
        loss = reconstruction_loss(output, image, control, settings.line_weight)
        return autoencoder, loss.item()

    _, before = autoencoder_after(no_step)
    autoencoder, after = autoencoder_after(run)
    assert after < 0.7 * before  # it is half

    train_tokenizer(first.get().captions, run.state / "tokenizer", settings.sizes.vocabulary)
    tokenizer = load_tokenizer(run.state / "tokenizer")
    classes = attribute_classes(discs, settings.seed)
    judged = Trainer(run, tokenizer, classes)

    def denoising_after(run: Run) -> float:
        denoiser, _, pool = train_diffusion(
            run, discs, discs, tokenizer, autoencoder, classes, lambda *_: None
        )
        trained = denoiser.modules()
        for name, network in judged.working.modules().items():
            network.load_state_dict(trained[name].state_dict())
        same = run.generator(0)
        noised = judged.noiser(pool.draw(32, same), same)
        with torch.no_grad():
            return judged.losses(noised)[0].item()

    before, after = (denoising_after(r) for r in (no_step, run))
    assert after < 0.8 * before  # it is 0.6 of it


@pytest.mark.slow  # 100 s on a slow core
def test_autoencoder_and_denoiser_learn(tmp_path: Path) -> None:
    """Words too, and the whole run."""
    settings = replace(
        longer({"steps": 120, "batch": 8}, {"steps": 60, "batch": 16, "ema_decay": 0.9}),
        held_out_pictures=48,
        attribute_weight=1.0,
    )
    run = run_in(tmp_path, settings)
    assert train(run, Discs(), Discs(), tmp_path / "prior")
    autoencoder, diffusion = run.tables["autoencoder"], run.tables["diffusion"]
    assert autoencoder[-1]["psnr"] > autoencoder[0]["psnr"] + 3
    assert diffusion[-1]["loss"] < 0.8 * diffusion[0]["loss"]
    assert diffusion[-1]["text/skin"] == 1.0  # three words to tell apart
