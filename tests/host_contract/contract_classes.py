"""Classes with configurations, in a module whose annotations are not strings."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from threestudio.utils.base import BaseModule, BaseObject


def _configured(base: type) -> type:
    class Made(base):
        @dataclass
        class Config(base.Config):
            size: int = 1
            name: str = "default"

        cfg: Config

        def configure(self, *args: Any, **kwargs: Any) -> None:
            self.heard = (self.cfg.size, args, kwargs)

    return Made


Configured = {base: _configured(base) for base in (BaseObject, BaseModule)}


class Weighted(BaseModule):
    def configure(self) -> None:
        self.linear = nn.Linear(3, 2, bias=False)
        self.heard: tuple[int, int, bool] | None = None

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.heard = (epoch, global_step, on_load_weights)


@dataclass
class Settings:
    number: float = 1.5
    pair: tuple[float, float] = (0.0, 1.0)
    words: str | None = None
