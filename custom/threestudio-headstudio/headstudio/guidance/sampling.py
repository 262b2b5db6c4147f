"""Pictures from a prior by deterministic DDIM sampling: to see what it has learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.guidance.prior import DiffusionPrior, standard_normal


@torch.no_grad()
def sample(
    prior: DiffusionPrior,
    prompts: Sequence[str] | Tensor,
    control: Tensor | None = None,
    *,
    steps: int = 50,
    guidance_scale: float = 7.5,
    control_weight: Tensor | float = 1.0,
    negative_prompt: str = "",
    seed: int = 0,
) -> Tensor:
    """Draw one picture per prompt.

    Args:
        prior: a loaded prior.
        prompts: N sentences, or their embeddings [N, L, D].
        control: control images [N, H, W, 3]; None leaves the ControlNet out.
        steps: of the sampler.
        guidance_scale: classifier-free guidance; 1 is none.
        control_weight: of the ControlNet, [N] or one for all.
        negative_prompt: what guidance leads away from.
        seed: of the initial noise, drawn on the CPU.

    Returns:
        [N, image_size, image_size, 3] in [0, 1].
    """
    from diffusers import DDIMScheduler

    if steps < 1:
        raise HeadStudioError(f"cannot sample in {steps} steps; at least 1 is needed.")
    text = prompts if isinstance(prompts, Tensor) else prior.embed_text(prompts)
    n = len(text)
    away = prior.embed_text([negative_prompt]) if negative_prompt else prior.null_embedding
    embeddings = torch.cat([text.to(prior.device), away.expand(n, -1, -1)])
    weight = torch.as_tensor(control_weight, dtype=torch.float32, device=prior.device).expand(n)
    conditions = (
        () if control is None else (torch.cat([control.to(prior.device)] * 2), weight.repeat(2))
    )

    # predict_noise has turned whatever the UNet predicts into noise.
    scheduler = DDIMScheduler.from_config(
        prior.scheduler_config, prediction_type="epsilon", clip_sample=False
    )
    scheduler.set_timesteps(steps)
    shape = (n, prior.latent_channels, prior.latent_size, prior.latent_size)
    generator = torch.Generator().manual_seed(seed)
    latents = standard_normal(shape, generator, prior.device)
    for t in scheduler.timesteps.tolist():
        timesteps = torch.full((2 * n,), t, dtype=torch.int64, device=prior.device)
        predicted = prior.predict_noise(
            torch.cat([latents] * 2), timesteps, embeddings, *conditions
        )
        e_text, e_away = predicted.chunk(2)
        epsilon = e_away + guidance_scale * (e_text - e_away)
        latents = scheduler.step(epsilon, t, latents).prev_sample
    return prior.decode(latents)
