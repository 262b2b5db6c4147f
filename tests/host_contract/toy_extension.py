"""The smallest extension that uses every part of the contract: it learns one colour."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import threestudio
from threestudio.models.exporters.base import Exporter, ExporterOutput
from threestudio.models.geometry.base import BaseGeometry
from threestudio.models.renderers.base import Renderer
from threestudio.systems.base import BaseLift3DSystem


@threestudio.register("toy-geometry")
class ToyGeometry(BaseGeometry):
    @dataclass
    class Config(BaseGeometry.Config):
        start: float = 0.0

    cfg: Config

    def configure(self) -> None:
        self.colour = nn.Parameter(torch.full((3,), self.cfg.start) + 0.01 * torch.randn(3))
        self.steps_heard: list[int] = []

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.steps_heard.append(global_step)


@threestudio.register("toy-renderer")
class ToyRenderer(Renderer):
    def forward(self, c2w: torch.Tensor, height: int, width: int, **kwargs: Any) -> dict[str, Any]:
        directions = torch.zeros(c2w.shape[0], height, width, 3).to(c2w)
        features = self.geometry.colour.expand_as(directions)
        left = torch.arange(width, device=c2w.device)[None, None, :, None] < width // 2
        return {
            "comp_rgb": torch.where(left, self.material(features), self.background(directions)),
            "opacity": left.expand(c2w.shape[0], height, width, 1).float(),
        }


@threestudio.register("toy-exporter")
class ToyExporter(Exporter):
    def __call__(self, *args: Any, **kwargs: Any) -> list[ExporterOutput]:
        colour = self.material(self.geometry.colour[None])[0]
        return [
            ExporterOutput("colour.json", "json", {"payload": colour.tolist()}),
            ExporterOutput("colour", "data", {"data": {"colour": colour}}),
        ]


@threestudio.register("toy-system")
class ToySystem(BaseLift3DSystem):
    @dataclass
    class Config(BaseLift3DSystem.Config):
        target: float = 0.8

    cfg: Config

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.renderer(**batch)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        out = self(batch)
        width = batch["width"] // 2
        # Noise, so that equal results need equal random numbers.
        target = self.cfg.target + 0.1 * torch.rand_like(out["comp_rgb"][:, :, :width])
        loss = ((out["comp_rgb"][:, :, :width] - target) ** 2).mean()
        self.log("train/loss", loss)
        return {"loss": loss * self.C(self.cfg.loss.lambda_colour)}

    def _save(self, batch: dict[str, Any], filename: str) -> None:
        out = self(batch)
        self.save_image_grid(
            filename,
            [
                {"type": "rgb", "img": out["comp_rgb"][0], "kwargs": {"data_format": "HWC"}},
                {
                    "type": "grayscale",
                    "img": out["opacity"][0, :, :, 0],
                    "kwargs": {"cmap": None, "data_range": (0, 1)},
                },
            ],
            name="view",
            step=self.true_global_step,
        )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._save(batch, f"it{self.true_global_step}-{batch['index'][0]}.png")

    def on_validation_epoch_end(self) -> None:
        pass

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._save(batch, f"it{self.true_global_step}-test/{batch['index'][0]}.png")

    def on_test_epoch_end(self) -> None:
        name = f"it{self.true_global_step}-test"
        self.save_img_sequence(name, name, r"(\d+)\.png", save_format="mp4", fps=5, name="test")
