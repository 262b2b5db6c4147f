"""What a player makes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Pictures:
    """Of P poses by C cameras, H x W pixels."""

    rgb: Tensor
    """``[P, C, H, W, 3]``, over the background."""
    alpha: Tensor
    """``[P, C, H, W, 1]``."""
