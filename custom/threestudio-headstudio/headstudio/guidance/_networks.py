"""The networks of a diffusion prior as three functions of tensors, which can be compiled.

Nothing in them depends on a value on the device, and no shape changes from step to step but the
numbers of samples and of control images, which are declared dynamic: a run compiles each function
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from headstudio.guidance._captured import Captured, CapturedWithGradient
from headstudio.guidance._group_norm import keep_channels_last

WIDEST_FUSED_HEAD = 256
"""Channels of a head up to which a GPU has a fast fused attention that needs no score matrix."""


@dataclass
class Shown:
    """What the ControlNet is shown for N samples, which may share pictures."""

    pictures: Tensor
    """``[B, 3, H, W]``, in the size and precision of the ControlNet."""
    weight: Tensor
    """``[N]``, what its answers are multiplied by."""
    picture: Tensor
    """``[N]`` int64 on the CPU, which picture each sample is shown."""
    asked: Tensor
    """``[N]`` bool on the CPU; where False, the weight is 0 and no answer is needed."""

    def of(self, rows: slice) -> Shown:
        """What some of the samples are shown."""
        picture = self.picture[rows]
        return Shown(
            self.pictures[picture.to(self.pictures.device)],
            self.weight[rows],
            torch.arange(len(picture)),
            self.asked[rows],
        )

    def indices(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Who asks, for M askers: their rows ``[M]``, their pictures ``[M]``, and where each
        sample's answer is among the M ``[N]`` (anywhere where none is needed), on the device.

        Returns:
            None if nobody asks.
        """
        rows = torch.nonzero(self.asked).flatten()
        if not len(rows):
            return None
        place = torch.zeros_like(self.picture).index_copy(0, rows, torch.arange(len(rows)))
        # One transfer of all the numbers.
        numbers = torch.cat([rows, self.picture[rows], place])
        rows, picture, place = numbers.to(self.pictures.device, non_blocking=True).split(
            [len(rows), len(rows), len(place)]
        )
        return rows, picture, place


