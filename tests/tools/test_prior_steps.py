"""One step of training: noise, weights, pictures, the optimiser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
)

from tests.fixtures.prior_training import (
    COLORS,
    VIEWS,
    Discs,
    tiny,
)
from tools.prior.data import (
    LatentBatch,
    LatentPool,
    add_stray_words,
    attribute_classes,
)
from tools.prior.diffusion import Noiser
from tools.prior.models import make_denoiser, make_unet, predict_noise
from tools.prior.optimize import Learner, Progress
from tools.prior.settings import Phase, Sizes
from tools.prior.tokenizer import encode, load_tokenizer


def test_learner_is_adam_in_full_precision() -> None:
    """Master weights must follow AdamW on float32 gradients, and the average must lag behind."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    reference = torch.nn.Linear(3, 2)
    reference.load_state_dict(network.state_dict())
    phase = Phase(minutes=60, batch=1, learning_rate=1e-3, warmup_steps=1, ema_decay=0.5)
    learner = Learner({"net": network}, phase, torch.device("cpu"))
    adam = torch.optim.AdamW(
        [
            {"params": [reference.weight], "weight_decay": 0.01},
            {"params": [reference.bias], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.99),
    )
    average = {k: v.clone() for k, v in reference.state_dict().items()}
    for step in range(20):
        for working, full in zip(network.parameters(), reference.parameters(), strict=True):
            working.grad = (0.1 * torch.randn_like(full)).bfloat16()
            full.grad = working.grad.float()
        norm = learner.step(Progress(step=step))
        assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0))
        adam.step()
        decay = min(0.5, (1 + step) / (10 + step))
        for key, value in reference.state_dict().items():
            average[key].lerp_(value, 1 - decay)
    for master, full in zip(learner.master, reference.parameters(), strict=True):
        assert torch.allclose(master, full, atol=1e-6)
    kept = torch.nn.Linear(3, 2)
    learner.copy_average({"net": kept})
    assert torch.allclose(kept.weight, average["weight"], atol=1e-6)
    assert network.weight.dtype == torch.bfloat16
    assert torch.equal(network.weight, reference.weight.bfloat16()) or torch.allclose(
        network.weight.float(), reference.weight, rtol=2**-7
    )


def test_noise_and_its_weights(trained: Path) -> None:
    """z_t = sqrt(a) z + sqrt(1 - a) e, dropped parts are empty, weights are min(SNR, 5) / SNR."""
    settings = tiny(caption_dropout=0.5, control_dropout=0.5)
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")
    empty = encode(tokenizer, [""])[0]
    noiser = Noiser(settings, empty, torch.device("cpu"))
    batch = LatentBatch(
        latents=torch.randn(64, 4, 8, 8).half(),
        control=torch.full((64, 32, 32, 3), 255, dtype=torch.uint8),
        control_weight=torch.ones(64),
        tokens=encode(tokenizer, ["a head with blue skin"]).int().expand(64, -1),
        labels=torch.zeros(64, 2, dtype=torch.long),
    )
    noised = noiser(batch, torch.Generator().manual_seed(0))
    alpha = DDIMScheduler.from_pretrained(trained / "prior", subfolder="scheduler").alphas_cumprod
    a = alpha[noised.timesteps][:, None, None, None]
    expected = a.sqrt() * batch.latents.float() + (1 - a).sqrt() * noised.noise
    assert torch.allclose(noised.noisy, expected, atol=1e-5)
    wordless = (noised.tokens == empty).all(1)
    assert 16 < wordless.sum() < 48
    assert torch.equal((noised.labels == -100).all(1), wordless)
    unseen = noised.control_weight == 0
    assert 16 < unseen.sum() < 48
    assert torch.equal(noised.control.float().amax((1, 2, 3)) == 0, unseen)
    snr = (a / (1 - a)).flatten()
    weight = noiser.weight(noised.timesteps)
    assert torch.allclose(weight, torch.where(snr < 5, 1.0, 5 / snr), rtol=1e-4)


def test_weight_zero_switches_the_controlnet_off(trained: Path) -> None:
    torch.manual_seed(0)
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")
    denoiser = make_denoiser(tiny().sizes, tokenizer, [3, 3])
    for convolution in denoiser.controlnet.controlnet_down_blocks:
        torch.nn.init.normal_(convolution.weight)
    noisy, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    control, time_ = torch.rand(2, 3, 32, 32), torch.tensor([10, 900])
    with torch.no_grad():
        out = predict_noise(
            denoiser.unet, denoiser.controlnet, noisy, time_, text, control, torch.tensor([0.0, 1])
        )
        alone = denoiser.unet(noisy, time_, text).sample
    assert torch.allclose(out[0], alone[0], atol=1e-5)
    assert (out[1] - alone[1]).abs().max() > 1e-3


def test_pool_replaces_oldest_and_can_be_rebuilt(trained: Path) -> None:
    settings = tiny(diffusion_pictures=48)
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")

    def average(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float().mean((1, 2))[:, :, None, None].expand(-1, -1, 8, 8) / 255

    pool = LatentPool(Discs(), settings, tokenizer, average)
    first = {name: value.clone() for name, value in pool.tensors.items()}
    pool.refresh()
    assert torch.equal(pool.tensors["latents"][16:], first["latents"][16:])
    assert not torch.equal(pool.tensors["tokens"][:16], first["tokens"][:16])
    again = LatentPool(Discs(), settings, tokenizer, average, pool.chunks_made)
    for name, value in pool.tensors.items():
        assert torch.equal(value, again.tensors[name])
    batch = pool.draw(40, torch.Generator().manual_seed(0))
    for row in range(40):  # the parts of a picture stay together
        place = (pool.tensors["latents"] == batch.latents[row]).flatten(1).all(1)
        assert any(
            (pool.tensors["tokens"][i] == batch.tokens[row]).all(-1).any()
            for i in place.nonzero().flatten().tolist()
        )


def test_stray_words_keep_the_caption(trained: Path) -> None:
    import numpy as np

    captions = ["a head with red skin, front view", "a head"] * 50
    changed = add_stray_words(captions, 0.5, np.random.default_rng(0))
    differing = [(a, b) for a, b in zip(captions, changed, strict=True) if a != b]
    assert 30 < len(differing) < 70
    for before, after in differing:
        assert all(part in after.split(", ") for part in before.split(", "))


def test_classes_come_from_the_source() -> None:
    assert attribute_classes(Discs(), 0) == {"skin": list(COLORS), "view": list(VIEWS)}
    assert make_unet(Sizes()).config.sample_size == 32
