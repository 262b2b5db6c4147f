"""Group normalisation of features that lie in memory with the channels last, and stay so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GroupNormChannelsLast(nn.GroupNorm):
    """``nn.GroupNorm``, written out for the compiler.

    On a GPU PyTorch's own turns features around to have the channels first, and so does the
    gradient come out of it: the convolution before it then turns the gradient back, a pass over
    memory for each. Here everything is along the rows of ``[N, K, C]``: two sums over K forward,
    two backward, and what is done to every value. In float32, unless the features are in float64.
    """

    def forward(self, features: Tensor) -> Tensor:
        """``[N, C, ...]`` to the same."""
        pixels = features.movedim(1, -1)
        # Sums of squares are of differences from one of the pixels, in the middle, where no border
        # makes it unlike the others: they are as exact then as from the mean. It cancels out.
        middle: tuple[Any, ...] = (slice(None), *(size // 2 for size in pixels.shape[1:-1]))
        rows = pixels.flatten(1, -2)
        if rows.dtype in (torch.float16, torch.bfloat16):
            rows = rows.float()
        origin = pixels[middle].detach().to(rows.dtype)
        away = rows - origin[:, None]
        first, second = away.mean(1), away.square().mean(1)  # [N, C]

        mean_of_channel = self._grouped(origin + first)
        mean = mean_of_channel.mean(-1, keepdim=True)
        inside = self._grouped((second - first.square()).clamp(min=0))
        variance = (inside + (mean_of_channel - mean).square()).mean(-1, keepdim=True)
        scale = (variance + self.eps).rsqrt().expand_as(inside).flatten(1)
        mean = mean.expand_as(inside).flatten(1)
        if self.affine:
            scale = scale * self.weight.to(scale.dtype)
        normal = (rows - mean[:, None]) * scale[:, None]
        if self.affine:
            normal = normal + self.bias.to(normal.dtype)
        return normal.to(features.dtype).view(pixels.shape).movedim(-1, 1)

    def _grouped(self, of_channels: Tensor) -> Tensor:
        """``[N, C]`` to ``[N, groups, C / groups]``."""
        return of_channels.unflatten(1, (self.num_groups, -1))


def keep_channels_last(network: nn.Module) -> None:
    """Put these in place of a network's group norms; the parameters are the same."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = GroupNormChannelsLast
