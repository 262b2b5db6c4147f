"""The parameters of splats that ride on triangles, as plain tensors and as a trainable module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from headstudio.errors import HeadStudioError

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic, ``1 / (2 sqrt(pi))``: rgb = 0.5 + SH_C0 * coefficient."""

PARAMETER_WIDTHS = {"means": 3, "quats": 4, "scales": 3, "opacities": 0, "colors": 3}
"""Name of each trainable tensor and its number of columns; 0 is a vector ``[N]``."""


def rgb_to_sh(rgb: Tensor) -> Tensor:
    """Colours in [0, 1] to SH degree-0 coefficients, same shape."""
    return (rgb - 0.5) / SH_C0


def sh_to_rgb(coefficients: Tensor) -> Tensor:
    """SH degree-0 coefficients to colours, clamped at zero as 3DGS does, same shape."""
    return (0.5 + SH_C0 * coefficients).clamp_min(0.0)


@dataclass
class Splats:
    """N splats in the coordinates of the triangles they ride on.

    One unit of length is ``sqrt(area)`` of the splat's triangle; see `triangle_frames`.
    """

    means: Tensor
    """``[N, 3]``, triangle-local."""
    quats: Tensor
    """``[N, 4]``, wxyz, triangle-local; normalised where used."""
    scales: Tensor
    """``[N, 3]``, logarithm of triangle-local standard deviations."""
    opacities: Tensor
    """``[N]``, logit."""
    colors: Tensor
    """``[N, 3]``, SH degree-0 coefficients."""
    face: Tensor
    """``[N]`` int64, the triangle of each splat."""

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        for name, width in PARAMETER_WIDTHS.items():
            expected = (n, width) if width else (n,)
            given = tuple(getattr(self, name).shape)
            if given != expected:
                raise HeadStudioError(f"splats: {name} has shape {given}, expected {expected}.")
        if tuple(self.face.shape) != (n,) or self.face.dtype != torch.int64:
            raise HeadStudioError(
                f"splats: face is {self.face.dtype} of shape {tuple(self.face.shape)}, expected "
                f"torch.int64 of shape {(n,)}."
            )

    @property
    def n(self) -> int:
        """Number of splats."""
        return self.means.shape[0]

    def parameters(self) -> dict[str, Tensor]:
        """The trainable tensors by name (everything but ``face``)."""
        return {name: getattr(self, name) for name in PARAMETER_WIDTHS}

    def rgb(self) -> Tensor:
        """Colours ``[N, 3]``, linear, clamped at zero."""
        return sh_to_rgb(self.colors)

    def to(self, device: torch.device | str) -> Splats:
        """The same splats on ``device``."""
        return self._map(lambda tensor: tensor.to(device))

    def detach(self) -> Splats:
        """The same values, cut from the graph."""
        return self._map(lambda tensor: tensor.detach())

    def __getitem__(self, index: Tensor | slice) -> Splats:
        """The splats a mask, an index tensor or a slice selects."""
        return self._map(lambda tensor: tensor[index])

    @staticmethod
    def cat(parts: list[Splats]) -> Splats:
        """All splats of ``parts``, in order."""
        return Splats(
            **{
                field.name: torch.cat([getattr(part, field.name) for part in parts])
                for field in fields(Splats)
            }
        )

    def _map(self, function: Any) -> Splats:
        return Splats(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


class SplatModule(nn.Module):
    """Splats as five ``nn.Parameter`` and a ``face`` buffer.

    Loading a state dict resizes the module to the checkpoint's number of splats and keeps the
    identity of its parameters, so that it works before and after an optimiser was built on them.
    """

    means: nn.Parameter
    quats: nn.Parameter
    scales: nn.Parameter
    opacities: nn.Parameter
    colors: nn.Parameter
    face: Tensor

    def __init__(self, splats: Splats) -> None:
        super().__init__()
        for name, value in splats.parameters().items():
            self.register_parameter(name, nn.Parameter(value.detach().clone()))
        self.register_buffer("face", splats.face.clone())

    @property
    def n(self) -> int:
        """Number of splats."""
        return self.means.shape[0]

    @property
    def splats(self) -> Splats:
        """The parameters themselves (not copies) as `Splats`; gradients flow into the module."""
        return Splats(**self.parameter_dict(), face=self.face)

    def parameter_dict(self) -> dict[str, nn.Parameter]:
        """The five parameters by gsplat's names."""
        return {name: getattr(self, name) for name in PARAMETER_WIDTHS}

    def replace(self, parameters: Mapping[str, nn.Parameter], face: Tensor) -> None:
        """Put other parameters (of another number of splats, perhaps) in place of these.

        Args:
            parameters: all five, by name.
            face: ``[N]`` int64.
        """
        Splats(**dict(parameters), face=face)  # refuses shapes that do not fit each other
        for name in PARAMETER_WIDTHS:
            setattr(self, name, parameters[name])
        self.face = face

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        stored = {name: state_dict.get(prefix + name) for name in (*PARAMETER_WIDTHS, "face")}
        if all(isinstance(value, Tensor) for value in stored.values()):
            try:
                self._resize(Splats(**stored).n)  # type: ignore[arg-type]
            except HeadStudioError as error:
                error_msgs.append(f"{prefix.rstrip('.')}: {error}")
                return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _resize(self, n: int) -> None:
        if n == self.n:
            return
        for name, parameter in self.parameter_dict().items():
            width = PARAMETER_WIDTHS[name]
            # Through .data, so that an optimiser that already holds the parameter still does.
            parameter.data = parameter.data.new_empty((n, width) if width else (n,))
            parameter.grad = None
        self.face = self.face.new_empty(n)
