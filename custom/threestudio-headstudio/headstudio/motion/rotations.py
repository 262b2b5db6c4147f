"""Other people's rotations as axis-angle vectors, FLAME's own."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from headstudio.errors import HeadStudioError


def to_rotvec(rotation: np.ndarray, what: str) -> np.ndarray:
    """Axis-angle vectors [T, 3], radians, from any of the forms in use.

    Args:
        rotation: told apart by shape. [T, 3] or [T, 1, 3]: axis-angle. [T, 3, 3], [T, 1, 3, 3] or
            [T, 9]: matrices, rows first. [T, 6] or [T, 1, 6]: the first two rows of matrices (Zhou
            et al. 2019, laid out as PyTorch3D's ``matrix_to_rotation_6d``).
        what: the rotation's name, for messages.

    Raises:
        HeadStudioError: another shape, or matrices that are no rotations.
    """
    rotation = np.asarray(rotation, np.float64)
    frames = rotation.shape[0] if rotation.ndim else 0
    while rotation.ndim > 2 and rotation.shape[1] == 1:
        rotation = rotation[:, 0]
    if rotation.shape == (frames, 3):
        return rotation
    if not np.isfinite(rotation).all():
        bad = int(np.argwhere(~np.isfinite(rotation))[0][0])
        raise HeadStudioError(f"{what} is not finite in frame {bad}.")
    if rotation.shape == (frames, 6):
        return Rotation.from_matrix(_from_6d(rotation, what)).as_rotvec()
    if rotation.shape in ((frames, 3, 3), (frames, 9)):
        matrices = rotation.reshape(frames, 3, 3)
        error = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(initial=0)
        if error > 0.05 or (np.linalg.det(matrices) < 0).any():
            raise HeadStudioError(
                f"{what} has shape {list(rotation.shape)} but is no rotation matrix (R Rᵀ differs "
                f"from 1 by {error:.2g}). Save axis-angle vectors [T, 3] instead."
            )
        return Rotation.from_matrix(matrices).as_rotvec()
    raise HeadStudioError(
        f"{what} has shape {list(rotation.shape)}; expected axis-angle [T, 3], matrices [T, 3, 3] "
        "or six numbers [T, 6] for each frame."
    )


def _from_6d(rotation: np.ndarray, what: str) -> np.ndarray:
    """Gram-Schmidt on two rows [T, 6] -> [T, 3, 3]."""
    first, second = rotation[:, :3], rotation[:, 3:]
    length = np.linalg.norm(first, axis=1, keepdims=True)
    x = first / np.maximum(length, 1e-12)
    y = second - (x * second).sum(1, keepdims=True) * x
    height = np.linalg.norm(y, axis=1, keepdims=True)
    if min(length.min(initial=1), height.min(initial=1)) < 1e-6:
        raise HeadStudioError(f"{what} has six numbers a frame that stand for no rotation.")
    y = y / height
    return np.stack([x, y, np.cross(x, y)], axis=1)


def compose(*rotvecs: np.ndarray) -> np.ndarray:
    """The rotations [T, 3] one inside the other, the outermost first."""
    result = Rotation.from_rotvec(rotvecs[0])
    for rotvec in rotvecs[1:]:
        result = result * Rotation.from_rotvec(rotvec)
    return result.as_rotvec()


def from_euler(order: str, angles: np.ndarray) -> np.ndarray:
    """Axis-angle [T, 3] from intrinsic Euler angles [T, n] in radians, e.g. ``"YXZ"``."""
    return Rotation.from_euler(order, angles).as_rotvec()
