"""How alike two pictures are: PSNR, SSIM, and a distance between features of an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from headstudio.errors import HeadStudioError

_LEAST_ERROR = 1e-10  # mean squared; equal pictures have a PSNR of 100 dB, not of infinity


def psnr(ours: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``[B]``, of pictures ``[B, H, W, 3]`` in 0..1.

    10 log10(1 / MSE) for each picture; 100 dB is the most.
    """
    error = (ours.float() - truth.float()).square().flatten(1).mean(1)
    return -10 * error.clamp(min=_LEAST_ERROR).log10()


def ssim(ours: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity, ``[B]``, of pictures ``[B, H, W, 3]`` in 0..1.

    Gaussian window of 11 px with deviation 1.5, as usual (torchmetrics).
    """
    value = structural_similarity_index_measure(
        ours.float().movedim(-1, 1),
        truth.float().movedim(-1, 1),
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(value, Tensor)
    return value.reshape(-1)


class PerceptualDistance:
    """Distance of pictures by what a diffusion prior's autoencoder sees in them.

    As LPIPS does, but with the prior's own encoder in place of a classifier and without learned
    weights: the features after each of the encoder's stages are brought to length 1 at every
    place; their squared difference is summed over channels, averaged over places and then over
    stages. 0 for equal pictures, 4 at most.
    """

    def __init__(self, vae: Any) -> None:
        self.encoder = vae.encoder.eval().requires_grad_(False)
        parameter = next(self.encoder.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, device: torch.device | str = "cpu"
    ) -> PerceptualDistance:
        """Of a prior in diffusers' layout: a folder, or a hub's name. Only its ``vae`` is read.

        Raises:
            HeadStudioError: no such autoencoder, or not an AutoencoderKL.
        """
        from diffusers import AutoencoderKL

        try:
            vae = AutoencoderKL.from_pretrained(
                str(name_or_folder), subfolder="vae", use_safetensors=True
            )
        except Exception as error:  # diffusers raises many kinds for absent and damaged files
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise HeadStudioError(
                f"cannot load the autoencoder of the prior {name_or_folder}: {reason}\n"
                "Expected a folder in diffusers' layout with vae/, or a hub's name."
            ) from error
        return cls(vae.to(device))

    @torch.no_grad()
    def __call__(self, ours: Tensor, truth: Tensor, batch: int = 16) -> Tensor:
        """Distances ``[B]`` of pictures ``[B, H, W, 3]`` in 0..1; H and W of at least 32."""
        parts = zip(ours.split(batch), truth.split(batch), strict=True)
        return torch.cat([self._distance(a, b) for a, b in parts])

    def _distance(self, ours: Tensor, truth: Tensor) -> Tensor:
        features = zip(self._features(ours), self._features(truth), strict=True)
        stages = [(a - b).square().sum(1).mean((1, 2)) for a, b in features]
        return torch.stack(stages).mean(0).cpu()

    def _features(self, pictures: Tensor) -> Sequence[Tensor]:
        """Unit features ``[B, C, h, w]`` after each stage, the coarsest last."""
        features = []
        h = self.encoder.conv_in((2 * pictures - 1).movedim(-1, 1).to(self.device, self.dtype))
        for block in self.encoder.down_blocks:
            h = block(h)
            features.append(F.normalize(h.float(), dim=1))
        return features
