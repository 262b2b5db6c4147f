"""From the curves of ARKit's actions, as apps record them, to a motion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from headstudio.errors import HeadStudioError
from headstudio.motion.arkit import ARKIT_NAMES, from_arkit
from headstudio.motion.motion import Motion
from headstudio.motion.rotations import from_euler

LARGEST = 5.0
"""Values beyond it, of either sign, are no weights from 0 to 1; some apps write percentages."""

_BY_LOWER = {name.lower(): name for name in ARKIT_NAMES}
_JOINTS = ("Head", "LeftEye", "RightEye")
ANGLES = tuple(f"{joint}{angle}" for joint in _JOINTS for angle in ("Yaw", "Pitch", "Roll"))
"""Live Link Face's nine angles."""
_ANGLES_OF = {joint: [name for name in ANGLES if name.startswith(joint)] for joint in _JOINTS}


def action(name: str) -> str | None:
    """ARKit's spelling of an action, however it is capitalised or joined (``Eye_Blink_L`` no)."""
    return _BY_LOWER.get(name.strip().lower().replace("_", ""))


def curve_motion(
    path: Path,
    curves: Mapping[str, np.ndarray],
    fps: float,
    angles: Mapping[str, np.ndarray] | None = None,
    neck_pose: np.ndarray | None = None,
) -> tuple[Motion, list[str]]:
    """A motion of ARKit's actions by their names, with jaw and eyes turned at their joints.

    Args:
        path: for messages and the name.
        curves: by ARKit's names, [T].
        fps: frames a second.
        angles: Live Link Face's, by the names of `ANGLES`, [T] radians (see `_turn`).
        neck_pose: [T, 3] axis-angle, where there are no such angles.

    Returns:
        The motion and notes about what was missing.

    Raises:
        HeadStudioError: no action, or values that are no weights.
    """
    if not curves:
        raise HeadStudioError(f"{path} has none of ARKit's actions, such as {ARKIT_NAMES[0]!r}.")
    for name, curve in curves.items():
        size = np.abs(curve)
        if size.max(initial=0) > LARGEST:
            raise HeadStudioError(
                f"{path}: {name} goes to {curve[size.argmax()]:g}; expected 0 to 1. If these are "
                "percentages, divide them by 100."
            )
    zero = np.zeros(len(next(iter(curves.values()))))
    # A joint of which one angle was recorded has not turned about the other axes.
    angles = {
        name: angles.get(name, zero)
        for joint in _JOINTS
        for name in _ANGLES_OF[joint]
        if angles and any(part in angles for part in _ANGLES_OF[joint])
    }
    if any(np.any(angles.get(f"Head{angle}", 0) != 0) for angle in ("Yaw", "Pitch", "Roll")):
        neck_pose = _turn(angles, "Head")
    motion = from_arkit(curves, fps, ARKIT_NAMES, neck_pose, name=path.stem)
    for joint, parameter in (("LeftEye", "leye_pose"), ("RightEye", "reye_pose")):
        turn = _turn(angles, joint) if f"{joint}Yaw" in angles else None
        if turn is not None and turn.any():
            pose = torch.from_numpy(turn.astype(np.float32))
            motion.params = motion.params.replace(**{parameter: pose})
    missing = [name for name in ARKIT_NAMES if name not in curves]
    return motion, [f"not recorded, at rest: {', '.join(missing)}"] if missing else []


def _turn(angles: Mapping[str, np.ndarray], joint: str) -> np.ndarray:
    """A joint's axis-angle [T, 3] in FLAME's frame from yaw, pitch and roll in radians.

    Yaw is positive towards the subject's right, pitch positive downwards: in public recordings the
    eyes' angles follow the eyeLook curves so, by 0.6 rad a unit. FLAME's y axis turns to the left,
    its x axis downwards. Roll follows Unreal's conversion, which mirrors it like yaw.
    """
    zero = np.zeros_like(angles[f"{joint}Yaw"])
    yaw, pitch, roll = (angles.get(f"{joint}{part}", zero) for part in ("Yaw", "Pitch", "Roll"))
    return from_euler("YXZ", np.stack([-yaw, pitch, -roll], axis=1))
