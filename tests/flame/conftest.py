"""A small random head in FLAME's format: no anatomy, but every array matters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstudio.flame import HeadModel

HeadEntries = Callable[..., dict[str, np.ndarray]]


def make_entries(n_vertices: int = 60, n_faces: int = 100, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = rng.random((n_vertices, 5)) ** 4
    regressor = rng.random((5, n_vertices)) ** 4
    corners = np.stack([rng.choice(n_vertices, 3, replace=False) for _ in range(n_faces)])
    barycentric = rng.dirichlet(np.ones(3), 7)
    return {
        "v_template": rng.normal(size=(n_vertices, 3)) * 0.1,
        "f": corners.astype(np.uint32),
        "shapedirs": rng.normal(size=(n_vertices, 3, 400)) * 0.003,
        "posedirs": rng.normal(size=(n_vertices, 3, 36)) * 0.003,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "weights": weights / weights.sum(1, keepdims=True),
        "region_names": np.array(["skin", "lips", "iris"]),
        "face_region": rng.integers(-1, 3, n_faces).astype(np.int16),
        "expression_names": np.array(["jawOpen", "mouthClose"]),
        "landmark_mediapipe_index": rng.permutation(478)[:7],
        "landmark_face": rng.integers(0, n_faces, 7),
        "landmark_barycentric": barycentric.astype(np.float32),
        "name": np.array("random head"),
    }


@pytest.fixture
def head_entries() -> HeadEntries:
    return make_entries


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    path = tmp_path / "head.npz"
    np.savez(path, **make_entries())
    return path


@pytest.fixture
def head(head_file: Path) -> HeadModel:
    return HeadModel.load(head_file)
