"""``avatar-exporter``: the avatar as one file."""

from dataclasses import dataclass
from typing import Any

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.plugin.geometry import FlameGaussians
from threestudio.models.exporters.base import Exporter, ExporterOutput


@threestudio.register("avatar-exporter")
class AvatarExporter(Exporter):
    """Hands the avatar to the system's ``save_avatar``: ``save/it<N>-export/avatar.ply``."""

    @dataclass
    class Config(Exporter.Config):
        save_name: str = "avatar.ply"

    cfg: Config

    def __call__(self, *args: Any, **kwargs: Any) -> list[ExporterOutput]:
        if not isinstance(self.geometry, FlameGaussians):
            raise HeadStudioError(
                "avatar-exporter writes the geometry flame-gaussians, not "
                f"{type(self.geometry).__name__}."
            )
        return [ExporterOutput(self.cfg.save_name, "avatar", self.geometry.export())]
