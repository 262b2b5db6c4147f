"""Between FLAME's frame and the world's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class WorldFrame:
    """The similarity ``world = R (flame - center) * scale``.

    FLAME's frame is y up, face along +z, in metres; the world is z up, face along +x, the
    subject's left along +y: world (x, y, z) = FLAME (z, x, y), a rotation.
    """

    center: Tensor  # [3] FLAME frame, metres
    scale: float  # world units per metre

    @property
    def rotation(self) -> Tensor:
        """R [3, 3]."""
        return self.center.new_tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    def to(self, device: torch.device | str) -> WorldFrame:
        """The same on another device."""
        return WorldFrame(self.center.to(device), self.scale)

    def to_world(self, points: Tensor) -> Tensor:
        """FLAME points [..., 3] in the world."""
        # The product with R is a permutation of the axes, and exact. By a roll, because indices in
        # a list would be copied to a GPU, which is waited for.
        return ((points - self.center) * self.scale).roll(1, dims=-1)
