"""VHAP and GaussianAvatars: ``flame_param.npz``, FLAME's own parameters.

``expr [T, 100]``, ``rotation`` and ``translation`` of the whole head, ``neck_pose``, ``jaw_pose``
[T, 3], ``eyes_pose [T, 6]`` (left, then right), axis-angle and metres, and ``shape [300]``. VHAP's
exported data sets have a file for each frame, in a folder. No frame rate is kept; GaussianAvatars'
viewer records at 25.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.files import N_EXPRESSION, N_SHAPE
from headstudio.motion.readers.recording import (
    Rate,
    Recording,
    coefficients,
    flame_motion,
    numbers,
    rate,
    rotation,
    stack,
)

NAME = "VHAP / GaussianAvatars"
FPS = Rate(25.0, "assumed")
KEYS = ("expr", "rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose", "shape")

_POSES = {"rotation": "global_orient", "neck_pose": "neck_pose", "jaw_pose": "jaw_pose"}
_LEFT_OUT = "offsets of single vertices (static_offset, dynamic_offset) are left out"


def recognises(fields: Mapping[str, Any]) -> bool:
    """Whether a file's keys are VHAP's."""
    return "expr" in fields and ("eyes_pose" in fields or "rotation" in fields)


def read(fields: Mapping[str, Any], path: Path, fps: float | None) -> Recording:
    """A recording of one file's arrays."""
    arrays = {"expression": coefficients(fields, "expr", path, N_EXPRESSION)}
    for theirs, ours in _POSES.items():
        if theirs in fields:
            arrays[ours] = rotation(fields, theirs, path)
    if "eyes_pose" in fields:
        arrays["leye_pose"], arrays["reye_pose"] = _eyes(fields, path)
    if "translation" in fields:
        translation = numbers(fields, "translation", path)
        if translation.shape[-1:] != (3,) or translation.ndim > 2:
            raise HeadStudioError(
                f"{path}: 'translation' has shape {list(translation.shape)}; expected [T, 3]."
            )
        arrays["translation"] = translation.reshape(-1, 3)
    if "shape" in fields:
        arrays["shape"] = coefficients(fields, "shape", path, N_SHAPE)[:1]
    found = rate(fps, FPS)
    return Recording(flame_motion(path, arrays, found.fps), NAME, found.origin, [_LEFT_OUT])


def read_folder(files: list[dict[str, np.ndarray]], path: Path, fps: float | None) -> Recording:
    """A recording of a folder with a file for each frame, in order."""
    joined = stack(files, [key for key in KEYS if key != "shape"], path)
    if "shape" in files[0]:
        joined["shape"] = files[0]["shape"]
    return read(joined, path, fps)


def _eyes(fields: Mapping[str, Any], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Left and right [T, 3] of ``eyes_pose [T, 6]``."""
    eyes = numbers(fields, "eyes_pose", path)
    if eyes.shape[-1:] != (6,) or eyes.ndim > 2:
        raise HeadStudioError(
            f"{path}: 'eyes_pose' has shape {list(eyes.shape)}; expected [T, 6], left then right."
        )
    eyes = eyes.reshape(-1, 6)
    return eyes[:, :3], eyes[:, 3:]
