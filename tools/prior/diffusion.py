"""Second phase: text encoder, denoiser and ControlNet, together from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from tools.prior.autoencoder import encoder_of, line_mask
from tools.prior.data import (
    HELD_OUT,
    LatentBatch,
    LatentPool,
    PictureSource,
    as_input,
    render_pictures,
    seed_of,
)
from tools.prior.logs import say
from tools.prior.models import Denoiser, make_denoiser, make_scheduler, predict_noise
from tools.prior.optimize import WORKING_DTYPE, Learner
from tools.prior.running import PhaseLoop, Run, compiled
from tools.prior.sampling import Sampler
from tools.prior.settings import Settings
from tools.prior.start import start_denoiser
from tools.prior.tokenizer import encode

IGNORED = -100  # the class of an attribute that a picture does not have


@dataclass
class Noised:
    """A batch with everything random drawn: what one training step sees."""

    noisy: Tensor  # [n, 4, h, w]
    noise: Tensor
    timesteps: Tensor  # [n] int64
    tokens: Tensor  # [n, 77] int64
    control: Tensor  # [n, 3, H, W] in 0..1
    control_weight: Tensor  # [n]
    labels: Tensor  # [n, A], IGNORED throughout where the caption was dropped
    weight: Tensor  # [n, 1, h, w], what each cell's error counts, 1 on average


class Noiser:
    """Draws timesteps and noise, and drops captions and control images."""

    def __init__(self, settings: Settings, empty: Tensor, device: torch.device) -> None:
        """``empty`` is the empty prompt's token ids ``[77]``."""
        self.settings = settings
        self.empty = empty.to(device)
        self.alphas = make_scheduler().alphas_cumprod.to(device)

    def __call__(self, batch: LatentBatch, generator: torch.Generator) -> Noised:
        n, device = len(batch.latents), batch.latents.device
        timesteps = torch.randint(len(self.alphas), (n,), generator=generator, device=device)
        noise = torch.randn(batch.latents.shape, generator=generator, device=device)
        alpha = self.alphas[timesteps].reshape(-1, 1, 1, 1)
        drops = torch.rand(2, n, generator=generator, device=device)
        wordless = drops[0] < self.settings.caption_dropout
        seen = (drops[1] >= self.settings.control_dropout).float()
        control = as_input(batch.control, WORKING_DTYPE)
        return Noised(
            alpha.sqrt() * batch.latents.float() + (1 - alpha).sqrt() * noise,
            noise,
            timesteps,
            torch.where(wordless[:, None], self.empty, batch.tokens.long()),
            control * seen.to(control.dtype).reshape(-1, 1, 1, 1),
            batch.control_weight * seen,
            torch.where(wordless[:, None], IGNORED, batch.labels),
            self.cell_weight(control, noise.shape[-1]),
        )

    def cell_weight(self, control: Tensor, cells: int) -> Tensor:
        """Weights [n, 1, cells, cells], higher near the drawn lines [n, 3, H, W]; a mean of 1 over
        all cells of the batch.

        Eyes and lips are a hundredth of a picture and most of what makes a face.
        """
        near = F.adaptive_max_pool2d(line_mask(control.float()), cells)
        weight = 1.0 + self.settings.latent_line_weight * near
        return weight / weight.mean()

    def weight(self, timesteps: Tensor) -> Tensor:
        """Min-SNR weights (arXiv 2303.09556, eq. 3 for noise prediction): min(SNR, γ) / SNR.

        Uniform weights spend most of the gradient on nearly clean pictures, where only texture is
        left to learn. What words decide, colours and shapes, is decided at high noise.
        """
        alpha = self.alphas[timesteps]
        snr = alpha / (1 - alpha)
        return snr.clamp(max=self.settings.min_snr_gamma) / snr


def attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits ``[2, n, A, W]``, over the labels ``[n, A]`` that are not ignored."""
    flat = labels.expand(len(logits), *labels.shape).reshape(-1)
    losses = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), flat, ignore_index=IGNORED, reduction="sum"
    )
    return losses / (flat != IGNORED).sum().clamp(min=1)


class TextCheck:
    """How well the attributes can be read off held-out captions, by the averaged weights."""

    def __init__(
        self, run: Run, source: PictureSource, tokenizer: CLIPTokenizer, names: list[str]
    ) -> None:
        pictures = render_pictures(source, run.settings, HELD_OUT, run.settings.held_out_pictures)
        self.tokens = encode(tokenizer, pictures.captions).to(run.device)
        self.labels = pictures.labels.to(run.device)
        self.names, self.end = names, tokenizer.eos_token_id

    @torch.no_grad()
    def check(self, denoiser: Denoiser) -> dict[str, float]:
        """Accuracy per attribute from the tokens' mean, under keys ``text/<attribute>``."""
        states = denoiser.text_encoder(self.tokens).last_hidden_state
        guess = denoiser.heads(states, self.tokens, self.end)[1].argmax(-1)
        return accuracies("text", guess, self.labels, self.names)


def accuracies(prefix: str, guess: Tensor, labels: Tensor, names: list[str]) -> dict[str, float]:
    """Share of the labels ``[n, A]`` guessed, per attribute that some picture has."""
    known = labels != IGNORED
    right = ((guess == labels) & known).sum(0).tolist()
    total = known.sum(0).tolist()
    return {f"{prefix}/{name}": r / t for name, r, t in zip(names, right, total, strict=True) if t}


