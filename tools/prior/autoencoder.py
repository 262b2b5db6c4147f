"""First phase: pictures to latents and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from tools.prior.data import (
    HELD_OUT,
    FirstPictures,
    Pictures,
    PictureSource,
    as_input,
    render_pictures,
    seed_of,
)
from tools.prior.logs import say
from tools.prior.models import make_autoencoder
from tools.prior.optimize import WORKING_DTYPE, Learner
from tools.prior.running import PhaseLoop, Run, compiled

_SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]) / 8.0


class _Reconstruction(nn.Module):
    """Encode, sample, decode in one call, so that it compiles as one graph."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pictures: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in -1..1 and unit noise of the latents' shape to (picture, mean, logvar)."""
        moments = self.autoencoder.quant_conv(self.autoencoder.encoder(pictures))
        mean, logvar = moments.chunk(2, dim=1)
        logvar = logvar.clamp(-30.0, 20.0)
        sample = mean + torch.exp(0.5 * logvar) * noise
        decoder = self.autoencoder.decoder
        return decoder(self.autoencoder.post_quant_conv(sample)), mean, logvar


def _edges(pictures: Tensor) -> Tensor:
    """Horizontal and vertical Sobel derivatives ``[n, 6, H, W]`` of ``[n, 3, H, W]``."""
    kernel = torch.stack([_SOBEL, _SOBEL.T])[:, None].to(pictures).repeat(3, 1, 1, 1)
    return F.conv2d(pictures, kernel, padding=1, groups=3)


