"""Score distillation: what a diffusion prior would change in rendered pictures."""

from dataclasses import dataclass

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.guidance.prior import DiffusionPrior, resize, standard_normal
from headstudio.on_device import OnTheWay

# No deferred annotations here: a host's OmegaConf reads this dataclass's field types.


@dataclass
class DistillationConfig:
    """How the gradient is made; every component can be switched or weighed.

    Attributes:
        method: "denoised" (noise-free score distillation, arXiv 2310.17590) or "sds".
        guidance_scale: s, how much the text counts.
        control_weight: of the ControlNet's residuals where the face is visible; 0 leaves the
            ControlNet out.
        min_step_percent, max_step_percent: timesteps are uniform in this part of [0, T], until
            ``ScoreDistillation.set_step_range`` gives another.
        null_threshold: below this timestep (on a scale of 1000) the denoised form takes ε_null
            for the residual's domain term and needs no prediction for the negative prompt.
        weighting: w(t): "sds" is 1 − ᾱ_t, "uniform" is 1.
        grad_clip: largest magnitude of a gradient's entry, or of a sample's gradient, as
            ``grad_clip_mode`` says; None does not clip.
        grad_clip_mode: "value" or "norm".
    """

    method: str = "denoised"
    guidance_scale: float = 7.5
    control_weight: float = 1.5
    min_step_percent: float = 0.02
    max_step_percent: float = 0.98
    null_threshold: int = 200
    weighting: str = "sds"
    grad_clip: float | None = None
    grad_clip_mode: str = "value"

    def check(self) -> None:
        """Raise a HeadStudioError that names the first key with an impossible value."""
        for key, known in (
            ("method", ("denoised", "sds")),
            ("weighting", ("sds", "uniform")),
            ("grad_clip_mode", ("value", "norm")),
        ):
            if getattr(self, key) not in known:
                raise HeadStudioError(
                    f"{key}={getattr(self, key)!r} is unknown; choose one of {', '.join(known)}."
                )
        _check_range(self.min_step_percent, self.max_step_percent)
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise HeadStudioError(f"grad_clip={self.grad_clip} must be positive, or null for none.")


