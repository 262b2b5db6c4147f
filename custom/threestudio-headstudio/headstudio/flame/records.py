"""Pickles that strangers made, as inert records: nothing in them is ever called.

Every global that a pickle may name resolves to a record class that keeps its arguments and state
and does nothing; any other global is refused by name. Arrays are rebuilt from the records
afterwards, with checked types and with sizes known before memory is taken.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import MAX_BYTES

MAX_LISTED = 1 << 23
"""Numbers in nested lists, and in what a few bytes stand for, that are made into one array."""

Global = tuple[str, str]
"""Module and name of what a pickle asks for."""


class Record:
    """What a global in the pickle becomes: it remembers how it was built and does nothing.

    All records define ``__setstate__``, also seen from the class object, so a BUILD instruction
    aimed at the class fails instead of changing it.
    """

    kind: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any
    items: list[tuple[Any, Any]]

    def __new__(cls, *args: Any) -> Record:
        record = super().__new__(cls)
        record.args = args
        record.state = None
        record.items = []
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        # What the SETITEMS instruction does to an OrderedDict.
        self.items.append((key, value))


def record_types(kinds: Mapping[str, Iterable[Global]]) -> dict[Global, type[Record]]:
    """A record class for each global; ``kinds`` groups the globals that mean the same."""
    return {
        key: type(f"_{kind.capitalize()}Record", (Record,), {"kind": kind})
        for kind, keys in kinds.items()
        for key in keys
    }


_CORES = ("numpy.core", "numpy._core")
NUMPY_KINDS: dict[str, list[Global]] = {
    "array": [(f"{core}.multiarray", "_reconstruct") for core in _CORES],
    "frombuffer": [(f"{core}.numeric", "_frombuffer") for core in _CORES],
    "scalar": [(f"{core}.multiarray", "scalar") for core in _CORES],
    "ndarray": [("numpy", "ndarray")],
    "dtype": [("numpy", "dtype")],
    "bytes": [("_codecs", "encode")],
    "nothing": [("__builtin__", "bytes"), ("builtins", "bytes")],  # empty, before protocol 3
    "object": [("__builtin__", "object"), ("builtins", "object")],
    "set": [("__builtin__", "set"), ("builtins", "set")],
    "instance": [("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")],
}
"""What numpy arrays are pickled with, by Python 2 and 3 and any numpy."""


class RecordUnpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Builds records only.

    The standard library's Python implementation, not the C one: its memo is a dictionary and not a
    table as long as the highest slot, with which six bytes can take gigabytes. The files read here
    have few instructions, so it is as fast.

    Args:
        stream: the pickle; reading stops behind its last instruction.
        allowed: the globals it may name.
        what: whose files these are ("a FLAME file"), for messages.
        advice: what to do about one that names another global.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(
        self, stream: io.BytesIO, allowed: Mapping[Global, type[Record]], what: str, advice: str
    ) -> None:
        super().__init__(stream, fix_imports=False, encoding="latin1")
        self._stream, self._allowed, self._what, self._advice = stream, allowed, what, advice

    def find_class(self, module: str, name: str) -> type[Record]:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise HeadStudioError(
                f"the pickle asks for {module}.{name}, which {self._what} has no use for. "
                f"Nothing was run. Do not open this file with other programs; {self._advice}"
            ) from None

    def load_bytearray8(self) -> None:
        # The only instruction for which the library takes memory before it looks for the data.
        read: Callable[[int], bytes] = vars(self)["read"]
        (length,) = struct.unpack("<Q", read(8))
        if length > len(self._stream.getbuffer()):
            raise pickle.UnpicklingError(f"{length} bytes are announced, which are not there")
        vars(self)["append"](bytearray(read(length)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


DAMAGE = (
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
    RecursionError,
    ImportError,
)
"""What unpickling and rebuilding raise for damaged content."""


def rebuild_array(value: Any) -> np.ndarray:
    """An array from a numpy record, a number, or nested lists of numbers.

    Raises:
        TypeError, ValueError, LookupError, AttributeError: anything else, or contradictory sizes.
    """
    if isinstance(value, (bool, int, float, list, tuple)):
        _affordable(value)
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError("a list of something other than numbers")
        return array
    kind, args, state = unwrap(value)
    if kind == "array":
        _, shape, dtype, fortran, data = state
        return from_bytes(data, dtype, shape, "F" if fortran else "C")
    if kind == "frombuffer":
        data, dtype, shape, order = args
        return from_bytes(data, dtype, shape, order)
    if kind == "scalar":
        return from_bytes(args[1], args[0], (), "C")
    raise TypeError(f"a value of kind {kind!r}")


def unwrap(value: Any) -> tuple[str, tuple[Any, ...], Any]:
    """Kind, arguments and state of a record, seeing through Python 2's ``_reconstructor``."""
    if not isinstance(value, Record):
        raise TypeError(f"a value of type {type(value).__name__}")
    if value.kind == "instance":
        return value.args[0].kind, (), value.state
    return value.kind, value.args, value.state


_DTYPE = re.compile(r"[<>|=]?([biuf][1248])")


def from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """A numeric array from raw bytes, whose count must be what shape and dtype announce."""
    kind, args, state = unwrap(dtype)
    code = args[0].decode("ascii") if isinstance(args[0], bytes) else args[0]
    match = _DTYPE.fullmatch(code)
    if kind != "dtype" or match is None:
        raise TypeError(f"elements of type {code!r}")
    byte_order = state[1] if state is not None else code[0]
    if isinstance(byte_order, bytes):
        byte_order = byte_order.decode("ascii")
    element = np.dtype((">" if byte_order == ">" else "<") + match.group(1))
    raw = raw_bytes(data)
    shape = checked_shape(shape, len(raw) // element.itemsize)
    if math.prod(shape) * element.itemsize != len(raw):
        raise ValueError(f"{len(raw)} bytes for shape {shape} of {element}")
    array = np.frombuffer(raw, dtype=element).reshape(shape, order="F" if order == "F" else "C")
    return array.astype(element.newbyteorder("="))


def raw_bytes(data: Any) -> bytes:
    """Raw bytes: Python 2 strings arrive as latin-1 text, old protocols wrap them in a codec."""
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    if isinstance(data, str):
        return data.encode("latin1")
    kind, args, _ = unwrap(data)
    if kind == "nothing" and not args:
        return b""
    if kind == "bytes" and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
        return args[0].encode("latin1")
    raise TypeError("array data that is not bytes")


def checked_shape(shape: Any, size: int | None = None) -> tuple[int, ...]:
    """A tuple of non-negative integers whose product is ``size`` or at least affordable."""
    result = tuple(int(n) for n in shape)
    count = math.prod(result)
    if min(result, default=0) < 0 or count * 8 > MAX_BYTES or (size is not None and count != size):
        raise ValueError(f"shape {result}")
    return result


def _affordable(value: Any) -> None:
    """Refuse nested lists of more numbers than are read: a few lists that hold each other many
    times over are billions of them."""
    if _count(value, {}, 0) > MAX_LISTED:
        raise ValueError("a list of more numbers than are read")


def _count(value: Any, known: dict[int, int], depth: int) -> int:
    """The numbers in nested lists, each list being counted once however often it occurs."""
    if not isinstance(value, (list, tuple)):
        return 1
    if depth > 32:  # more dimensions than numpy has
        raise ValueError("lists nested too deeply")
    if id(value) not in known:
        known[id(value)] = sum(_count(item, known, depth + 1) for item in value)
    return known[id(value)]
