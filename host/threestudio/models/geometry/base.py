"""What every geometry derives from."""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from threestudio.utils.base import BaseModule


class BaseGeometry(BaseModule):
    """The shape of a thing, and what its material needs to know of it."""

    @dataclass
    class Config(BaseModule.Config):
        pass

    cfg: Config

    @staticmethod
    def create_from(
        other: "BaseGeometry", cfg: dict | DictConfig | None = None, **kwargs: Any
    ) -> "BaseGeometry":
        """Convert another geometry into one of this kind."""
        raise TypeError(f"this geometry cannot be made from a {type(other).__name__}")

    def export(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What an exporter may add to the shape."""
        return {}