def line_mask(control: Tensor) -> Tensor:
    """``[n, 1, H, W]`` in {0, 1}: within 2.5 % of the picture's size of a drawn line."""
    lit = (control.amax(1, keepdim=True) > 0.1).float()
    reach = max(1, control.shape[-1] // 40)
    return F.max_pool2d(lit, 2 * reach + 1, stride=1, padding=reach)


def reconstruction_loss(
    output: Tensor, target: Tensor, control: Tensor, line_weight: float
) -> Tensor:
    """Mean absolute error of colours and of Sobel derivatives, heavier near the drawn lines.

    The lines of the control image are eyes, lips and brows: small, and what people look at.
    """
    weight = 1.0 + line_weight * line_mask(control)
    output, target = output.float(), target.float()
    colour = (weight * (output - target).abs()).mean()
    edge = (weight * (_edges(output) - _edges(target)).abs()).mean()
    return colour + edge


def disturb(pictures: Tensor, generator: torch.Generator, share: float = 0.25) -> Tensor:
    """Give some pictures other colours and contrasts, ``[n, 3, H, W]`` in 0..1.

    In distillation the autoencoder is shown unfinished avatars, which look like none of the
    characters; it has to encode them faithfully all the same.
    """
    n = len(pictures)
    draws = torch.rand(4, n, 3, 1, 1, generator=generator, device=pictures.device)
    gain, shift = 0.4 + 0.9 * draws[0], 0.5 * (draws[1] - 0.5)
    changed = ((pictures.float() - 0.5) * gain + 0.5 + shift).clamp(0, 1).to(pictures.dtype)
    return torch.where(draws[3, :, :1] < share, changed, pictures)


def train_autoencoder(
    run: Run, first: FirstPictures, held_out: PictureSource
) -> tuple[AutoencoderKL, bool]:
    """Train, or go on training, or take the finished one from the state folder.

    Returns:
        The averaged weights in float32 on the run's device, and whether the phase is done; if it
        is, ``scaling_factor`` is set from the latents of training pictures.
    """
    settings, phase = run.settings, run.settings.autoencoder
    torch.manual_seed(seed_of(settings.seed, 10))
    working = make_autoencoder(settings.sizes)
    if settings.compile == "all" and settings.channels_last and run.device.type == "cuda":
        working.to(memory_format=torch.channels_last)
    learner = Learner({"vae": working}, phase, run.device)
    loop = PhaseLoop(run, "autoencoder", phase, learner)
    loop.resume(seed_of(settings.seed, 11))
    if not loop.done:
        _train(run, loop, first, held_out, working)
    final = make_autoencoder(settings.sizes).to(run.device).eval().requires_grad_(False)
    learner.copy_average({"vae": final})
    if loop.done:
        if "scaling_factor" not in loop.extra:
            loop.extra["scaling_factor"] = _scaling_factor(final, first)
            loop.save()
        final.register_to_config(scaling_factor=loop.extra["scaling_factor"])
    return final, loop.done


def _train(
    run: Run,
    loop: PhaseLoop,
    first: FirstPictures,
    held_out: PictureSource,
    working: AutoencoderKL,
) -> None:
    settings, phase = run.settings, loop.phase
    pictures = first.get()
    sizes = settings.sizes
    latent_shape = (phase.batch, sizes.latent_channels, sizes.latent, sizes.latent)
    checker = Checker(run, held_out)

    def losses(network: nn.Module, image: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn(latent_shape, generator=loop.generator, device=run.device)
        target = image * 2 - 1
        output, mean, logvar = network(target, noise.to(WORKING_DTYPE))
        mean, logvar = mean.float(), logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        return reconstruction_loss(output, target, control, settings.line_weight), kl

    def trial(network: nn.Module) -> None:
        before = loop.generator.get_state()
        pick = torch.arange(phase.batch, device=run.device) % len(pictures)
        image = as_input(pictures.image[pick], WORKING_DTYPE)
        sum(losses(network, image, image)).backward()
        loop.generator.set_state(before)

    network = compiled(_Reconstruction(working), settings.compile == "all", trial, "autoencoder")
    for _ in loop:
        pick = torch.randint(
            len(pictures), (phase.batch,), generator=loop.generator, device=run.device
        )
        image = as_input(pictures.image[pick], WORKING_DTYPE)
        control = as_input(pictures.control[pick], WORKING_DTYPE)
        image = disturb(image, loop.generator)
        reconstruction, kl = losses(network, image, control)
        (reconstruction + settings.kl_weight * kl).backward()
        norm = loop.learner.step(loop.progress)
        if loop.due():
            figures = {"loss": reconstruction, "kl": kl, "grad_norm": norm}
            loop.log({**figures, **checker.check(loop.learner)})


class Checker:
    """PSNR of the averaged weights on characters that are not trained on."""

    def __init__(self, run: Run, held_out: PictureSource) -> None:
        count = min(256, run.settings.held_out_pictures)
        self.pictures = render_pictures(held_out, run.settings, HELD_OUT, count)
        self.network = make_autoencoder(run.settings.sizes).to(run.device).eval()

    def check(self, learner: Learner) -> dict[str, float]:
        """What :func:`reconstruction_figures` says of them."""
        learner.copy_average({"vae": self.network})
        return reconstruction_figures(self.network, self.pictures)


def reconstruction_figures(autoencoder: AutoencoderKL, pictures: Pictures) -> dict[str, float]:
    """``psnr`` over whole pictures and ``psnr_lines`` near the drawn lines, in dB."""
    image = as_input(pictures.image, torch.float32)
    mask = line_mask(as_input(pictures.control, torch.float32))
    figures = psnr(reconstruct(autoencoder, image), image, mask)
    return {name: value.item() for name, value in figures.items()}


@torch.no_grad()
def reconstruct(autoencoder: AutoencoderKL, image: Tensor) -> Tensor:
    """Pictures ``[n, 3, H, W]`` in 0..1 through the latents and back."""
    out = []
    for part in image.split(64):
        with _half(part.device):
            latents = autoencoder.encode(part * 2 - 1).latent_dist.mode()
            out.append(autoencoder.decode(latents).sample.float() / 2 + 0.5)
    return torch.cat(out).clamp(0, 1)


def _half(device: torch.device) -> torch.autocast:
    """Half precision where it is faster; on a CPU it only costs accuracy."""
    return torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda")


def psnr(output: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Mean over pictures of 10 log10(1 / MSE), and the same over the masked pixels of all."""
    error = (output - target).square()
    whole = -10 * error.mean((1, 2, 3)).clamp(min=1e-10).log10()
    near = (error * mask).sum() / (3 * mask.sum()).clamp(min=1)
    return {"psnr": whole.mean(), "psnr_lines": -10 * near.clamp(min=1e-10).log10()}


def encoder_of(autoencoder: AutoencoderKL) -> Callable[[Tensor], Tensor]:
    """uint8 pictures ``[n, H, W, 3]`` to scaled latents, as the diffusion phase stores them."""

    @torch.no_grad()
    def encode(pictures: Tensor) -> Tensor:
        out = []
        for part in pictures.split(256):
            with _half(part.device):
                latents = autoencoder.encode(as_input(part, torch.float32) * 2 - 1).latent_dist
            out.append(latents.mode().float() * autoencoder.config.scaling_factor)
        return torch.cat(out)

    return encode


def _scaling_factor(autoencoder: AutoencoderKL, first: FirstPictures) -> float:
    """1 / standard deviation of the latents, what diffusers multiplies them by."""
    autoencoder.register_to_config(scaling_factor=1.0)
    deviation = encoder_of(autoencoder)(first.get().image[:2048]).std().item()
    say(f"autoencoder: the latents' standard deviation is {deviation:.4f}")
    return 1.0 / max(deviation, 1e-6)
