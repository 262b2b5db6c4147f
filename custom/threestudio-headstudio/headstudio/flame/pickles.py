"""FLAME's ``.pkl`` files without chumpy and without trusting them.

The official files are Python 2 pickles of a dictionary whose values are numpy arrays, scipy sparse
matrices and ``chumpy`` expressions. Here a pickle never calls anything: every global it may name
resolves to an inert record class that only keeps its arguments and state, and any other global is
refused by name. The arrays are rebuilt from the records afterwards, with checked types and sizes.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import MAX_BYTES, require_file


class _Record:
    """What a global in the pickle becomes: it remembers how it was built and does nothing.

    All records define ``__setstate__``, also seen from the class object, so a BUILD instruction
    aimed at the class fails instead of changing it.
    """

    kind: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _Record:
        record = super().__new__(cls)
        record.args = args
        record.state = None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _records() -> dict[tuple[str, str], type[_Record]]:
    """The exact globals a FLAME pickle may name, each with its record class."""
    numpy_core = ("numpy.core", "numpy._core")
    formats = ("csc", "csr", "coo")
    kinds: dict[str, list[tuple[str, str]]] = {
        "array": [(f"{core}.multiarray", "_reconstruct") for core in numpy_core],
        "frombuffer": [(f"{core}.numeric", "_frombuffer") for core in numpy_core],
        "scalar": [(f"{core}.multiarray", "scalar") for core in numpy_core],
        "ndarray": [("numpy", "ndarray")],
        "dtype": [("numpy", "dtype")],
        "bytes": [("_codecs", "encode")],
        "object": [("__builtin__", "object"), ("builtins", "object")],
        "set": [("__builtin__", "set"), ("builtins", "set")],
        "instance": [("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")],
        "ch": [("chumpy.ch", "Ch"), ("chumpy", "Ch")],
        "select": [("chumpy.reordering", "Select")],
    }
    for fmt in formats:
        kinds[fmt] = [
            (f"scipy.sparse.{module}", f"{fmt}_{container}")
            for module in (fmt, f"_{fmt}")
            for container in ("matrix", "array")
        ]
    return {
        key: type(f"_{kind.capitalize()}Record", (_Record,), {"kind": kind})
        for kind, keys in kinds.items()
        for key in keys
    }


_ALLOWED = _records()


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Builds records only.

    The standard library's Python implementation, not the C one: its memo is a dictionary and not a
    table as long as the highest slot, with which six bytes can take gigabytes. A FLAME file has a
    few hundred instructions, so it is as fast.
    """

    def find_class(self, module: str, name: str) -> type[_Record]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise HeadStudioError(
                f"the pickle asks for {module}.{name}, which a FLAME file has no use for. "
                "Nothing was run. Do not open this file with other programs; take the model from "
                "https://flame.is.tue.mpg.de."
            ) from None


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
    content = path.read_bytes()
    try:
        root = _Unpickler(io.BytesIO(content), fix_imports=False, encoding="latin1").load()
    except HeadStudioError as error:
        raise HeadStudioError(f"{path}: {error}") from None
    except (
        pickle.UnpicklingError,
        struct.error,
        AssertionError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
        ImportError,
    ) as error:
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
            except (TypeError, ValueError, LookupError, AttributeError) as error:
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
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError("a list of something other than numbers")
        return array
    kind, args, state = _unwrap(value)
    if kind == "array":
        _, shape, dtype, fortran, data = state
        return _from_bytes(data, dtype, shape, "F" if fortran else "C")
    if kind == "frombuffer":
        data, dtype, shape, order = args
        return _from_bytes(data, dtype, shape, order)
    if kind == "scalar":
        return _from_bytes(args[1], args[0], (), "C")
    if kind in ("csc", "csr", "coo"):
        return _dense(kind, state, depth)
    if kind == "ch":
        return _array(state["x"], depth - 1)
    if kind == "select":
        # A chumpy selection: the flattened operand at the given places, then reshaped.
        picked = _array(state["a"], depth - 1).ravel()[_array(state["idxs"], depth - 1).ravel()]
        shape = state.get("preferred_shape")
        return picked if shape is None else picked.reshape(_shape(shape, picked.size))
    raise TypeError(f"a value of kind {kind!r}")


def _unwrap(value: Any) -> tuple[str, tuple[Any, ...], Any]:
    """Kind, arguments and state of a record, seeing through Python 2's ``_reconstructor``."""
    if not isinstance(value, _Record):
        raise TypeError(f"a value of type {type(value).__name__}")
    if value.kind == "instance":
        return value.args[0].kind, (), value.state
    return value.kind, value.args, value.state


def _dense(kind: str, state: dict[str, Any], depth: int) -> np.ndarray:
    """A scipy sparse matrix, as an array; the dense size is checked first."""
    shape = _shape(state["_shape"] if "_shape" in state else state["shape"])
    data = _array(state["data"], depth - 1)
    if kind == "coo":
        if "coords" in state:
            row, column = (_array(index, depth - 1) for index in state["coords"])
        else:
            row, column = _array(state["row"], depth - 1), _array(state["col"], depth - 1)
        return sparse.coo_matrix((data, (row, column)), shape=shape).toarray()
    container = sparse.csc_matrix if kind == "csc" else sparse.csr_matrix
    indices, indptr = (_array(state[name], depth - 1) for name in ("indices", "indptr"))
    matrix = container((data, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)
    return matrix.toarray()


_DTYPE = re.compile(r"[<>|=]?([biuf][1248])")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """A numeric array from raw bytes, whose count must be what shape and dtype announce."""
    kind, args, state = _unwrap(dtype)
    code = args[0].decode("ascii") if isinstance(args[0], bytes) else args[0]
    match = _DTYPE.fullmatch(code)
    if kind != "dtype" or match is None:
        raise TypeError(f"elements of type {code!r}")
    byte_order = state[1] if state is not None else code[0]
    if isinstance(byte_order, bytes):
        byte_order = byte_order.decode("ascii")
    element = np.dtype((">" if byte_order == ">" else "<") + match.group(1))
    raw = _bytes(data)
    shape = _shape(shape, len(raw) // element.itemsize)
    if math.prod(shape) * element.itemsize != len(raw):
        raise ValueError(f"{len(raw)} bytes for shape {shape} of {element}")
    array = np.frombuffer(raw, dtype=element).reshape(shape, order="F" if order == "F" else "C")
    return array.astype(element.newbyteorder("="))


def _bytes(data: Any) -> bytes:
    """Raw bytes: Python 2 strings arrive as latin-1 text, old protocols wrap them in a codec."""
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    if isinstance(data, str):
        return data.encode("latin1")
    kind, args, _ = _unwrap(data)
    if kind == "bytes" and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
        return args[0].encode("latin1")
    raise TypeError("array data that is not bytes")


def _shape(shape: Any, size: int | None = None) -> tuple[int, ...]:
    """A tuple of non-negative integers whose product is ``size`` or at least affordable."""
    result = tuple(int(n) for n in shape)
    count = math.prod(result)
    if min(result, default=0) < 0 or count * 8 > MAX_BYTES or (size is not None and count != size):
        raise ValueError(f"shape {result}")
    return result
