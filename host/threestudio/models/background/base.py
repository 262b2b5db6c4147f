"""What every background derives from."""

from dataclasses import dataclass

from threestudio.utils.base import BaseModule


class BaseBackground(BaseModule):
    """What is seen where nothing is: ``forward(dirs [B, H, W, 3]) -> [B, H, W, C]``."""

    @dataclass
    class Config(BaseModule.Config):
        pass

    cfg: Config
