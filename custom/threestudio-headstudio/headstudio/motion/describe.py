"""What is in a motion, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstudio.flame import POSE_NAMES
from headstudio.motion.motion import FLAME_NAMES
from headstudio.motion.readers.recording import Recording

AXES = ("x", "y", "z")
_FLAMES = {name: f"expression {number}" for number, name in enumerate(FLAME_NAMES, 1)}


def describe(recording: Recording, strongest: int = 8) -> dict[str, Any]:
    """A summary that JSON can hold.

    ``joints`` has, for each joint that moves, the range of each axis-angle component in degrees and
    the largest angle; ``translation`` its range in millimetres; ``expressions`` the coefficients
    with the largest values, strongest first.

    Args:
        recording: as `headstudio.motion.read_recording` gives it.
        strongest: how many expression coefficients are named at most.
    """
    motion = recording.motion
    params = motion.params
    joints = {}
    for name in POSE_NAMES:
        degrees = np.rad2deg(getattr(params, name).numpy().astype(np.float64))
        if np.abs(degrees).max() >= 0.05:
            joints[name] = {
                **_ranges(degrees),
                "largest_angle": round(float(np.linalg.norm(degrees, axis=1).max()), 2),
            }
    translation = params.translation.numpy().astype(np.float64) * 1000
    expression = params.expression.numpy()
    peak = np.abs(expression).max(axis=0)
    order = [int(i) for i in np.argsort(-peak, kind="stable")[:strongest] if peak[i] > 0]
    names = [_FLAMES.get(name, name) for name in motion.expression_names]
    return {
        "format": recording.format,
        "name": motion.name,
        "frames": len(motion),
        "fps": round(motion.fps, 4),
        "fps_from": recording.fps_from,
        "duration_s": round(motion.duration, 3),
        "expression_space": _space(motion.expression_names),
        "has_shape": bool(params.shape.any()),
        "joints_deg": joints,
        "translation_mm": _ranges(translation) if translation.any() else {},
        "expressions": [
            {
                "name": names[i] if i < len(names) else f"expression {i + 1}",
                "min": round(float(expression[:, i].min()), 3),
                "max": round(float(expression[:, i].max()), 3),
                "mean": round(float(expression[:, i].mean()), 3),
            }
            for i in order
        ],
        "notes": recording.notes,
    }


def _space(names: list[str]) -> str:
    if not names:
        return "the head's own coefficients"
    return "FLAME's coefficients" if set(names) <= set(FLAME_NAMES) else "named actions"


def _ranges(values: np.ndarray) -> dict[str, list[float]]:
    """Smallest and largest of each column [T, 3]."""
    return {
        axis: [round(float(column.min()), 2), round(float(column.max()), 2)]
        for axis, column in zip(AXES, values.T, strict=True)
    }
