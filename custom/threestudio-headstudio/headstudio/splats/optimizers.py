"""One optimiser with a named group per parameter, seen as gsplat's strategy operations expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headstudio.errors import HeadStudioError


@dataclass
class ParameterView:
    """The part of an optimiser that belongs to one parameter.

    gsplat's operations take an optimiser per parameter and touch nothing of it but these two
    attributes. The group and the state are the shared optimiser's own, so a parameter exchanged
    here is exchanged there.
    """

    param_groups: list[dict[str, Any]]
    state: dict[Any, Any]


def views_by_parameter(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, ParameterView]:
    """A view on ``optimizer`` for each of ``parameters`` that it optimises.

    Args:
        optimizer: with any number of groups; each parameter alone in one of them.
        parameters: by name; those without a gradient may be missing from the optimiser.

    Raises:
        HeadStudioError: if a trainable parameter is in no group, or shares one.
    """
    views = {}
    for name, parameter in parameters.items():
        groups = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
        if groups and len(groups[0]["params"]) == 1:
            views[name] = ParameterView(groups, optimizer.state)
        elif groups:
            raise HeadStudioError(
                f"the optimiser keeps {name} in one group with {len(groups[0]['params']) - 1} "
                "other parameters; density control resizes parameters and needs each in a group "
                "of its own (optimizer.params in the config)."
            )
        elif parameter.requires_grad:
            raise HeadStudioError(
                f"{name} is trainable but not in the optimiser; add it to optimizer.params in the "
                "config, or freeze it."
            )
    return views
