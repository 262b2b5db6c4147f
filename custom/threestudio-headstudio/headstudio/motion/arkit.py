"""From ARKit's face curves to FLAME parameters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.motion.motion import Motion

_SIDED = (
    *("browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn"),
    *("eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown"),
    *("mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer"),
)
_MIDDLE = (
    *("browInnerUp", "cheekPuff", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *("mouthFunnel", "mouthLeft", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper"),
    *("mouthShrugLower", "mouthShrugUpper", "tongueOut"),
)
ARKIT_NAMES = tuple(
    sorted([*_MIDDLE, *(name + side for name in _SIDED for side in ("Left", "Right"))])
)
"""ARKit's 52 actions (``ARFaceAnchor.BlendShapeLocation``), in alphabetical order."""

JAW_ANGLE = 0.35
"""Radians of jaw rotation for ``jawOpen`` = 1."""
GAZE_YAW, GAZE_PITCH = 0.45, 0.35
"""Radians of eye rotation for ``eyeLook…`` = 1, sideways and up or down."""
LID_FOLLOW = 0.35
"""``eyeBlink`` added for ``eyeLookDown`` = 1: the upper lid rides on the eyeball."""


def from_arkit(
    curves: Mapping[str, np.ndarray],
    fps: float,
    expression_names: Sequence[str],
    neck_pose: np.ndarray | None = None,
    n_expression: int = 100,
    name: str = "",
    jaw_joint: bool = True,
) -> Motion:
    """A motion from curves in [0, 1] of ARKit's actions.

    What FLAME does with a joint is done with that joint: ``eyeLook…`` turns the eyeballs, and
    ``jawOpen`` turns the jaw, as it does in motions tracked with FLAME. Everything else becomes
    the expression coefficient of its name.

    Args:
        curves: action name to values [T]; actions left out are zero.
        fps: frames a second.
        expression_names: names of the head's leading expression coefficients.
        neck_pose: [T, 3] axis-angle, radians; at rest if left out.
        n_expression: expression coefficients of the head.
        name: the motion's name.
        jaw_joint: open the jaw by its joint; if false by the expression ``jawOpen``.

    Raises:
        HeadStudioError: an unknown action, or curves of different lengths.
    """
    frames = _check_curves(curves, neck_pose)
    values = {action: np.asarray(curve, np.float64) for action, curve in curves.items()}

    def take(action: str) -> np.ndarray:
        return values.pop(action, np.zeros(frames))

    eyes = {}
    for side, outward in (("Left", 1.0), ("Right", -1.0)):
        down = take(f"eyeLookDown{side}")
        pitch = GAZE_PITCH * (down - take(f"eyeLookUp{side}"))
        yaw = GAZE_YAW * outward * (take(f"eyeLookOut{side}") - take(f"eyeLookIn{side}"))
        eyes[side] = np.stack([pitch, yaw, np.zeros(frames)], axis=1)
        blink = take(f"eyeBlink{side}")
        values[f"eyeBlink{side}"] = np.clip(blink + LID_FOLLOW * down * (1 - blink), 0, None)
    jaw = np.zeros((frames, 3))
    if jaw_joint:
        jaw[:, 0] = JAW_ANGLE * take("jawOpen")
    expression = np.zeros((frames, n_expression))
    for action, curve in values.items():
        if action in expression_names:
            expression[:, list(expression_names).index(action)] = curve
        elif np.any(curve != 0):
            raise HeadStudioError(f"the head has no expression named {action!r}.")
    params = FlameParams.zeros(1, n_expression=n_expression).replace(
        expression=_tensor(expression),
        neck_pose=_tensor(np.zeros((1, 3)) if neck_pose is None else neck_pose),
        jaw_pose=_tensor(jaw),
        leye_pose=_tensor(eyes["Left"]),
        reye_pose=_tensor(eyes["Right"]),
    )
    return Motion(params, fps, name, list(expression_names))


def _check_curves(curves: Mapping[str, np.ndarray], neck_pose: np.ndarray | None) -> int:
    """The common number of frames."""
    for action in curves:
        if action not in ARKIT_NAMES:
            near = difflib.get_close_matches(action, ARKIT_NAMES, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise HeadStudioError(f"{action!r} is not an ARKit action{hint}")
    shapes = {action: np.shape(curve) for action, curve in curves.items()}
    if neck_pose is not None:
        shapes["neck_pose"] = np.shape(neck_pose)[:1]
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        raise HeadStudioError(f"ARKit curves must all have one value a frame; got {shapes}.")
    return next(iter(shapes.values()))[0]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
