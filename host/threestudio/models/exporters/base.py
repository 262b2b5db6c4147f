"""What every exporter derives from."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import threestudio
from threestudio.utils.base import BaseObject


@dataclass
class ExporterOutput:
    """One file to be saved: ``save_<save_type>(save_name, **params)`` of the system is called."""

    save_name: str
    save_type: str
    params: dict[str, Any]


class Exporter(BaseObject):
    """From the parts of a system to files; calling it returns a list of ``ExporterOutput``.

    ``cfg.save_video`` also makes the test's video.
    """

    @dataclass
    class Config(BaseObject.Config):
        save_video: bool = False

    cfg: Config

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        self.sub_modules = SimpleNamespace(
            geometry=geometry, material=material, background=background
        )

    @property
    def geometry(self) -> Any:
        return self.sub_modules.geometry

    @property
    def material(self) -> Any:
        return self.sub_modules.material

    @property
    def background(self) -> Any:
        return self.sub_modules.background


@threestudio.register("dummy-exporter")
class DummyExporter(Exporter):
    """Exports nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> list[ExporterOutput]:
        return []
