"""What the sliders say, as FLAME parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import POSE_NAMES, FlameParams, HeadModel
from headstudio.motion import ARKIT_NAMES, Actions, arkit_actions, from_arkit

N_IDENTITY = 10
"""Identity coefficients that have a slider: the first ones, which change the most."""
N_COEFFICIENTS = 10
"""Expression coefficients that have one, on a head whose expressions have no names."""
_FOLDERS = {
    "mouth": ("mouth", "tongue"),
    "jaw": ("jaw",),
    "eyes": ("eye",),
    "brows": ("brow",),
    "cheeks and nose": ("cheek", "nose"),
}


@dataclass(frozen=True)
class Controls:
    """The sliders' values; what is left out is zero.

    Left and right are the subject's own.
    """

    actions: Mapping[str, float] = field(default_factory=dict)
    """ARKit's actions, 0..1."""
    coefficients: Sequence[float] = ()
    """The first expression coefficients, standard deviations; for heads without named actions."""
    identity: Sequence[float] = ()
    """Added to the avatar's first identity coefficients, standard deviations."""
    jaw_deg: tuple[float, float] = (0.0, 0.0)
    """Open, to the left."""
    neck_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Down, to the left, onto the right shoulder."""
    eyes_deg: tuple[float, float] = (0.0, 0.0)
    """Down, to the left; both eyes."""


class Rig:
    """What `Controls` do to one head.

    Args:
        head: with expressions that are ARKit's actions, or with landmarks, so that the actions can
            be fitted to it; any other has its coefficients only.
    """

    def __init__(self, head: HeadModel) -> None:
        self.head = head
        self._actions: Actions | None
        try:
            self._actions = arkit_actions(head)
        except HeadStudioError:  # no names and no landmarks
            self._actions = None

    @property
    def n_coefficients(self) -> int:
        """Expression coefficients that have a slider of their own."""
        return 0 if self.head.expression_names else min(N_COEFFICIENTS, self.head.n_expression)

    @property
    def identity_names(self) -> list[str]:
        """What the identity coefficients with a slider are called."""
        n = min(N_IDENTITY, self.head.n_shape)
        return self.head.shape_names[:n] or [f"identity {i + 1}" for i in range(n)]

    def folders(self) -> dict[str, list[str]]:
        """The actions that the head can show, by the folder they are listed in."""
        if self._actions is None:
            return {}
        # Fitted ones that move no landmark are nothing; the joints' are there on any head.
        seen = dict(zip(ARKIT_NAMES, self._actions.seen.tolist(), strict=True))
        names = [
            name
            for name in ARKIT_NAMES
            if self._actions.own or seen[name] or name.startswith(("eyeLook", "jawOpen"))
        ]
        return {
            folder: [name for name in names if name.startswith(prefixes)]
            for folder, prefixes in _FOLDERS.items()
        }

    def params(self, controls: Controls) -> FlameParams:
        """One pose ``[1]``; its shape is zero but for what the sliders add to it."""
        params = FlameParams.zeros(1, self.head.n_shape, self.head.n_expression)
        if self._actions is not None and any(controls.actions.values()):
            curves = {name: np.array([value]) for name, value in controls.actions.items()}
            named = from_arkit(curves, 30.0, ARKIT_NAMES, n_expression=len(ARKIT_NAMES)).params
            params = combine(params, self._actions.pose(named.expression))
            params = combine(params, named.replace(expression=torch.zeros_like(params.expression)))
        expression = params.expression.clone()
        expression[0, : len(controls.coefficients)] += torch.tensor(controls.coefficients)
        shape = params.shape.new_zeros(1, self.head.n_shape)
        shape[0, : len(controls.identity)] = torch.tensor(controls.identity)
        eyes = _radians((*controls.eyes_deg, 0.0))
        return params.replace(
            shape=shape,
            expression=expression,
            jaw_pose=params.jaw_pose + _radians((*controls.jaw_deg, 0.0)),
            neck_pose=params.neck_pose + _radians(controls.neck_deg),
            leye_pose=params.leye_pose + eyes,
            reye_pose=params.reye_pose + eyes,
        )

    def on_top(self, moving: FlameParams, still: FlameParams) -> FlameParams:
        """A frame of a motion with the sliders' pose added; named actions end at 1."""
        return combine(moving, still, len(self.head.expression_names))


def combine(moving: FlameParams, still: FlameParams, n_actions: int = 0) -> FlameParams:
    """Two poses, one on top of the other; the shape is that of the second.

    Coefficients and rotation vectors are added (the angles are small). ``still`` takes none of the
    first ``n_actions`` coefficients, which are actions from 0 to 1, any further than 1.
    """
    total = moving.expression + still.expression
    actions = total[:, :n_actions].clamp(max=1.0).maximum(moving.expression[:, :n_actions])
    total = torch.cat([actions, total[:, n_actions:]], dim=1)
    changes = {name: getattr(moving, name) + getattr(still, name) for name in POSE_NAMES}
    changes["translation"] = moving.translation + still.translation
    return moving.replace(shape=still.shape, expression=total, **changes)


def _radians(degrees: Sequence[float]) -> torch.Tensor:
    return torch.deg2rad(torch.tensor([tuple(degrees)], dtype=torch.float32))
