"""Random faces to pull: FLAME parameters for pictures of characters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headstudio.flame import FlameParams, HeadModel

# ARKit actions by which a face is made, the chance of each group and its largest amount.
_MOODS: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("mouthSmileLeft", "mouthSmileRight"), 0.30, 0.9),
    (("mouthFrownLeft", "mouthFrownRight"), 0.10, 0.9),
    (("mouthPucker",), 0.08, 0.9),
    (("mouthFunnel",), 0.10, 0.8),
    (("mouthStretchLeft", "mouthStretchRight"), 0.08, 0.8),
    (("mouthUpperUpLeft", "mouthUpperUpRight"), 0.08, 0.8),
    (("mouthLowerDownLeft", "mouthLowerDownRight"), 0.10, 0.8),
    (("mouthLeft",), 0.04, 0.7),
    (("mouthRight",), 0.04, 0.7),
    (("browInnerUp",), 0.20, 1.0),
    (("browOuterUpLeft", "browOuterUpRight"), 0.20, 1.0),
    (("browDownLeft", "browDownRight"), 0.18, 1.0),
    (("noseSneerLeft", "noseSneerRight"), 0.06, 0.8),
    (("cheekPuff",), 0.04, 0.8),
    (("cheekSquintLeft", "cheekSquintRight"), 0.10, 0.8),
    (("eyeWideLeft", "eyeWideRight"), 0.35, 1.0),
    (("eyeSquintLeft", "eyeSquintRight"), 0.08, 0.8),
    (("jawLeft",), 0.03, 0.6),
    (("jawRight",), 0.03, 0.6),
)
_BLINK = ("eyeBlinkLeft", "eyeBlinkRight")
_MAX_JAW = 0.32  # radians
_REST = 0.25  # share of faces at rest


def random_poses(head: HeadModel, batch: int, generator: torch.Generator) -> FlameParams:
    """``batch`` poses: a quarter at rest, the others with moods, open jaws, blinks and glances.

    Expression stays zero on a head without named actions.

    Args:
        head: whose expression is meant.
        generator: a CPU generator.

    Returns:
        On the CPU, with shape zero.
    """

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator)

    params = FlameParams.zeros(batch, n_shape=head.n_shape, n_expression=head.n_expression)
    column = {name: i for i, name in enumerate(head.expression_names)}
    moves = (uniform(batch) >= _REST).float()
    expression = params.expression.clone()
    for names, chance, most in _MOODS:
        amount = (uniform(batch) < chance) * uniform(batch) * most * moves
        for name in names:
            if name in column:  # the two sides differ a little
                expression[:, column[name]] = amount * (1 - 0.2 * uniform(batch))
    asleep = uniform(batch)
    blink = torch.where(asleep < 0.12, 0.6 + 0.4 * uniform(batch), 0.15 * uniform(batch)) * moves
    wink = (uniform(batch) < 0.04).float()
    for side, name in enumerate(_BLINK):
        if name in column:
            expression[:, column[name]] = blink * (1 - wink * side)
    opened = (uniform(batch) < 0.55).float() * moves
    jaw = torch.zeros(batch, 3)
    jaw[:, 0] = opened * _MAX_JAW * uniform(batch) ** 1.3
    gaze = torch.zeros(batch, 3)
    gaze[:, :2] = torch.randn(batch, 2, generator=generator) * torch.tensor([0.08, 0.16])
    gaze = (gaze * moves[:, None]).clamp(-0.35, 0.35)
    neck = torch.randn(batch, 3, generator=generator) * torch.tensor([0.10, 0.14, 0.06])
    neck = (neck * ((uniform(batch) < 0.35) * moves)[:, None]).clamp(-math.pi / 9, math.pi / 9)
    return params.replace(
        expression=expression, jaw_pose=jaw, leye_pose=gaze, reye_pose=gaze.clone(), neck_pose=neck
    )
