"""Between two poses: rotations along the shortest arc, everything else along a line."""

from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.flame import POSE_NAMES, FlameParams


def ease(t: Tensor) -> Tensor:
    """0 to 1 with zero slope at both ends (smoothstep), for t in [0, 1]."""
    return t * t * (3 - 2 * t)


def slerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """Axis-angle rotations [n, 3] at ``weight`` [n] of the shortest arc from start to end."""
    a = Rotation.from_rotvec(start.detach().cpu().double().numpy())
    b = Rotation.from_rotvec(end.detach().cpu().double().numpy())
    arc = (a.inv() * b).as_rotvec() * weight.detach().cpu().double().numpy()[:, None]
    return torch.from_numpy((a * Rotation.from_rotvec(arc)).as_rotvec()).to(start)


def blend(start: FlameParams, end: FlameParams, weight: Tensor) -> FlameParams:
    """Row by row from ``start`` (weight 0) to ``end`` (weight 1); ``weight`` [n]."""
    size = weight.shape[0]
    blended = {}
    for name, value in start.items():
        a, b = value.expand(size, -1), getattr(end, name).expand(size, -1)
        if name in POSE_NAMES:
            blended[name] = slerp(a, b, weight)
        else:
            blended[name] = torch.lerp(a, b, weight.to(a)[:, None])
    return FlameParams(**blended)


def interpolate(params: FlameParams, positions: Tensor) -> FlameParams:
    """Poses at fractional frame numbers ``positions`` [n], each in [0, T - 1]."""
    below = positions.floor().long()
    above = (below + 1).clamp(max=params.batch_size - 1)
    frames = params.expand()
    return blend(frames[below], frames[above], positions - below)


def pad_expression(params: FlameParams, width: int) -> FlameParams:
    """Expression coefficients brought to ``width`` columns: padded with zeros, or cut.

    Raises:
        HeadStudioError: if a column that would be cut off is in use.
    """
    expression = params.expression
    if torch.any(expression[:, width:] != 0):
        used = int(torch.nonzero(expression.abs().amax(0))[-1]) + 1
        raise HeadStudioError(
            f"a motion uses {used} expression coefficients, the head has {width}; use motions made "
            "for this head."
        )
    padded = torch.nn.functional.pad(
        expression[:, :width], (0, max(0, width - expression.shape[1]))
    )
    return params.replace(expression=padded)
