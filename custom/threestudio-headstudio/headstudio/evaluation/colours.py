"""Colours by name: which of an attribute's named colours does a picture show?"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from torch import Tensor

from headstudio.errors import HeadStudioError


def to_lab(rgb: Tensor) -> Tensor:
    """CIE L*a*b* (D65) of display colours.

    Args:
        rgb: ``[..., 3]`` sRGB in 0..1; what lies outside is clamped.

    Returns:
        ``[..., 3]`` float32 on the CPU: L* in 0..100, a* and b* about -128..127.
    """
    flat = rgb.detach().float().clamp(0, 1).cpu().reshape(-1, 1, 3).numpy()
    lab = cv2.cvtColor(np.ascontiguousarray(flat), cv2.COLOR_RGB2LAB)
    return torch.from_numpy(lab).reshape(rgb.shape)


def difference(a: Tensor, b: Tensor) -> Tensor:
    """ΔE*ab (CIE 1976): the Euclidean distance in L*a*b* of sRGB colours ``[..., 3]``."""
    return (to_lab(a) - to_lab(b)).norm(dim=-1)


def nearest_name(rgb: Tensor, palette: Mapping[str, Tensor]) -> str:
    """The name in ``palette`` (sRGB ``[3]`` each) whose colour is nearest to ``rgb [3]``.

    Raises:
        HeadStudioError: an empty palette.
    """
    if not palette:
        raise HeadStudioError("a palette without colours cannot name one.")
    names = list(palette)
    distances = difference(torch.stack([palette[name] for name in names]), rgb[None])
    return names[int(distances.argmin())]


def nearest_group(pictures: Tensor, groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which group of reference colours each pixel is nearest to.

    Args:
        pictures: sRGB ``[..., 3]``.
        groups: reference colours ``[k, 3]`` by the group's name, k at least 1.

    Returns:
        For each group a bool tensor ``[...]``; exactly one of them is true at a pixel.
    """
    lab = to_lab(pictures)
    names = list(groups)
    nearest = torch.stack(
        [torch.cdist(lab.reshape(-1, 3), to_lab(groups[n])).amin(1) for n in names]
    ).argmin(0)
    return {name: (nearest == i).reshape(lab.shape[:-1]) for i, name in enumerate(names)}
