"""What every material derives from."""

from dataclasses import dataclass
from typing import Any

from threestudio.utils.base import BaseModule


class BaseMaterial(BaseModule):
    """From features of points to their colours: ``forward(...) -> [..., 3]``."""

    @dataclass
    class Config(BaseModule.Config):
        pass

    cfg: Config
    requires_normal: bool = False
    requires_tangent: bool = False

    def export(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Textures by their name, such as ``albedo``."""
        return {}