class ScoreDistillation:
    """Rendered pictures -> a loss whose gradient is the prior's opinion of them.

    Three predictions of the noise in z_t, under one control image, for the prompt, the empty
    prompt and (denoised, late timesteps) the negative prompt, are made in a single pass. With
    δ_C = s (ε_text − ε_null) the gradient with respect to the latents is

    * denoised: w(t) (δ_C + δ_D), δ_D = ε_null for t < null_threshold, else ε_null − ε_neg;
    * sds: w(t) (ε_null + δ_C − ε).

    Attributes:
        config: a DistillationConfig; ``grad_clip`` may be changed between calls.
        min_step, max_step: the current range of timesteps, inclusive.
    """

    def __init__(self, prior: DiffusionPrior, config: DistillationConfig | None = None) -> None:
        self.prior = prior
        self.config = DistillationConfig() if config is None else config
        self.config.check()
        self.null_threshold = self.config.null_threshold * prior.num_train_timesteps / 1000
        self.set_step_range(self.config.min_step_percent, self.config.max_step_percent)

    # ------------------------------------------------------------------ schedule

    def set_step_range(self, min_step_percent: float, max_step_percent: float) -> None:
        """Draw timesteps from this part of [0, T] from now on.

        Raises:
            HeadStudioError: unless 0 <= min <= max <= 1.
        """
        _check_range(min_step_percent, max_step_percent)
        last = self.prior.num_train_timesteps - 1
        self.min_step = min(int(self.prior.num_train_timesteps * min_step_percent), last)
        self.max_step = min(int(self.prior.num_train_timesteps * max_step_percent), last)

    # ------------------------------------------------------------------ the gradient

    def __call__(
        self,
        rgb: Tensor,  # [B, H, W, 3], or latents [B, h, w, C]
        text: Tensor,  # [B, L, D]
        negative: Tensor | None,  # [B, L, D] or [1, L, D]
        null: Tensor | None = None,  # [B, L, D] or [1, L, D]
        control: Tensor | None = None,  # [B, H, W, 3]
        visible: Tensor | float = 1.0,  # [B]
        *,
        generator: torch.Generator | None = None,
        rgb_as_latents: bool = False,
        t: Tensor | None = None,  # [B]
        noise: Tensor | None = None,  # [B, C, h, w]
    ) -> dict[str, Tensor | int]:
        """One step of distillation.

        Args:
            rgb: pictures in [0, 1] of any size, resized to the prior's; the only argument that
                receives a gradient.
            text: embeddings of the prompt as seen from each view.
            negative: embeddings of the negative prompt; None is the empty prompt again, for which
                ε_neg is ε_null and nothing need be predicted.
            null: embeddings of the empty prompt; the prior's own by default.
            control: control images; None (or a weight of 0) leaves the ControlNet out.
            visible: weight of the control image in [0, 1], 0 where no landmark can be seen.
                Multiplied by the configured ``control_weight``.
            generator: draws timesteps and noise; the global CPU generator by default.
            rgb_as_latents: ``rgb`` are latents already, channels last, and only resized.
            t: timesteps instead of drawn ones.
            noise: instead of drawn noise.

        Returns:
            ``loss_sds``, a scalar whose gradient with respect to the latents is the above over B;
            ``grad_norm`` of the batch; ``n_nonfinite``, how many entries of the gradient were
            not finite and were set to 0; ``n_predictions``; ``min_step`` and ``max_step``.
        """
        # Where no landmark is visible, the ControlNet need not be asked. The host has to know, and
        # learns it while the encoder is at work.
        weighed = OnTheWay(visible) if isinstance(visible, Tensor) else None
        latents = self._latents(rgb, rgb_as_latents, generator)
        steps = self._steps(len(latents), t, generator)
        grad, n_nonfinite, n_predictions = self.gradient(
            latents.detach(), steps, text, negative, null, control, visible,
            noise=noise, generator=generator,
            asked=None if weighed is None else weighed.arrived() != 0,
        )  # fmt: skip
        target = (latents - grad).detach()
        return {
            "loss_sds": 0.5 * (latents - target).square().sum() / len(latents),
            "grad_norm": grad.norm(),
            "n_nonfinite": n_nonfinite,
            "n_predictions": n_predictions,
            "min_step": self.min_step,
            "max_step": self.max_step,
        }

    @torch.no_grad()
    def gradient(
        self,
        latents: Tensor,  # [B, C, h, w]
        steps: Tensor,  # [B] int64, on the CPU
        text: Tensor,
        negative: Tensor | None,
        null: Tensor | None = None,
        control: Tensor | None = None,
        visible: Tensor | float = 1.0,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        asked: Tensor | None = None,  # [B] bool, on the CPU
    ) -> tuple[Tensor, Tensor, int]:
        """The gradient with respect to the latents, clipped.

        Args:
            asked: False where ``visible`` is known to be 0; the ControlNet is not asked there.
            others: as in a call.

        Returns:
            gradient [B, C, h, w]; how many of its entries were not finite (a scalar tensor) and
            were zeroed; how many samples went through the UNet.
        """
        prior, c = self.prior, self.config
        batch, device = len(latents), latents.device
        null = prior.null_embedding if null is None else null
        # Decided on the host, where the timesteps were drawn: the device is not waited for.
        late = (
            torch.nonzero(steps >= self.null_threshold).flatten()
            if c.method == "denoised"
            else steps.new_empty(0)
        )
        asked_late = late if negative is not None else steps.new_empty(0)
        everyone = torch.arange(batch)
        view = torch.cat([everyone, everyone, asked_late])
        sample = view.to(device, non_blocking=True)
        late = late.to(device, non_blocking=True)
        t = steps.to(device, non_blocking=True)

        if noise is None:
            noise = standard_normal(latents.shape, generator, device)
        noisy = prior.add_noise(latents, noise, t)
        embeddings = torch.cat(
            [_per_sample("text", text, batch), _per_sample("null", null, batch)]
            + ([] if negative is None else [_per_sample("negative", negative, batch)[late]])
        )
        conditions: tuple[Tensor, ...] = ()
        if control is not None and c.control_weight != 0:
            weight = torch.as_tensor(visible, dtype=torch.float32, device=device).expand(batch)
            conditions = (control, c.control_weight * weight[sample])
        predicted = prior.predict_noise(
            noisy[sample], t[sample], embeddings, *conditions,
            picture=view, asked=None if asked is None else asked.expand(batch)[view],
        )  # fmt: skip
        e_text, e_null, e_negative = predicted.split([batch, batch, len(asked_late)])
        if negative is None:
            e_negative = e_null[late]

        grad = e_null + c.guidance_scale * (e_text - e_null)
        grad = grad.index_add(0, late, e_negative, alpha=-1)
        if c.method == "sds":
            grad = grad - noise
        if c.weighting == "sds":
            grad = (1 - prior.alphas_cumprod[t]).view(-1, 1, 1, 1) * grad
        broken = ~grad.isfinite()
        grad = self._clip(torch.where(broken, 0.0, grad))
        return grad, broken.sum(), len(sample)

    def _clip(self, grad: Tensor) -> Tensor:
        limit = self.config.grad_clip
        if limit is None:
            return grad
        if self.config.grad_clip_mode == "value":
            return grad.clamp(-limit, limit)
        norm = grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return grad * (limit / norm.clamp(min=1e-12)).clamp(max=1.0)

    def _latents(
        self, rgb: Tensor, rgb_as_latents: bool, generator: torch.Generator | None
    ) -> Tensor:
        channels = self.prior.latent_channels if rgb_as_latents else 3
        if rgb.ndim != 4 or rgb.shape[-1] != channels:
            raise HeadStudioError(
                f"pictures have shape {list(rgb.shape)}; expected [B, H, W, {channels}]."
            )
        if rgb_as_latents:
            return resize(rgb.movedim(-1, 1).float(), self.prior.latent_size)
        return self.prior.encode(rgb, sample=True, generator=generator)

    def _steps(self, batch: int, t: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Timesteps [batch] on the CPU."""
        if t is not None:
            return t.to("cpu", torch.int64).expand(batch)
        device = "cpu" if generator is None else generator.device
        return torch.randint(
            self.min_step, self.max_step + 1, (batch,), generator=generator, device=device
        ).cpu()

    # ------------------------------------------------------------------ looking at it

    @torch.no_grad()
    def preview(
        self,
        rgb: Tensor,  # [B, H, W, 3]
        text: Tensor,  # [B, L, D]
        null: Tensor | None = None,
        control: Tensor | None = None,
        visible: Tensor | float = 1.0,
        *,
        t: Tensor | int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """What the guidance sees of some pictures, and what it would rather see.

        Args:
            rgb, text, null, control, visible: as in a call.
            t: timesteps [B], or one for all; by default the middle of the current range.
            generator: for the noise; by default a fixed seed, so that pictures of different
                training steps can be compared.

        Returns:
            ``imgs_noisy`` (decoded z_t) and ``imgs_1step`` (the decoded z that the guided
            prediction implies), each [B, image_size, image_size, 3] in [0, 1]; ``control``
            [B, image_size, image_size, 3] (black where it has no weight); ``t`` [B].
        """
        prior, c = self.prior, self.config
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        batch, device = len(rgb), rgb.device
        null = prior.null_embedding if null is None else null
        middle = (self.min_step + self.max_step) // 2
        t = torch.as_tensor(middle if t is None else t, device=device).long().expand(batch)
        latents = prior.encode(rgb)
        noisy = prior.add_noise(latents, standard_normal(latents.shape, generator, device), t)
        embeddings = torch.cat([_per_sample("text", text, batch), _per_sample("null", null, batch)])
        weight = torch.as_tensor(visible, dtype=torch.float32, device=device).expand(batch)
        conditions: tuple[Tensor, ...] = ()
        shown = rgb.new_zeros(batch, 3, prior.image_size, prior.image_size)
        if control is not None and c.control_weight != 0:
            conditions = (control, c.control_weight * weight.repeat(2))
            shown = resize(control.movedim(-1, 1), prior.image_size)
            shown = shown * (weight > 0).view(-1, 1, 1, 1)
        predicted = prior.predict_noise(
            torch.cat([noisy] * 2), t.repeat(2), embeddings, *conditions,
            picture=torch.arange(batch).repeat(2),
        )  # fmt: skip
        e_text, e_null = predicted.chunk(2)
        guided = e_null + c.guidance_scale * (e_text - e_null)
        return {
            "imgs_noisy": prior.decode(noisy),
            "imgs_1step": prior.decode(prior.denoise(noisy, guided, t)),
            "control": shown.movedim(1, -1),
            "t": t,
        }


def _per_sample(name: str, embeddings: Tensor, batch: int) -> Tensor:
    """[1 or batch, L, D] -> [batch, L, D]."""
    if embeddings.ndim != 3 or len(embeddings) not in (1, batch):
        raise HeadStudioError(
            f"{name} embeddings have shape {list(embeddings.shape)}; expected [{batch}, L, D] or "
            "[1, L, D]."
        )
    return embeddings.expand(batch, -1, -1)


def _check_range(low: float, high: float) -> None:
    if not 0 <= low <= high <= 1:
        raise HeadStudioError(
            f"min_step_percent={low} and max_step_percent={high} must satisfy "
            "0 <= min <= max <= 1 (fractions of the prior's timesteps)."
        )
