"""Where MediaPipe's face landmarks lie on a head's surface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import read_npz
from headstudio.paths import find_asset

LANDMARK_KEYS = ("landmark_mediapipe_index", "landmark_face", "landmark_barycentric")
N_MEDIAPIPE = 478
FLAME_VERTICES, FLAME_FACES = 5023, 9976
FLAME_LANDMARKS = "flame/flame_landmarks.npz"


@dataclass
class LandmarkEmbedding:
    """L landmarks, each a point of a triangle."""

    mediapipe_index: Tensor  # [L] int64, 0..477
    face: Tensor  # [L] int64
    barycentric: Tensor  # [L, 3]

    def __len__(self) -> int:
        return self.face.shape[0]


def embedding_from_arrays(
    arrays: Mapping[str, np.ndarray], n_faces: int, source: str | Path
) -> LandmarkEmbedding:
    """Check the three ``landmark_*`` arrays and make an embedding of them.

    Raises:
        HeadStudioError: missing keys, wrong shapes, or numbers out of range; names ``source``.
    """
    missing = [key for key in LANDMARK_KEYS if key not in arrays]
    if missing:
        raise HeadStudioError(f"{source}: landmarks need {', '.join(missing)} too.")
    index, face, barycentric = (arrays[key] for key in LANDMARK_KEYS)
    count = face.size
    if index.shape != (count,) or face.shape != (count,) or barycentric.shape != (count, 3):
        raise HeadStudioError(
            f"{source}: landmark arrays have shapes {index.shape}, {face.shape} and "
            f"{barycentric.shape}; expected [L], [L] and [L, 3]."
        )
    if index.dtype.kind not in "iu" or face.dtype.kind not in "iu":
        raise HeadStudioError(f"{source}: landmark and triangle numbers must be integers.")
    if barycentric.dtype.kind not in "fiu":
        raise HeadStudioError(f"{source}: barycentric coordinates must be numbers.")
    if count and not (index.min() >= 0 and index.max() < N_MEDIAPIPE):
        raise HeadStudioError(f"{source}: MediaPipe landmarks are numbered 0 to {N_MEDIAPIPE - 1}.")
    if np.unique(index).size != count:
        raise HeadStudioError(f"{source}: a MediaPipe landmark is embedded twice.")
    if count and not (face.min() >= 0 and face.max() < n_faces):
        raise HeadStudioError(f"{source}: a landmark lies on a triangle the head does not have.")
    with np.errstate(all="ignore"):  # what is no number does not sum to 1
        total = barycentric.astype(np.float64).sum(-1)
    # Far outside of its triangle a landmark is no place on the head, whatever its weights sum to.
    if not np.allclose(total, 1.0, atol=1e-3) or np.abs(barycentric).max(initial=0) > 10:
        raise HeadStudioError(f"{source}: barycentric coordinates must sum to 1.")
    return LandmarkEmbedding(
        torch.from_numpy(index.astype(np.int64)),
        torch.from_numpy(face.astype(np.int64)),
        torch.from_numpy(barycentric.astype(np.float32)),
    )


def flame_landmarks() -> LandmarkEmbedding:
    """Our table for FLAME's own topology, ``load/flame/flame_landmarks.npz``.

    Raises:
        HeadStudioError: if it is missing or damaged.
    """
    path = find_asset(FLAME_LANDMARKS)
    arrays = read_npz(path, "a landmark table", LANDMARK_KEYS)
    return embedding_from_arrays(arrays, FLAME_FACES, path)