class Trainer:
    """The networks of the second phase and one optimisation step of them."""

    def __init__(
        self,
        run: Run,
        tokenizer: CLIPTokenizer,
        classes: dict[str, list[str]],
    ) -> None:
        self.run, self.settings, self.tokenizer = run, run.settings, tokenizer
        self.n_classes = [len(v) for v in classes.values()]
        torch.manual_seed(seed_of(self.settings.seed, 20))
        self.working = make_denoiser(self.settings.sizes, tokenizer, self.n_classes)
        if self.settings.start_from is not None:
            start_denoiser(Path(self.settings.start_from), self.working)
        if self._uses_compiler and self.settings.channels_last and run.device.type == "cuda":
            for network in (self.working.unet, self.working.controlnet):
                network.to(memory_format=torch.channels_last)
        self.learner = Learner(self.working.modules(), self.settings.diffusion, run.device)
        self.noiser = Noiser(self.settings, encode(tokenizer, [""])[0], run.device)
        self.fast: dict[str, nn.Module] = {
            "unet": self.working.unet,
            "controlnet": self.working.controlnet,
            "text_encoder": self.working.text_encoder,
        }

    @property
    def _uses_compiler(self) -> bool:
        return self.settings.compile in ("diffusion", "all")

    def losses(self, noised: Noised) -> tuple[Tensor, Tensor]:
        """The weighted denoising loss and the attribute loss."""
        text = self.fast["text_encoder"](noised.tokens).last_hidden_state
        predicted = predict_noise(
            self.fast["unet"],
            self.fast["controlnet"],
            noised.noisy.to(WORKING_DTYPE),
            noised.timesteps,
            text,
            noised.control,
            noised.control_weight,
        )
        squared = (predicted.float() - noised.noise).square()
        error = (squared * noised.weight).mean((1, 2, 3))
        logits = self.working.heads(text, noised.tokens, self.tokenizer.eos_token_id)
        loss = (self.noiser.weight(noised.timesteps) * error).mean()
        return loss, attribute_loss(logits, noised.labels)

    def step(self, noised: Noised, loop: PhaseLoop) -> dict[str, Tensor]:
        """Backpropagate and update; the figures stay on the device."""
        loss, attributes = self.losses(noised)
        (loss + self.settings.attribute_weight * attributes).backward()
        norm = self.learner.step(loop.progress)
        return {"loss": loss, "attribute_loss": attributes, "grad_norm": norm}

    def compile(self, noised: Noised) -> None:
        """Compile each network on a batch of training's shapes, or keep it as it is."""
        for name, module in list(self.fast.items()):

            def trial(candidate: nn.Module, name: str = name) -> None:
                before, self.fast[name] = self.fast[name], candidate
                try:
                    sum(self.losses(noised)).backward()
                finally:
                    self.fast[name] = before

            self.fast[name] = compiled(module, self._uses_compiler, trial, name)
        for p in self.learner.working:
            p.grad = None

    def averaged(self) -> Denoiser:
        """New networks with the averaged weights, float32, for sampling and saving."""
        final = make_denoiser(self.settings.sizes, self.tokenizer, self.n_classes)
        for module in final.modules().values():
            module.to(self.run.device).eval().requires_grad_(False)
        self.learner.copy_average(final.modules())
        return final


def train_diffusion(
    run: Run,
    source: PictureSource,
    held_out: PictureSource,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderKL,
    classes: dict[str, list[str]],
    show: Callable[[Sampler, str], None],
) -> tuple[Denoiser, PhaseLoop, LatentPool]:
    """Train, or go on training, the text encoder, the denoiser and the ControlNet.

    Args:
        show: draws sample grids; called every ``grid_minutes`` with a sampler and a name.

    Returns:
        The averaged networks, the loop (its ``done`` says whether training is complete), and the
        encoded pictures.
    """
    settings, phase = run.settings, run.settings.diffusion
    trainer = Trainer(run, tokenizer, classes)
    loop = PhaseLoop(run, "diffusion", phase, trainer.learner)
    loop.resume(seed_of(settings.seed, 21))
    encode_pictures = encoder_of(autoencoder)
    pool = LatentPool(
        source, settings, tokenizer, encode_pictures, int(loop.extra.get("chunks_made", 0))
    )
    loop.extra["chunks_made"] = pool.chunks_made
    say(f"diffusion: {len(pool)} pictures rendered and encoded")
    if not loop.done:
        before = loop.generator.get_state()
        trainer.compile(trainer.noiser(pool.draw(phase.batch, loop.generator), loop.generator))
        loop.generator.set_state(before)
    final = trainer.averaged()
    check = TextCheck(run, held_out, tokenizer, list(classes))
    if run.last_call and run.deadline < float("inf") and not loop.done:
        loop.end_by(run.deadline)
    shown = loop.progress.seconds
    for step in loop:
        if settings.refresh_every and step % settings.refresh_every == settings.refresh_every - 1:
            pool.refresh()
            loop.extra["chunks_made"] = pool.chunks_made
        noised = trainer.noiser(pool.draw(phase.batch, loop.generator), loop.generator)
        figures = trainer.step(noised, loop)
        if loop.due():
            trainer.learner.copy_average(final.modules())
            loop.log({**figures, **check.check(final)})
        if phase.grid_minutes and loop.progress.seconds - shown > 60 * phase.grid_minutes:
            shown = loop.progress.seconds
            trainer.learner.copy_average(final.modules())
            show(Sampler(final, autoencoder, tokenizer, settings), f"step_{step:06d}")
    trainer.learner.copy_average(final.modules())
    return final, loop, pool
