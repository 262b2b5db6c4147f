"""Does the prior follow its prompts? A classifier of latents answers in figures."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from tools.prior.data import LatentPool, Pictures, as_input, seed_of
from tools.prior.diffusion import accuracies, attribute_loss
from tools.prior.optimize import Progress, learning_rate
from tools.prior.sampling import GUIDANCES, Sampler
from tools.prior.settings import Phase


class Judge(nn.Module):
    """A small convolutional classifier: latents ``[n, 4, h, w]`` to logits ``[1, n, A, W]``."""

    def __init__(self, latent_channels: int, n_classes: list[int], width: int = 64) -> None:
        super().__init__()
        self.n_attributes, self.width = len(n_classes), max(n_classes)
        channels = [latent_channels, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, 2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        # Mean and maximum over places: a colour fills the picture, glasses sit in one.
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(8 * width, self.n_attributes * self.width)
        valid = torch.arange(self.width) < torch.tensor(n_classes)[:, None]
        self.register_buffer("valid", valid, persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        features = self.features(latents).flatten(2)
        logits = self.head(torch.cat([features.mean(2), features.amax(2)], 1))
        logits = logits.reshape(1, len(latents), self.n_attributes, self.width)
        return logits.masked_fill(~self.valid, -1e4)


def train_judge(pool: LatentPool, n_classes: list[int], sampler: Sampler) -> Judge:
    """Fit a judge to the pool's pictures, with a little noise so that samples' texture is no clue.

    It is trained anew at the end of every call, in seconds, and never saved.
    """
    settings = sampler.settings
    device = pool.tensors["latents"].device
    torch.manual_seed(seed_of(settings.seed, 40))
    judge = Judge(settings.sizes.latent_channels, n_classes).to(device)
    phase = Phase(1e6, settings.diffusion.batch, 1e-3, steps=settings.judge_steps, warmup_steps=50)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=phase.learning_rate, weight_decay=0.05)
    generator = torch.Generator(device).manual_seed(seed_of(settings.seed, 41))
    for step in range(settings.judge_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase, Progress(step))
        batch = pool.draw(phase.batch, generator)
        noise = torch.randn(batch.latents.shape, generator=generator, device=device)
        amount = 0.3 * torch.rand(len(noise), 1, 1, 1, generator=generator, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = judge(batch.latents.float() + amount * noise).float()
        attribute_loss(logits, batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return judge.eval()


@torch.no_grad()
def judge_samples(
    judge: Judge, sampler: Sampler, pictures: Pictures, names: list[str], count: int = 512
) -> dict[str, float]:
    """Share of held-out pictures whose attribute is recognised, rendered and sampled.

    A sample is drawn for the caption and the control image of each held-out picture. A caption
    leaves things out, so even a perfect model stays below the rendered pictures' figure where the
    attribute often goes unsaid; the text encoder's accuracy on the same captions is its ceiling.

    Returns:
        ``rendered/<attribute>`` and ``guidance_<g>/<attribute>``.
    """
    count = min(count, len(pictures))
    labels = pictures.labels[:count]
    control = as_input(pictures.control[:count], torch.float32)
    weight, captions = pictures.control_weight[:count], pictures.captions[:count]
    image = as_input(pictures.image[:count], torch.float32) * 2 - 1
    scale = sampler.autoencoder.config.scaling_factor
    real = torch.cat(
        [sampler.autoencoder.encode(p).latent_dist.mode() * scale for p in image.split(64)]
    )
    figures = accuracies("rendered", judge(real)[0].argmax(-1), labels, names)
    for guidance in GUIDANCES:
        drawn = sampler.latents(captions, control, weight, guidance)
        guess = judge(drawn)[0].argmax(-1)
        figures.update(accuracies(f"guidance_{guidance:g}", guess, labels, names))
    return figures


def table(figures: dict[str, float], text: dict[str, float], names: list[str]) -> str:
    """The figures as lines of text, an attribute a line."""
    columns = ["text", "rendered", *(f"guidance_{g:g}" for g in GUIDANCES)]
    both = {**text, **figures}
    lines = [f"{'attribute':16s}" + "".join(f"{c:>16s}" for c in columns)]
    for name in names:
        cells = [both.get(f"{c}/{name}") for c in columns]
        lines.append(
            f"{name:16s}" + "".join(f"{'-' if c is None else f'{c:.3f}':>16s}" for c in cells)
        )
    return "\n".join(lines)
