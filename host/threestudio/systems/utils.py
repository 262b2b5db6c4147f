"""Optimisers and learning-rate schedules from their configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

import threestudio
from threestudio.utils.config import config_to_primitive
from threestudio.utils.errors import UserError, nearest


def getattr_recursive(m: Any, attr: str) -> Any:
    """``m.a.b.c`` for ``"a.b.c"``."""
    for name in attr.split("."):
        m = getattr(m, name)
    return m


def get_parameters(model: nn.Module, name: str) -> Iterable[nn.Parameter]:
    """The parameters of the part of a model at a dotted path: a module's, or the one it is.

    Raises:
        UserError: if there is no such part. What is there but cannot learn has no parameters.
    """
    try:
        part = getattr_recursive(model, name)
    except AttributeError as error:
        known = [path for path, _ in [*model.named_modules(), *model.named_parameters()] if path]
        raise UserError(
            f"optimizer.params names {name!r}, which the system does not have{nearest(name, known)}"
        ) from error
    if isinstance(part, nn.Module):
        return part.parameters()
    return [part] if isinstance(part, nn.Parameter) else []


def _lookup(namespace: Any, name: str, what: str) -> Any:
    if not hasattr(namespace, name):
        known = [other for other in dir(namespace) if other[0].isupper()]
        raise UserError(f"unknown {what} {name!r}{nearest(name, known)}")
    return getattr(namespace, name)


def parse_optimizer(config: Any, model: nn.Module) -> Optimizer:
    """Make the optimiser of ``torch.optim`` that a configuration describes.

    Args:
        config: ``name``, ``args``, and optionally ``params``: dotted paths of the model's parts,
            each with the arguments that differ for it. Each makes a group with its path as
            ``name``. Without ``params`` everything learns alike.
    """
    # Plain numbers and lists: the arguments are saved in checkpoints, which hold nothing else.
    config = config_to_primitive(config)
    if "name" not in config:
        raise UserError("the system's optimizer needs a name, such as Adam, and args")
    params: Any = model.parameters()
    if config.get("params") is not None:
        params = [
            {"params": get_parameters(model, name), "name": name, **(args or {})}
            for name, args in config["params"].items()
        ]
        threestudio.debug(f"Optimised: {', '.join(config['params'])}")
    make = _lookup(torch.optim, config["name"], "optimizer")
    try:
        return make(params, **config.get("args", {}))
    except (TypeError, ValueError) as error:
        raise UserError(f"the system's optimizer cannot be made: {error}") from error


def get_scheduler(name: str) -> Any:
    """A class of ``torch.optim.lr_scheduler``."""
    return _lookup(lr_scheduler, name, "scheduler")


def parse_scheduler_to_instance(config: Any, optimizer: Optimizer) -> Any:
    """Make the schedule that a configuration describes.

    Args:
        config: ``name`` and ``args``; or the name ``SequentialLR`` (also ``Sequential``) with
            ``schedulers`` and ``milestones``, or ``ChainedScheduler`` with ``schedulers``.
    """
    config = config_to_primitive(config)
    name = {"Sequential": "SequentialLR"}.get(config["name"], config["name"])
    if name not in ("SequentialLR", "ChainedScheduler"):
        return get_scheduler(name)(optimizer, **config.get("args", {}))
    parts = [parse_scheduler_to_instance(part, optimizer) for part in config["schedulers"]]
    if name == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler(parts)
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=config["milestones"])


def parse_scheduler(config: Any, optimizer: Optimizer) -> dict[str, Any]:
    """As ``parse_scheduler_to_instance``, in lightning's form.

    ``config.interval`` is ``"epoch"``, the default, or ``"step"``.
    """
    interval = config.get("interval", "epoch")
    if interval not in ("epoch", "step"):
        raise UserError(f"scheduler.interval is 'epoch' or 'step', not {interval!r}")
    return {"scheduler": parse_scheduler_to_instance(config, optimizer), "interval": interval}
