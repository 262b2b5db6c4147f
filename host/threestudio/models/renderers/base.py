"""What every renderer derives from."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from threestudio.utils.base import BaseModule


class Renderer(BaseModule):
    """From a geometry, a material and a background to pictures.

    ``forward(**batch)`` returns a dict with at least ``comp_rgb`` [B, H, W, 3].

    The three belong to the system and are only referred to: they are no submodules here, and
    their weights are saved once.
    """

    @dataclass
    class Config(BaseModule.Config):
        radius: float = 1.0

    cfg: Config

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        self.sub_modules = SimpleNamespace(
            geometry=geometry, material=material, background=background
        )
        corner = torch.full((3,), float(self.cfg.radius))
        self.register_buffer("bbox", torch.stack([-corner, corner]))

    @property
    def geometry(self) -> Any:
        return self.sub_modules.geometry

    @property
    def material(self) -> Any:
        return self.sub_modules.material

    @property
    def background(self) -> Any:
        return self.sub_modules.background

    def set_geometry(self, geometry: Any) -> None:
        self.sub_modules.geometry = geometry

    def set_material(self, material: Any) -> None:
        self.sub_modules.material = material

    def set_background(self, background: Any) -> None:
        self.sub_modules.background = background


class VolumeRenderer(Renderer):
    """A renderer that samples along rays."""


class Rasterizer(Renderer):
    """A renderer that projects primitives."""
