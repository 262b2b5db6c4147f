"""One colour everywhere."""

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import threestudio
from threestudio.models.background.base import BaseBackground


@threestudio.register("solid-color-background")
class SolidColorBackground(BaseBackground):
    """``color``; in training, with ``random_aug``, now and then a random one for each picture."""

    @dataclass
    class Config(BaseBackground.Config):
        n_output_dims: int = 3
        color: Any = (1.0, 1.0, 1.0)
        learned: bool = False
        random_aug: bool = False
        random_aug_prob: float = 0.5

    cfg: Config

    def configure(self) -> None:
        color = torch.tensor([float(channel) for channel in self.cfg.color])
        if self.cfg.learned:
            self.env_color = nn.Parameter(color)
        else:
            self.register_buffer("env_color", color)

    def forward(self, dirs: Tensor) -> Tensor:
        """[B, H, W, 3] -> [B, H, W, n_output_dims]; only the shape of ``dirs`` matters."""
        shape = (*dirs.shape[:-1], self.cfg.n_output_dims)
        color = self.env_color.to(dirs).expand(shape)
        if self.training and self.cfg.random_aug and random.random() < self.cfg.random_aug_prob:
            drawn = torch.rand(dirs.shape[0], 1, 1, shape[-1]).to(dirs)
            # Zero times the colour keeps a learned one in the graph, as DDP expects.
            color = color * 0 + drawn.expand(shape)
        return color
