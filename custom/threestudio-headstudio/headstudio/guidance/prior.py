"""A latent diffusion model with a ControlNet, loaded from a hub or a folder, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headstudio.errors import HeadStudioError
from headstudio.guidance._networks import Networks, Shown
from headstudio.guidance._parts import Source, check_fit, check_local, is_local, locate

_PREDICTIONS = ("epsilon", "v_prediction", "sample")


class DiffusionPrior:
    """Text, a picture's latents and a control image -> the noise in the latents.

    All parts are in evaluation mode and take no gradients; a gradient flows only through
    :meth:`encode` (and :meth:`decode`) to its argument. What goes in and comes out is float32
    whatever the precision of the weights.

    Attributes:
        device: where all parts are.
        dtype: of the weights.
        latent_channels: C of the latents [B, C, latent_size, latent_size].
        latent_size: side of the latents the UNet was trained on.
        image_size: side, in pixels, of the pictures that encode to these latents.
        control_size: side, in pixels, that the ControlNet wants the control image to have.
        num_train_timesteps: T; timesteps are 0 .. T - 1.
        alphas_cumprod: [T] float32, the products ᾱ_t of the noise schedule.
        scheduler_config: the scheduler's configuration, for samplers.
        networks: how UNet, ControlNet and the autoencoder's encoder are run.
        views_at_once: how many pictures are encoded in one pass, and for how many predictions are
            made, three each; None (the default) is all. With fewer, what the encoder's backward
            pass needs is computed again when it is needed, instead of kept: for less memory and
            more time, with the same result but for rounding.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        text_encoder: Any,
        vae: Any,
        unet: Any,
        controlnet: Any | None,
        scheduler: Any,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        check_fit(unet, vae, controlnet, text_encoder.config.hidden_size)
        if scheduler.config.prediction_type not in _PREDICTIONS:
            raise HeadStudioError(
                f"the scheduler says that the UNet predicts {scheduler.config.prediction_type!r}; "
                f"known are {', '.join(_PREDICTIONS)}."
            )
        self.device, self.dtype = device, dtype
        self.tokenizer = tokenizer
        self.text_encoder: Any | None = _freeze(text_encoder, dtype, device)
        self.vae = _freeze(vae, dtype, device)
        self.unet = _freeze(unet, dtype, device)
        self.controlnet = None if controlnet is None else _freeze(controlnet, dtype, device)
        self.networks = Networks(self.unet, self.controlnet, self.vae)
        self.scheduler_config = scheduler.config
        self.prediction_type: str = scheduler.config.prediction_type
        self.num_train_timesteps: int = int(scheduler.config.num_train_timesteps)
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.to(device, torch.float32)

        size = unet.config.sample_size
        self.latent_size = int(size if isinstance(size, int) else size[0])
        self.latent_channels = int(unet.config.in_channels)
        self.image_size = self.latent_size * 2 ** (len(vae.config.block_out_channels) - 1)
        self.control_size = self.image_size
        if controlnet is not None:
            halvings = len(controlnet.config.conditioning_embedding_out_channels) - 1
            self.control_size = self.latent_size * 2**halvings
        self._null_embedding: Tensor | None = None
        self.views_at_once: int | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        controlnet_name_or_folder: str | Path | None = None,
        controlnet_subfolder: str | None = None,
        *,
        vae_name_or_folder: str | Path | None = None,
        with_controlnet: bool = True,
        keep_text_encoder: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> DiffusionPrior:
        """Load a prior by a hub's name or from a folder in diffusers' layout, the same way.

        Args:
            name_or_folder: tokenizer, text encoder, autoencoder, UNet and scheduler.
            controlnet_name_or_folder: the ControlNet; by default the ``controlnet`` part of the
                former.
            controlnet_subfolder: where in it, such as "diffusion_sd15".
            vae_name_or_folder: another autoencoder, AutoencoderKL or AutoencoderTiny.
            with_controlnet: False leaves the ControlNet out.
            keep_text_encoder: False embeds the empty prompt and then frees the text encoder.
            dtype: of the weights; by default :func:`default_dtype` of the device.
            device: where to.
            options: passed to every ``from_pretrained`` (cache_dir, revision, local_files_only …).

        Raises:
            HeadStudioError: a part is missing, unreadable, or does not fit the others. What is
                missing in a folder is reported before anything is loaded.
        """
        from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        device = torch.device(device)
        dtype = default_dtype(device) if dtype is None else dtype
        sources = locate(
            name_or_folder,
            controlnet_name_or_folder,
            controlnet_subfolder,
            vae_name_or_folder,
            with_controlnet,
        )
        check_local(sources)
        weights = {"use_safetensors": True, **options}
        # The smallest part first: a wrong name or a missing connection shows soonest.
        scheduler = _load(DDIMScheduler, sources["scheduler"], **options)
        prior = cls(
            tokenizer=_load(CLIPTokenizer, sources["tokenizer"], **options),
            text_encoder=_load(CLIPTextModel, sources["text_encoder"], dtype=dtype, **weights),
            vae=_load(_vae_class(sources["vae"], options), sources["vae"], torch_dtype=dtype,
                      **weights),
            unet=_load(UNet2DConditionModel, sources["unet"], torch_dtype=dtype, **weights),
            controlnet=(
                _load(ControlNetModel, sources["controlnet"], torch_dtype=dtype, **weights)
                if with_controlnet
                else None
            ),
            scheduler=scheduler,
            dtype=dtype,
            device=device,
        )  # fmt: skip
        if not keep_text_encoder:
            prior.free_text_encoder()
        return prior

    def speed_up(
        self,
        *,
        compile: bool = False,
        channels_last: bool | None = None,
        cuda_graphs: bool = False,
        backend: str = "inductor",
    ) -> None:
        """Run the networks otherwise, with the same results but for rounding.

        Args:
            compile: let ``torch.compile`` fuse the UNet with the ControlNet, and the encoder with
                its backward pass. The first call of each takes a minute or so.
            channels_last: whether features lie in memory with the channels last, as convolutions
                of half precision on a GPU want them; None is if ``compile``: without, what lies
                between the convolutions is slower so.
            cuda_graphs: launch each network as one CUDA graph: for small networks, whose kernels
                take less time than their launches. On a CPU it changes nothing.
            backend: of ``torch.compile``.

        Raises:
            HeadStudioError: both ``compile`` and ``cuda_graphs``, or the latter with views
                encoded one after the other.
        """
        self.networks.arrange(compile if channels_last is None else channels_last)
        if compile and cuda_graphs:
            raise HeadStudioError(
                "compile and cuda_graphs are two ways to run the same networks; choose one."
            )
        if compile:
            self.networks.compile(backend)
        if cuda_graphs and self.device.type == "cuda":
            if self.views_at_once is not None:
                raise HeadStudioError(
                    "cuda_graphs keeps one encoding at a time for its backward pass; leave it off, "
                    "or views_at_once at null."
                )
            self.networks.capture()

    # ------------------------------------------------------------------ text

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Token embeddings [len(prompts), L, D], padded or cut to the tokenizer's length.

        Raises:
            HeadStudioError: if the text encoder has been freed.
        """
        if self.text_encoder is None:
            raise HeadStudioError(
                "the text encoder was freed after loading; load the prior with "
                "keep_text_encoder=True to embed prompts with it."
            )
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        with torch.autocast(self.device.type, enabled=False):
            return self.text_encoder(tokens.input_ids.to(self.device))[0].float()

    @property
    def null_embedding(self) -> Tensor:
        """Of the empty prompt: [1, L, D]."""
        if self._null_embedding is None:
            self._null_embedding = self.embed_text([""])
        return self._null_embedding

    def free_text_encoder(self) -> None:
        """Keep the empty prompt's embedding and give the text encoder's memory back."""
        _ = self.null_embedding
        self.text_encoder = None

    # ------------------------------------------------------------------ pictures

    def encode(
        self, rgb: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Pictures to latents; differentiable with respect to ``rgb``.

        Args:
            rgb: [B, H, W, 3] in [0, 1], any size: resized (bilinearly) to ``image_size``.
            sample: draw from the autoencoder's posterior instead of taking its mean.
            generator: for the draw.

        Returns:
            [B, latent_channels, latent_size, latent_size], scaled to about unit variance.
        """
        pictures = resize(rgb.movedim(-1, 1), self.image_size)
        parts = pictures.split(self.views_at_once or len(pictures))
        again = self.views_at_once is not None and pictures.requires_grad
        latents, std = (
            torch.cat(moments)
            for moments in zip(
                *(
                    checkpoint(self._posterior, part, use_reentrant=False)
                    if again
                    else self._posterior(part)
                    for part in parts
                ),
                strict=True,
            )
        )
        if sample and std.numel():
            latents = latents + std * standard_normal(latents.shape, generator, latents.device)
        return latents * self.vae.config.scaling_factor

    def _posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents of ``pictures`` [B, 3, H, W]; the latter may be empty.

        AutoencoderTiny has no posterior.
        """
        with torch.autocast(self.device.type, enabled=False):
            return self.networks.encode((2 * pictures - 1).to(self.dtype))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to pictures [B, H, W, 3], clamped to [0, 1]."""
        with torch.autocast(self.device.type, enabled=False):
            pictures = self.vae.decode(
                (latents / self.vae.config.scaling_factor).to(self.dtype)
            ).sample
        return (0.5 * pictures.float() + 0.5).clamp(0, 1).movedim(1, -1)

    # ------------------------------------------------------------------ noise

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t = √ᾱ_t z + √(1 − ᾱ_t) ε for t [B]."""
        alpha, sigma = self.alpha_sigma(t)
        return alpha * latents + sigma * noise

    def denoise(self, noisy: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """The z that, with this noise, became ``noisy``: the inverse of :meth:`add_noise`."""
        alpha, sigma = self.alpha_sigma(t)
        return (noisy - sigma * epsilon) / alpha

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 − ᾱ_t), each [B, 1, 1, 1]."""
        alphas = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()

    @torch.no_grad()
    def predict_noise(
        self,
        latents: Tensor,  # [N, C, h, w]
        t: Tensor,  # [N] int64
        text_embeddings: Tensor,  # [N, L, D]
        control: Tensor | None = None,  # [N or B, H, W, 3]
        control_weight: Tensor | float = 1.0,  # [N]
        *,
        picture: Tensor | None = None,  # [N] int64, on the CPU
        asked: Tensor | None = None,  # [N] bool, on the CPU
    ) -> Tensor:
        """The noise ε in noisy latents, in one pass for all N.

        A UNet that predicts v or the clean latents is converted (v-prediction: ε = αv + σz_t).

        Args:
            latents: noisy latents z_t.
            t: timesteps.
            text_embeddings: of the prompts.
            control: control images in [0, 1], any size. None leaves the ControlNet out.
            control_weight: what each sample's ControlNet residuals are multiplied by; 0 is the
                same as no ControlNet.
            picture: which of the control images each sample is shown, if several share one.
            asked: False where the ControlNet need not be asked, because the weight is 0; by default
                it is asked about every sample.

        Returns:
            [N, C, h, w] float32.
        """
        n = len(latents)
        at_once = n if self.views_at_once is None else 3 * self.views_at_once
        shown = None
        if control is not None:
            self._check_control()
            shown = Shown(
                pictures=resize(control.movedim(-1, 1), self.control_size).to(self.dtype),
                weight=torch.as_tensor(control_weight, device=latents.device).expand(n),
                picture=torch.arange(n) if picture is None else picture,
                asked=torch.ones(n, dtype=torch.bool) if asked is None else asked,
            )
        if n <= at_once:
            return self._noise(latents, t, text_embeddings, shown)
        return torch.cat(
            [
                self._noise(latents[rows], t[rows], text_embeddings[rows], shown and shown.of(rows))
                for rows in (slice(i, i + at_once) for i in range(0, n, at_once))
            ]
        )

    def _noise(self, latents: Tensor, t: Tensor, text: Tensor, shown: Shown | None) -> Tensor:
        """See :meth:`predict_noise`, in one pass."""
        with torch.autocast(self.device.type, enabled=False):
            z, text = latents.to(self.dtype), text.to(self.dtype)
            output = self.networks.predict(z, t, text, shown).float()
        if self.prediction_type == "epsilon":
            return output
        alpha, sigma = self.alpha_sigma(t)
        if self.prediction_type == "v_prediction":
            return alpha * output + sigma * latents
        return (latents - alpha * output) / sigma

    def _check_control(self) -> None:
        if self.controlnet is None:
            raise HeadStudioError(
                "this prior was loaded without a ControlNet and cannot use a control image; load "
                "it with with_controlnet=True, or pass control=None."
            )