class Networks:
    """UNet, ControlNet and the autoencoder's encoder, called with tensors alone.

    Attributes:
        compiled: whether :meth:`compile` was called.
        captured: whether :meth:`capture` was called.
        channels_last: whether pictures and features lie in memory with the channels last.
    """

    def __init__(self, unet: Any, controlnet: Any | None, vae: Any) -> None:
        self.unet, self.controlnet, self.vae = unet, controlnet, vae
        self.compiled = self.captured = self.channels_last = False
        self._free: Callable[..., Tensor] = self._predict
        self._guided: Callable[..., Tensor] = self._predict_shown
        self._moments: Callable[..., tuple[Tensor, ...]] = self._encode
        self._embeds_once = controlnet is not None and (
            controlnet.config.controlnet_conditioning_channel_order == "rgb"
        )
        if self._embeds_once:
            assert controlnet is not None
            embedding = controlnet.controlnet_cond_embedding
            width = controlnet.config.block_out_channels[0]
            controlnet.controlnet_cond_embedding = _EmbedOnce(embedding, width)
        if next(vae.parameters()).device.type == "cuda":
            _write_out_wide_attention(vae)

    # ------------------------------------------------------------------ how they are run

    def arrange(self, channels_last: bool) -> None:
        """Choose the order of features in memory."""
        if channels_last == self.channels_last:
            return
        self.channels_last = channels_last
        for network in (self.unet, self.controlnet, self.vae):
            if network is not None:
                network.to(memory_format=self._order)

    @property
    def _order(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def compile(self, backend: str = "inductor", **options: Any) -> None:
        """Compile all three, each at its first call.

        Args:
            backend, options: of ``torch.compile``.
        """
        self.compiled = True
        if self.channels_last:
            for network in (self.unet, self.controlnet, getattr(self.vae, "encoder", None)):
                if network is not None:
                    keep_channels_last(network)
        self._free = torch.compile(self._predict, backend=backend, **options)
        self._guided = torch.compile(self._predict_shown, backend=backend, **options)
        self._moments = torch.compile(self._encode, backend=backend, **options)

    def capture(self) -> None:
        """Run all three as CUDA graphs, captured at the first call with each number of samples.

        For small networks on a GPU, whose kernels take less time than launching them: a graph is
        launched at once. What they return is overwritten by the next call.
        """
        self.captured = True
        self._free = Captured(self._predict)
        self._guided = Captured(self._predict_shown)
        self._moments = CapturedWithGradient(self._encode)

    # ------------------------------------------------------------------ calls

    def predict(self, z: Tensor, t: Tensor, text: Tensor, shown: Shown | None) -> Tensor:
        """What the UNet says of N samples.

        Args:
            z: ``[N, C, h, w]`` noisy latents; t: ``[N]``; text: ``[N, L, D]``.
            shown: what the ControlNet is shown; None leaves it out.

        Returns:
            ``[N, C, h, w]``.
        """
        if self.channels_last:
            z = z.contiguous(memory_format=torch.channels_last)
        if shown is not None and self.captured:
            # To ask about all costs less than a graph for each number of those asked about.
            shown = replace(shown, asked=torch.ones_like(shown.asked))
        indices = None if shown is None else shown.indices()
        if shown is None or indices is None:
            self._vary(z, t, text)
            return self._free(z, t, text)
        pictures, weight = shown.pictures, shown.weight.to(z.dtype)
        if self.channels_last:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        self._vary(z, t, text, pictures, weight, *indices)
        return self._guided(z, t, text, pictures, weight, *indices)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents of ``pictures`` ``[B, 3, H, W]`` in [-1, 1].

        AutoencoderTiny has no posterior: its deviation is empty.
        """
        if self.channels_last or pictures.is_cuda:
            # Rendered pictures have their channels last. The encoder's convolutions would hand that
            # on, and CUDA's group norms, which want them first, copy; a CPU's are glad of it.
            pictures = pictures.contiguous(memory_format=self._order)
        # Previews look at other numbers of pictures, without gradients: not worth a compilation.
        encode = self._moments if pictures.requires_grad else self._encode
        mean, deviation = encode(pictures)
        return mean, deviation

    def _vary(self, *tensors: Tensor) -> None:
        """Tell the compiler that the number of rows changes from call to call, as that of samples
        does by the step, and that of pictures in a preview or a pass for fewer views."""
        if self.compiled:
            for tensor in tensors:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)

    # ------------------------------------------------------------------ what is compiled

    def _predict(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.unet(z, t, encoder_hidden_states=text, return_dict=False)[0]

    def _predict_shown(
        self,
        z: Tensor,
        t: Tensor,
        text: Tensor,
        pictures: Tensor,
        weight: Tensor,
        rows: Tensor,
        picture: Tensor,
        place: Tensor,
    ) -> Tensor:
        """See :class:`Shown` and :meth:`Shown.indices`."""
        assert self.controlnet is not None
        if self._embeds_once:
            pictures = self.controlnet.controlnet_cond_embedding(pictures)
        down, middle = self.controlnet(
            z[rows],
            t[rows],
            encoder_hidden_states=text[rows],
            controlnet_cond=pictures[picture],
            return_dict=False,
        )
        weight = weight.view(-1, 1, 1, 1)
        return self.unet(
            z,
            t,
            encoder_hidden_states=text,
            down_block_additional_residuals=[weight * residual[place] for residual in down],
            mid_block_additional_residual=weight * middle[place],
            return_dict=False,
        )[0]

    def _encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.vae.encode(pictures)
        if not hasattr(encoded, "latent_dist"):
            return encoded.latents.float(), pictures.new_empty(0)
        return encoded.latent_dist.mean.float(), encoded.latent_dist.std.float()


class _EmbedOnce(nn.Module):
    """A ControlNet's embedding of control images that lets embedded ones pass.

    The prompt, the empty prompt and the negative one look at the same picture. Embedded beforehand,
    it is embedded once for the three.
    """

    def __init__(self, inner: nn.Module, width: int) -> None:
        """
        Args:
            inner: the embedding.
            width: channels of what it returns.
        """
        super().__init__()
        self.inner = inner
        self.width = width

    def forward(self, picture: Tensor) -> Tensor:
        return picture if picture.shape[1] == self.width else self.inner(picture)


def _write_out_wide_attention(network: nn.Module) -> None:
    """Have attention with heads too wide for fused kernels computed with its score matrix.

    Stable Diffusion's autoencoder has a single head of 512 channels. What PyTorch then falls back
    to takes several times the time of three plain products, forward and backward.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in network.modules():
        if isinstance(module, Attention) and module.inner_dim // module.heads > WIDEST_FUSED_HEAD:
            module.set_processor(AttnProcessor())
