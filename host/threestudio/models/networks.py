"""Small networks from their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from threestudio.utils.errors import UserError
from threestudio.utils.ops import get_activation


class VanillaMLP(nn.Module):
    """Linear layers without bias, ReLU between them.

    ``config`` has ``n_neurons``, ``n_hidden_layers`` and optionally ``output_activation``.
    """

    def __init__(self, dim_in: int, dim_out: int, config: Mapping[str, Any]) -> None:
        super().__init__()
        widths = [dim_in, *[config["n_neurons"]] * config["n_hidden_layers"]]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], dim_out, bias=False))
        self.output_activation = get_activation(config.get("output_activation"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., dim_in] -> [..., dim_out], in float32 even under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return self.output_activation(self.layers(x.float()))


def get_mlp(n_input_dims: int, n_output_dims: int, config: Mapping[str, Any]) -> nn.Module:
    """A network from its configuration, whose ``otype`` is its kind: here ``VanillaMLP``."""
    if config.get("otype") != "VanillaMLP":
        raise UserError(f"otype is VanillaMLP on this host, not {config.get('otype')!r}")
    return VanillaMLP(n_input_dims, n_output_dims, config)
