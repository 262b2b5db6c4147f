"""SHOW and TalkSHOW: SMPL-X bodies, of which the head is taken.

SHOW's ``.pkl`` (Yi et al. 2023, "Generating Holistic 3D Human Motion from Speech") is a dictionary
with a row a frame: ``expression [T, 100]``, ``jaw_pose``, ``leye_pose``, ``reye_pose [T, 3]``,
``body_pose_axis [T, 63]`` (21 joints of SMPL-X, the pelvis not among them), all axis-angle, and
things of no use here, some of them CUDA tensors. TalkSHOW writes the same as one ``.npy`` array
[T, 265]: jaw 0:3, eyes 3:9, orientation 9:12, body 12:75, hands 75:165, expression 165:265. Both
are made for video at 30 frames a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.files import N_EXPRESSION
from headstudio.motion.readers.recording import (
    Rate,
    Recording,
    coefficients,
    flame_motion,
    numbers,
    rate,
    rotation,
)
from headstudio.motion.rotations import compose, to_rotvec

NAME, TALKSHOW_NAME = "SHOW", "TalkSHOW"
FPS = Rate(30.0, "the format")
TALKSHOW_WIDTHS = (265, 215)
"""Columns of a TalkSHOW array with 100 or 50 expression coefficients."""

_BODIES = ("body_pose_axis", "body_pose")
# Of SMPL-X's joints without the pelvis. The neck is number 11: 12 is the left collar bone.
_NECK, _HEAD = 11, 14
_LEFT_OUT = "the body, the hands, the body's orientation and SMPL-X's shape are left out"


def recognises(fields: Mapping[str, Any]) -> bool:
    """Whether a dictionary's keys are SHOW's."""
    return "expression" in fields and "jaw_pose" in fields


def read(fields: Mapping[str, Any], path: Path, fps: float | None) -> Recording:
    """A recording of SHOW's dictionary."""
    arrays = {
        "expression": coefficients(fields, "expression", path, N_EXPRESSION),
        "jaw_pose": rotation(fields, "jaw_pose", path),
    }
    for key in ("leye_pose", "reye_pose", "neck_pose"):
        if key in fields:
            arrays[key] = rotation(fields, key, path)
    body = next((key for key in _BODIES if key in fields), None)
    if body is not None:
        arrays["neck_pose"] = _neck(_joints(numbers(fields, body, path), body, path))
    found = rate(fps, FPS)
    return Recording(flame_motion(path, arrays, found.fps), NAME, found.origin, [_LEFT_OUT])


def read_talkshow(array: np.ndarray, path: Path, fps: float | None) -> Recording:
    """A recording of TalkSHOW's array [T, 265] (or [1, T, 265])."""
    table = numbers({"array": array}, "array", path)
    table = table[0] if table.ndim == 3 and table.shape[0] == 1 else table
    if table.ndim != 2 or table.shape[1] not in TALKSHOW_WIDTHS:
        raise HeadStudioError(
            f"{path} is an array of shape {list(table.shape)}; TalkSHOW writes [T, 265]. Give one "
            "person's array."
        )
    body = _joints(table[:, 12:75], "columns 12 to 75", path)
    arrays = {
        "expression": coefficients({"e": table[:, 165:]}, "e", path, N_EXPRESSION),
        "jaw_pose": table[:, 0:3],
        "leye_pose": table[:, 3:6],
        "reye_pose": table[:, 6:9],
        "neck_pose": _neck(body),
    }
    found = rate(fps, FPS)
    motion = flame_motion(path, arrays, found.fps)
    return Recording(motion, TALKSHOW_NAME, found.origin, [_LEFT_OUT])


def _joints(body: np.ndarray, key: str, path: Path) -> np.ndarray:
    """Neck and head [T, 2, 3] of the body's pose, as axis-angle or as matrices."""
    frames = body.shape[0] if body.ndim else 0
    if body.ndim and frames == 0:
        raise HeadStudioError(f"{path} has no frames.")
    if body.size == frames * 63 and frames:
        return body.reshape(frames, 21, 3)[:, [_NECK, _HEAD]]
    if body.size == frames * 189 and frames:
        matrices = body.reshape(frames, 21, 3, 3)
        joints = [to_rotvec(matrices[:, joint], f"{path}: {key}") for joint in (_NECK, _HEAD)]
        return np.stack(joints, axis=1)
    raise HeadStudioError(
        f"{path}: {key} has shape {list(body.shape)}; expected [T, 63], the 21 joints of an SMPL-X "
        "body without its pelvis."
    )


def _neck(joints: np.ndarray) -> np.ndarray:
    """FLAME's one neck joint turns as SMPL-X's neck and, inside it, its head do together."""
    return compose(joints[:, 0], joints[:, 1])
