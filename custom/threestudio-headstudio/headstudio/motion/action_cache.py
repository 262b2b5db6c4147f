"""Fitted actions, kept in the user's cache folder so that a head file is fitted once."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import HeadModel, read_npz
from headstudio.flame.npz import write_npz
from headstudio.motion import actions
from headstudio.motion.actions import Actions, as_numpy, fit
from headstudio.motion.arkit import ARKIT_NAMES

_log = logging.getLogger(__name__)

VERSION = 1
"""Of the fit; another one is not found under an old fit's name."""
_MAX_BYTES = 1 << 22


def cache_folder() -> Path:
    """``$HEADSTUDIO_CACHE``, or ``headstudio`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("HEADSTUDIO_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headstudio"


def cached(head: HeadModel, pattern: HeadModel, folder: Path | None = None) -> Actions:
    """The fit of ``head`` to ``pattern``, from the cache if it is there and whole.

    A damaged file is fitted again and replaced; a folder that cannot be written to costs the time
    of a fit at every call and nothing else.

    Raises:
        HeadStudioError: a head without landmarks.
    """
    path = cache_file(head, pattern, folder)
    if path.is_file():
        try:
            return _read(path, head.n_expression)
        except HeadStudioError as error:
            _log.warning("%s; the actions are fitted again.", error)
    fitted = fit(head, pattern)
    try:
        write_npz(path, as_numpy(fitted))
    except (HeadStudioError, OSError) as error:
        _log.warning("the fitted actions could not be kept: %s", error)
    return fitted


def cache_file(head: HeadModel, pattern: HeadModel, folder: Path | None = None) -> Path:
    """Where a fit is kept: named by the contents of both heads, their landmarks and the fit's
    settings."""
    digest = hashlib.sha256()
    settings = (VERSION, actions.LANDMARK_SIGMA, actions.JOINT_SIGMAS, actions.SEEN, ARKIT_NAMES)
    digest.update(repr(settings).encode())
    for model in (head, pattern):
        digest.update(model.content_hash.encode())
        embedding = model.landmarks
        for part in (embedding.mediapipe_index, embedding.face, embedding.barycentric):
            digest.update(np.ascontiguousarray(part.cpu().numpy()).tobytes())
    return (folder or cache_folder() / "arkit") / f"{digest.hexdigest()[:32]}.npz"


def _read(path: Path, n_expression: int) -> Actions:
    count = len(ARKIT_NAMES)
    shapes = {
        "expression": (count, n_expression),
        **dict.fromkeys(("jaw_pose", "leye_pose", "reye_pose"), (count, 3)),
        **dict.fromkeys(("target", "residual", "explained"), (count,)),
    }
    arrays = read_npz(path, "fitted actions", shapes, _MAX_BYTES)
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype != np.float32:
            raise HeadStudioError(f"{path} is damaged: {name} is missing or has another shape")
        if not np.isfinite(array).all():
            raise HeadStudioError(f"{path} is damaged: {name} is not finite")
    return Actions(**{name: torch.from_numpy(arrays[name]) for name in shapes}, own=False)
