"""Readers that take more than a path, as functions of a path."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from headstudio.flame import HeadModel, files, read_npz
from headstudio.flame.landmarks import LANDMARK_KEYS, embedding_from_arrays
from headstudio.guidance import _parts
from headstudio.render.camera_path import View, load_camera_path
from headstudio.splats import load_avatar


def landmarks(path: Path) -> Any:
    """A table of landmarks for a head of four triangles."""
    return embedding_from_arrays(read_npz(path, "a landmark table", LANDMARK_KEYS), 4, path)


def tiny_head_entries() -> dict[str, np.ndarray]:
    """A head of four vertices in FLAME's layout: a tetrahedron, all of it on the root joint."""
    weights = np.zeros((4, 5), np.float32)
    weights[:, 0] = 1
    return {
        "v_template": np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        "f": np.int32([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
        "shapedirs": np.zeros((4, 3, 400), np.float16),
        "posedirs": np.zeros((4, 3, 36), np.float16),
        "J_regressor": np.full((5, 4), 0.25, np.float32),
        "kintree_table": np.int64([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "weights": weights,
    }


@functools.cache
def tiny_head() -> HeadModel:
    """The head that `tiny_head_entries` describe."""
    return HeadModel(files.head_from_entries(tiny_head_entries(), Path("tiny.npz")))


def avatar(path: Path) -> Any:
    """An avatar on the tiny head, played once."""
    loaded = load_avatar(path, tiny_head())
    for name, value in loaded.splats.parameters().items():
        assert bool(value.isfinite().all()), f"{name} is not finite"
    return loaded


def camera_path(path: Path) -> Any:
    """Key frames, and a few of the cameras between them."""
    return load_camera_path(path, View())


def prior_index(path: Path) -> Any:
    """The parts of a prior, the index of whose UNet is the file."""
    sources = {"unet": _parts.Source("unet", str(path), "unet")}
    (path / "unet" / "config.json").write_text("{}")
    return _parts.check_local(sources)


def prompt_cache(path: Path) -> Any:
    """An embedding; what cannot be read is None."""
    from threestudio.models.prompt_processors.cache import EmbeddingCache

    cache = EmbeddingCache(path.parent, "model")
    cache.path = lambda prompt: path  # type: ignore[method-assign]
    return cache.read("a prompt")


def checkpoint(path: Path) -> Any:
    """A checkpoint's weights."""
    from threestudio.utils.misc import load_checkpoint

    return load_checkpoint(path, map_location="cpu")


def config(path: Path) -> Any:
    """An experiment: what is wrong with it, and its settings."""
    import headstudio.plugin  # noqa: F401  (registers the classes)
    from headstudio.plugin.config_check import check_experiment
    from threestudio.utils.config import load_config, merge_config

    problems = check_experiment(merge_config(str(path)))
    assert all(problem.path and problem.text for problem in problems)
    return problems, load_config(str(path))