def default_dtype(device: torch.device | str) -> torch.dtype:
    """Half precision on CUDA (bfloat16 where the device computes in it), float32 elsewhere."""
    if torch.device(device).type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def resize(pictures: Tensor, size: int) -> Tensor:
    """[B, C, H, W] to [B, C, size, size], bilinearly; nothing where it has the size already."""
    if pictures.shape[-2:] == (size, size):
        return pictures
    return F.interpolate(pictures, (size, size), mode="bilinear", align_corners=False)


def standard_normal(
    shape: Sequence[int], generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Normal noise drawn on the generator's device (None: the CPU), moved to ``device``.

    Drawn on the CPU, the same seed gives the same noise whatever the device.
    """
    source = torch.device("cpu") if generator is None else generator.device
    # From memory that is not pinned, a copy of this size makes the host wait for the GPU.
    pinned = source.type == "cpu" and torch.device(device).type == "cuda"
    drawn = torch.randn(tuple(shape), generator=generator, device=source, pin_memory=pinned)
    return drawn.to(device, non_blocking=True)


def _freeze(module: nn.Module, dtype: torch.dtype, device: torch.device) -> Any:
    if next(module.parameters()).dtype != dtype:
        module = module.to(dtype)
    return module.to(device).eval().requires_grad_(False)


def _vae_class(source: Source, options: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL, AutoencoderTiny

    known = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny)}
    config = _call(AutoencoderKL.load_config, source, **options)
    name = config.get("_class_name", "AutoencoderKL")
    if name not in known:
        raise HeadStudioError(
            f"the autoencoder at {source} is of class {name}; known are {', '.join(known)}."
        )
    return known[name]


def _load(kind: Any, source: Source, **options: Any) -> Any:
    return _call(kind.from_pretrained, source, **options)


def _call(function: Any, source: Source, **options: Any) -> Any:
    """``function(name, subfolder=…)`` with an error that says what was being loaded."""
    try:
        return function(source.name, **source.arguments(), **options)
    except HeadStudioError:
        raise
    except Exception as error:  # each library raises its own kinds for absent and damaged files
        advice = (
            "The file may be damaged: copy the folder again."
            if is_local(source.name)
            else f"{source.name} is no folder here; as a hub's name it needs a connection (or a "
            "cached copy) and, for gated models, an account."
        )
        reason = str(error).strip().splitlines()
        raise HeadStudioError(
            f"cannot load the {source.part} from {source}: "
            f"{reason[0] if reason else type(error).__name__}\n{advice}"
        ) from error
