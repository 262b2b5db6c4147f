"""DECA, EMOCA and their kin: codes of single images, FLAME's own parameters.

A code has ``exp [50]``, ``pose [6]`` (the whole head's rotation, then the jaw's, axis-angle) and
``shape [100]``, the leading coefficients of FLAME's. EMOCA writes a folder for each image with
``exp.npy``, ``pose.npy``, ``shape.npy``; scripts save DECA's dictionary, of one image, of many, or
a list of them, as ``.pkl``, ``.npy``, ``.npz`` or ``.mat``. (DECA's own ``--saveMat`` writes meshes
and no code.) No frame rate is kept; 25 is assumed.
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
from headstudio.motion.rotations import from_euler

NAME = "DECA / EMOCA"
FPS = Rate(25.0, "assumed")
EXPRESSIONS = ("exp", "expcode", "expression_params")
POSES = ("pose", "posecode", "pose_params")
SHAPES = ("shape", "shapecode", "shape_params")
JAWS = ("jaw", "jawpose", "jaw_pose")
GLOBALS = ("global_pose", "globalpose")
EULER_JAW = "euler_jaw_pose"
KEYS = (*EXPRESSIONS, *POSES, *SHAPES, *JAWS, *GLOBALS, EULER_JAW)

# What the columns of a pose are, by their number: DECA's, and FLAME's own order.
_PARTS = {
    3: ("global_orient",),
    6: ("global_orient", "jaw_pose"),
    15: ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose"),
}


def recognises(fields: Mapping[str, Any]) -> bool:
    """Whether a dictionary's keys are a code's."""
    expression = any(key in fields for key in EXPRESSIONS)
    return expression and any(key in fields for key in (*POSES, *JAWS, *GLOBALS, *SHAPES))


def is_mesh(fields: Mapping[str, Any]) -> bool:
    """Whether this is what DECA's ``--saveMat`` writes."""
    return "verts" in fields and "trans_verts" in fields


MESH_ADVICE = (
    "holds DECA's meshes and landmarks (verts, trans_verts …), not its parameters. Save the "
    "dictionary that deca.encode() returns (exp, pose, shape) instead."
)


def read(fields: Mapping[str, Any], path: Path, fps: float | None) -> Recording:
    """A recording of a code, or of many stacked."""
    key = _first(fields, EXPRESSIONS)
    assert key is not None
    arrays = {"expression": coefficients(fields, key, path, N_EXPRESSION)}
    pose = _first(fields, POSES)
    if pose is not None:
        arrays.update(_pose(fields, pose, path))
    for keys, ours in ((GLOBALS, "global_orient"), (JAWS, "jaw_pose")):
        part = _first(fields, keys)
        if part is not None and ours not in arrays:
            arrays[ours] = rotation(fields, part, path)
    if "jaw_pose" not in arrays and EULER_JAW in fields:
        angles = numbers(fields, EULER_JAW, path)
        if angles.shape[-1:] != (3,) or 0 in angles.shape:
            raise HeadStudioError(
                f"{path}: {EULER_JAW!r} has shape {list(angles.shape)}; expected [T, 3]."
            )
        arrays["jaw_pose"] = from_euler("XYZ", angles.reshape(-1, 3))
    notes = ["camera, light, texture and detail are left out"]
    shape = _first(fields, SHAPES)
    if shape is not None:
        # A face gets another shape in every image; one head has their mean.
        shapes = coefficients(fields, shape, path, N_SHAPE)
        arrays["shape"] = shapes.mean(0, keepdims=True)
        if len(shapes) > 1:
            notes.append("the shape is the mean of all frames'")
    found = rate(fps, FPS)
    return Recording(flame_motion(path, arrays, found.fps), NAME, found.origin, notes)


def read_frames(frames: list[Mapping[str, Any]], path: Path, fps: float | None) -> Recording:
    """A recording of one code a frame, in order."""
    return read(stack(frames, KEYS, path), path, fps)


def _pose(fields: Mapping[str, Any], key: str, path: Path) -> dict[str, np.ndarray]:
    """The rotations that a code's pose holds."""
    pose = numbers(fields, key, path)
    shape = list(pose.shape)
    if pose.ndim == 1:
        pose = pose[None]
    elif pose.ndim > 2 and pose.size:
        pose = pose.reshape(pose.shape[0], -1)
    parts = _PARTS.get(pose.shape[-1]) if pose.ndim == 2 else None
    if parts is None:
        raise HeadStudioError(
            f"{path}: {key!r} has shape {shape}; expected [T, 6], the rotations of head and jaw, "
            "or [T, 15], those of FLAME's five joints."
        )
    return {part: pose[:, 3 * i : 3 * i + 3] for i, part in enumerate(parts)}


def _first(fields: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in fields), None)
