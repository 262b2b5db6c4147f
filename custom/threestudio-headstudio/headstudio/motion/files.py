"""Motion files: an ``.npz`` whose keys are FLAME's parameters, plus ``fps``."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

import numpy as np
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, read_npz
from headstudio.flame.files import N_EXPRESSION, N_SHAPE
from headstudio.flame.npz import as_texts, write_npz
from headstudio.motion.motion import MAX_FPS, MAX_FRAMES, MIN_FPS, Motion, check_count

MAX_BYTES = 1 << 28
"""Largest motion that is read, uncompressed: 45 minutes of every parameter at 60 fps; and largest
file of any format."""

LARGEST = 1e9
"""Of all numbers in a motion; what is beyond it is a tracker's failure or damage."""

_PARAMETERS = tuple(field.name for field in dataclasses.fields(FlameParams))
KEYS = (*_PARAMETERS, "fps", "name", "expression_names")


def load_motion(path: str | Path) -> Motion:
    """Read a motion file.

    Keys: ``shape [T, 300]``, ``expression [T, n]``, ``global_orient``, ``neck_pose``,
    ``jaw_pose``, ``leye_pose``, ``reye_pose`` (axis-angle, radians) and ``translation [T, 3]``,
    each with one row instead if it does not change, and ``fps``. Missing parameters are zero.
    Optional: ``name`` and ``expression_names [m]``, m <= n.

    Raises:
        HeadStudioError: missing or damaged file, unknown keys, wrong shapes, numbers that are not
            finite, no or an impossible ``fps``, more than `MAX_FRAMES` frames.
    """
    path = Path(path)
    arrays = read_npz(path, "a motion file (.npz)", max_bytes=MAX_BYTES)
    _check_keys(arrays, path)
    fps = arrays.pop("fps")
    if fps.size != 1 or fps.dtype.kind not in "fiu":
        shown = fps.tolist() if fps.dtype.kind in "fiu" else fps.dtype
        if fps.dtype.kind == "U":
            shown = ", ".join(_text(fps, "fps", path, fps.ndim))
        raise HeadStudioError(f"{path}: fps is {str(shown)[:40]}; expected one positive number.")
    if not MIN_FPS <= float(fps.reshape(())) <= MAX_FPS:
        raise HeadStudioError(
            f"{path}: fps is {str(fps.tolist())[:40]}; expected one positive number, from "
            f"{MIN_FPS:g} to {MAX_FPS:g}."
        )
    (name,) = _text(arrays.pop("name"), "name", path, 0) if "name" in arrays else (path.stem,)
    given = arrays.pop("expression_names", np.zeros(0, "U1"))
    names = _text(given, "expression_names", path, 1)
    _check_arrays(arrays, path)
    n_expression = arrays["expression"].shape[1] if "expression" in arrays else N_EXPRESSION
    if len(names) > n_expression:
        raise HeadStudioError(
            f"{path}: {len(names)} expression_names for {n_expression} expression coefficients."
        )
    frames = max(array.shape[0] for array in arrays.values())
    zeros = FlameParams.zeros(1, N_SHAPE, n_expression).expression.new_zeros
    widths = {"shape": N_SHAPE, "expression": n_expression}
    tensors = {
        key: torch.from_numpy(np.ascontiguousarray(arrays[key], dtype=np.float32))
        if key in arrays
        else zeros(1, widths.get(key, 3))
        for key in _PARAMETERS
    }
    params = FlameParams(**tensors)
    assert params.batch_size == frames
    return Motion(params, float(fps.reshape(())), name, names)


def save_motion(path: str | Path, motion: Motion) -> None:
    """Write a motion file, in one piece or not at all; the same motion gives the same bytes.

    Parameters that are zero throughout are left out.

    Raises:
        HeadStudioError: if the name does not end in ``.npz``, the place cannot be written to, or
            the motion has more frames than `load_motion` reads.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise HeadStudioError(f"cannot save a motion as {path}; its name must end in .npz.")
    check_count(len(motion), f"motion {motion.name!r} has")
    arrays: dict[str, np.ndarray] = {
        key: value.detach().cpu().numpy().astype(np.float32)
        for key, value in motion.params.items()
        # The expression stays in any case: it says how many frames there are.
        if key == "expression" or torch.any(value != 0)
    }
    arrays["expression"] = np.broadcast_to(
        arrays["expression"], (len(motion), arrays["expression"].shape[1])
    )
    arrays["fps"] = np.array(motion.fps, np.float64)  # 29.97 is another number in float32
    arrays["name"] = np.array(motion.name)
    if motion.expression_names:
        arrays["expression_names"] = np.array(motion.expression_names)
    write_npz(path, arrays)


def _check_keys(arrays: dict[str, np.ndarray], path: Path) -> None:
    for key in arrays:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise HeadStudioError(
                f"{path}: unknown key {key!r}; a motion file has {', '.join(KEYS)}.{hint}"
            )
    if "fps" not in arrays:
        raise HeadStudioError(f"{path} lacks fps, the number of frames a second.")
    if not any(key in arrays for key in _PARAMETERS):
        raise HeadStudioError(
            f"{path} has no FLAME parameter; give at least one of {', '.join(_PARAMETERS)}."
        )


def _check_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Shapes, types and values of the parameters."""
    rows = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    frames = max(rows)
    if frames > MAX_FRAMES:
        raise HeadStudioError(
            f"{path} has {frames} frames; at most {MAX_FRAMES} are read. Split it."
        )
    for key, array in arrays.items():
        width = {"shape": N_SHAPE}.get(key, 3)
        fits = array.ndim == 2 and array.shape[0] in (1, frames) and frames > 0
        if key == "expression":
            fits = fits and array.shape[1] > 0
        else:
            fits = fits and array.shape[1] == width
        if not fits:
            columns = "n" if key == "expression" else str(width)
            raise HeadStudioError(
                f"{path}: {key} has shape {list(array.shape)}; expected [T, {columns}] with the "
                f"same number of frames T for every key (the longest here has {frames}), or 1."
            )
        if array.dtype.kind not in "fiu":
            raise HeadStudioError(f"{path}: {key} holds {array.dtype}; expected numbers.")
        usable = np.abs(array) <= LARGEST  # what is no number is not, either
        if not usable.all():
            bad = int(np.argwhere(~usable)[0][0])
            raise HeadStudioError(
                f"{path}: {key} is not finite in frame {bad}, or larger than any motion."
            )


def _text(array: np.ndarray, key: str, path: Path, ndim: int) -> list[str]:
    if array.dtype.kind != "U" or array.ndim != ndim:
        raise HeadStudioError(f"{path}: {key} is {array.dtype} {list(array.shape)}; expected text.")
    try:
        return as_texts(array)
    except ValueError as error:
        raise HeadStudioError(f"{path}: {key} is damaged: {error}.") from error
