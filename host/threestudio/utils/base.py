"""What every registered class derives from: a checked configuration, a clock, a device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from threestudio.utils.config import parse_structured
from threestudio.utils.errors import UserError
from threestudio.utils.misc import get_device, load_module_weights


class Configurable:
    """Something made from a configuration, and nothing more."""

    @dataclass
    class Config:
        pass

    def __init__(self, cfg: dict | None = None) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)


class Updateable:
    """Something that is told where training is, before and after each batch.

    ``do_update_step`` tells everything updateable that is held as a public attribute first, so
    that ``update_step`` finds its parts up to date.
    """

    def do_update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        for part in _parts(self):
            part.do_update_step(epoch, global_step, on_load_weights=on_load_weights)
        self.update_step(epoch, global_step, on_load_weights=on_load_weights)

    def do_update_step_end(self, epoch: int, global_step: int) -> None:
        for part in _parts(self):
            part.do_update_step_end(epoch, global_step)
        self.update_step_end(epoch, global_step)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Adapt to the step that is about to be made.

        With ``on_load_weights`` the weights have just been read; modules and tensors need not
        be on one device yet.
        """

    def update_step_end(self, epoch: int, global_step: int) -> None:
        """Adapt to the step that was just made."""


def _parts(owner: Updateable) -> Iterator[Updateable]:
    """The updateable values of public attributes, modules included, each once."""
    attributes = dict(vars(owner))
    if isinstance(owner, nn.Module):
        attributes.update(owner._modules)
    seen = set()
    for name, value in attributes.items():
        if isinstance(value, Updateable) and not name.startswith("_") and id(value) not in seen:
            seen.add(id(value))
            yield value


def update_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """``do_update_step`` on what has it."""
    if isinstance(module, Updateable):
        module.do_update_step(epoch, global_step)


def update_end_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """``do_update_step_end`` on what has it."""
    if isinstance(module, Updateable):
        module.do_update_step_end(epoch, global_step)


class BaseObject(Updateable):
    """A registered class without weights. Subclasses set themselves up in ``configure``."""

    @dataclass
    class Config:
        pass

    cfg: Config

    def __init__(self, cfg: dict | DictConfig | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self.device = get_device()
        self.configure(*args, **kwargs)

    def configure(self, *args: Any, **kwargs: Any) -> None:
        pass


class BaseModule(nn.Module, Updateable):
    """A registered class with weights. Subclasses set themselves up in ``configure``.

    ``cfg.weights``, as ``path/to/a.ckpt:module``, starts it with that module's weights from a
    checkpoint.
    """

    @dataclass
    class Config:
        weights: str | None = None

    cfg: Config

    def __init__(self, cfg: dict | DictConfig | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self.device = get_device()
        self.configure(*args, **kwargs)
        if self.cfg.weights is not None:
            self._start_from(self.cfg.weights)
        # Some extensions ask an empty buffer where the module is.
        self.register_buffer("_dummy", torch.zeros(0), persistent=False)

    def _start_from(self, weights: str) -> None:
        path, colon, module_name = weights.rpartition(":")
        if not colon:
            raise UserError(f"weights is path:module, such as last.ckpt:geometry, not {weights!r}")
        state, epoch, global_step = load_module_weights(
            path, module_name=module_name, map_location="cpu"
        )
        self.load_state_dict(state)
        self.do_update_step(epoch, global_step, on_load_weights=True)

    def configure(self, *args: Any, **kwargs: Any) -> None:
        pass
