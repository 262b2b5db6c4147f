"""FLAME's ``.pkl`` files without chumpy and without trusting them.

The official files are Python 2 pickles of a dictionary whose values are numpy arrays, scipy sparse
matrices and ``chumpy`` expressions. Here a pickle never calls anything: every global it may name
resolves to an inert record class that only keeps its arguments and state, and any other global is
refused by name. The arrays are rebuilt from the records afterwards, with checked types and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import MAX_BYTES, require_file
from headstudio.flame.records import (
    DAMAGE,
    MAX_LISTED,
    NUMPY_KINDS,
    RecordUnpickler,
    checked_shape,
    rebuild_array,
    record_types,
    unwrap,
)

_ADVICE = "take the model from https://flame.is.tue.mpg.de."
_ALLOWED = record_types(
    {
        **NUMPY_KINDS,
        "ch": [("chumpy.ch", "Ch"), ("chumpy", "Ch")],
        "select": [("chumpy.reordering", "Select")],
        **{
            kind: [
                (f"scipy.sparse.{module}", f"{kind}_{container}")
                for module in (kind, f"_{kind}")
                for container in ("matrix", "array")
            ]
            for kind in ("csc", "csr", "coo")
        },
    }
)
"""The exact globals a FLAME pickle may name, each with its record class."""


def read_flame_pickle(path: str | Path, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """Read arrays from a FLAME 2017/2020/2023 ``.pkl``, executing nothing from it.

    Args:
        path: the pickle, of any protocol, from Python 2 or 3.
        wanted: names of the entries to read if present; sparse ones come back dense.

    Returns:
        The entries found, as numeric arrays.

    Raises:
        HeadStudioError: missing, damaged or oversized file, a global that is not on the list, or
            an entry that is not an array.
    """
    path = require_file(path, "a FLAME model")
    if path.stat().st_size > MAX_BYTES:
        raise HeadStudioError(
            f"{path} has {path.stat().st_size / 2**20:.0f} MiB; a FLAME model has about 50."
        )
    stream = BytesIO(path.read_bytes())
    try:
        root = RecordUnpickler(stream, _ALLOWED, "a FLAME file", _ADVICE).load()
    except HeadStudioError as error:
        raise HeadStudioError(f"{path}: {error}") from None
    except DAMAGE as error:
        raise HeadStudioError(
            f"{path} cannot be read as a pickle ({error}). It is damaged or something else; "
            "download it again from https://flame.is.tue.mpg.de."
        ) from error
    if not isinstance(root, dict):
        raise HeadStudioError(
            f"{path} holds a {type(root).__name__}; a FLAME model is a dictionary of arrays."
        )
    arrays = {}
    for key in wanted:
        if key in root:
            try:
                arrays[key] = _array(root[key])
            except DAMAGE as error:
                raise HeadStudioError(
                    f"{path}: entry {key!r} is not an array this reader knows ({error}). Take the "
                    "model as published at https://flame.is.tue.mpg.de."
                ) from error
    return arrays


def _array(value: Any, depth: int = 4) -> np.ndarray:
    """Rebuild one array from its record; ``depth`` bounds nested chumpy expressions."""
    if depth == 0:
        raise ValueError("expressions nested too deeply")
    if isinstance(value, (bool, int, float, list, tuple)):
        return rebuild_array(value)
    kind, _, state = unwrap(value)
    if kind in ("csc", "csr", "coo"):
        return _dense(kind, state, depth)
    if kind == "ch":
        return _array(state["x"], depth - 1)
    if kind == "select":
        # A chumpy selection: the flattened operand at the given places, then reshaped.
        picked = _array(state["a"], depth - 1).ravel()[_array(state["idxs"], depth - 1).ravel()]
        shape = state.get("preferred_shape")
        return picked if shape is None else picked.reshape(checked_shape(shape, picked.size))
    return rebuild_array(value)


def _dense(kind: str, state: dict[str, Any], depth: int) -> np.ndarray:
    """A scipy sparse matrix, as an array; the dense size is checked first.

    Not by scipy, whose compiled code writes outside of the array where indices and their types do
    not fit, whatever its own check of the format says.
    """
    shape = checked_shape(state["_shape"] if "_shape" in state else state["shape"])
    if len(shape) != 2 or math.prod(shape) > MAX_LISTED:
        raise ValueError(f"a sparse matrix of shape {shape}")
    data = _array(state["data"], depth - 1)
    if kind == "coo":
        names = state["coords"] if "coords" in state else (state["row"], state["col"])
        row, column = (_indices(_array(index, depth - 1)) for index in names)
    else:
        minor = _indices(_array(state["indices"], depth - 1))
        ends = _indices(_array(state["indptr"], depth - 1))
        major = shape[1] if kind == "csc" else shape[0]
        counts = np.diff(ends)
        if ends.size != major + 1 or ends[0] != 0 or (counts < 0).any() or ends[-1] != minor.size:
            raise ValueError("a sparse matrix whose parts do not fit")
        numbers = np.repeat(np.arange(major), counts)
        row, column = (minor, numbers) if kind == "csc" else (numbers, minor)
    if not data.shape == row.shape == column.shape:
        raise ValueError("a sparse matrix whose parts do not fit")
    for index, size in ((row, shape[0]), (column, shape[1])):
        if index.size and not (index.min() >= 0 and index.max() < size):
            raise ValueError(f"a sparse matrix with entries outside of its shape {shape}")
    dense = np.zeros(shape, data.dtype)
    np.add.at(dense, (row, column), data)
    return dense


def _indices(array: np.ndarray) -> np.ndarray:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"indices of a sparse matrix that are {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)
