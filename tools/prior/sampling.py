"""Pictures drawn from the prior, and grids of them to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from matplotlib.figure import Figure
from torch import Tensor
from transformers import CLIPTokenizer

from headstudio.paths import atomic_write
from tools.prior.autoencoder import reconstruct
from tools.prior.data import Pictures, as_input, seed_of
from tools.prior.models import Denoiser, make_scheduler, predict_noise
from tools.prior.settings import Settings
from tools.prior.tokenizer import encode

PROMPTS = (
    "a woman with blue skin and long red hair",
    "a man with green skin and a black beard",
    "an old woman with grey hair and glasses",
    "a DSLR portrait of a man with short brown hair and a brown beard",
    "a woman with dark brown skin, curly black hair and red lips",
    "a girl with long blonde hair, pink lips and green eyes",
    "a bald man with red skin and yellow eyes",
    "a woman with purple hair and black lips, masterpiece, studio quality, 8k",
)
GUIDANCES = (3.0, 7.5)


@dataclass
class Sampler:
    """DDIM with classifier-free guidance over the finished networks."""

    denoiser: Denoiser
    autoencoder: AutoencoderKL
    tokenizer: CLIPTokenizer
    settings: Settings

    @torch.no_grad()
    def latents(
        self, captions: list[str], control: Tensor, control_weight: Tensor, guidance: float
    ) -> Tensor:
        """Scaled latents ``[n, 4, h, w]``.

        Args:
            captions: n prompts.
            control: ``[n, 3, H, W]`` in 0..1; given to both predictions, as distillation does.
            control_weight: ``[n]``.
            guidance: 1 is none.
        """
        device, n, sizes = control.device, len(captions), self.settings.sizes
        scheduler = make_scheduler()
        scheduler.set_timesteps(self.settings.sampling_steps, device=device)
        tokens = encode(self.tokenizer, [*captions, *[""] * n]).to(device)
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, 30))
        shape = (n, sizes.latent_channels, sizes.latent, sizes.latent)
        x = torch.randn(shape, generator=generator).to(device)
        unet, controlnet = self.denoiser.unet, self.denoiser.controlnet
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            text = self.denoiser.text_encoder(tokens).last_hidden_state
            for t in scheduler.timesteps:
                noise = predict_noise(
                    unet, controlnet, torch.cat([x, x]), t.expand(2 * n), text,
                    torch.cat([control, control]), torch.cat([control_weight, control_weight]),
                ).float()  # fmt: skip
                with_text, without = noise.chunk(2)
                x = scheduler.step(without + guidance * (with_text - without), t, x).prev_sample
        return x

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures ``[n, 3, H, W]`` in 0..1 from scaled latents."""
        with torch.autocast(latents.device.type, torch.float16, enabled=latents.is_cuda):
            scale = self.autoencoder.config.scaling_factor
            out = [self.autoencoder.decode(part / scale).sample for part in latents.split(64)]
        return (torch.cat(out).float() / 2 + 0.5).clamp(0, 1)


VIEWS = ("front", "side", "back", "front")  # columns of a grid of prompts


def pictures_of_views(captions: list[str]) -> list[int]:
    """Index of a picture for each of :data:`VIEWS`, told by the view words of the captions.

    A view that no caption names is given a picture that is left.
    """
    free = list(range(len(captions)))
    chosen = []
    for view in VIEWS[: len(captions)]:
        index = next((i for i in free if f"{view} view" in captions[i]), free[0])
        free.remove(index)
        chosen.append(index)
    return chosen


def _grid(path: Path, rows: list[list[Tensor]], titles: list[str], left: list[str]) -> None:
    """Pictures ``[3, H, W]`` in a table with titles above and captions at the left."""
    lines, columns = len(rows), len(rows[0])
    figure = Figure(figsize=(1.3 * columns + 1.6, 1.3 * lines + 0.3), dpi=100)
    axes = figure.subplots(lines, columns, squeeze=False)
    figure.subplots_adjust(
        left=1.6 / (1.3 * columns + 1.6), right=1, top=1 - 0.3 / (1.3 * lines + 0.3), bottom=0,
        wspace=0.02, hspace=0.02,
    )  # fmt: skip
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            axis = axes[i][j]
            axis.imshow(picture.permute(1, 2, 0).float().cpu().numpy())
            axis.set_xticks([])
            axis.set_yticks([])
            if i == 0:
                axis.set_title(titles[j], fontsize=7, pad=2)
        label = left[i]
        wrapped = "\n".join(_wrapped(label, 24))
        axes[i][0].set_ylabel(wrapped, fontsize=6, rotation=0, ha="right", va="center")
    with atomic_write(path) as temporary:
        figure.savefig(temporary)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def prompt_grids(folder: Path, name: str, sampler: Sampler, pictures: Pictures) -> None:
    """Fixed prompts down, views across, each beside its control image; one file per guidance."""
    chosen = pictures_of_views(pictures.captions)
    views = VIEWS[: len(chosen)]
    control = as_input(pictures.control[chosen], torch.float32)
    weight = pictures.control_weight[chosen]
    prompts = PROMPTS[: sampler.settings.sample_prompts]
    captions = [f"{prompt}, {view} view" for prompt in prompts for view in views]
    n = len(prompts)
    for guidance in GUIDANCES:
        latents = sampler.latents(captions, control.repeat(n, 1, 1, 1), weight.repeat(n), guidance)
        samples = sampler.decode(latents)
        rows = [
            [x for j in range(len(views)) for x in (control[j], samples[i * len(views) + j])]
            for i in range(n)
        ]
        titles = [title for view in views for title in ("control", view)]
        _grid(folder / f"{name}_guidance_{guidance:g}.png", rows, titles, list(prompts))


def truth_grid(folder: Path, name: str, sampler: Sampler, pictures: Pictures) -> None:
    """A dozen held-out pictures beside their reconstruction and samples for the same caption."""
    count = min(12, len(pictures))
    # Neighbours may show the same character, so the pictures are taken from all over.
    chosen = [i * len(pictures) // count for i in range(count)]
    image = as_input(pictures.image[chosen], torch.float32)
    control = as_input(pictures.control[chosen], torch.float32)
    weight, captions = pictures.control_weight[chosen], [pictures.captions[i] for i in chosen]
    rebuilt = reconstruct(sampler.autoencoder, image)
    samples = [
        sampler.decode(sampler.latents(captions, control, weight, guidance))
        for guidance in GUIDANCES
    ]
    columns = [image, rebuilt, control, *samples]
    titles = ["rendered", "reconstructed", "control", *(f"guidance {g:g}" for g in GUIDANCES)]
    rows = [[column[i] for column in columns] for i in range(count)]
    _grid(folder / f"{name}_truth.png", rows, titles, captions)
