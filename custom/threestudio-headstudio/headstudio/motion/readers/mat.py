"""MATLAB's ``.mat`` files, version 5, as far as they are arrays of numbers.

Not by ``scipy.io``, whose compiled reader ends the whole program at some damaged files. The format
is public: a header of 128 bytes, then elements, each a type, a size and its bytes; one that is
compressed holds another, and an array holds its flags, dimensions, name and numbers as elements.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import largest
from headstudio.motion.files import MAX_BYTES

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_NUMBERS[13] = "u8"
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800


def read_mat(path: Path, wanted: Container[str]) -> tuple[dict[str, np.ndarray], set[str]]:
    """The arrays of numbers that are wanted, and the names of all variables.

    Raises:
        HeadStudioError: a damaged or oversized file.
    """
    if path.stat().st_size > MAX_BYTES:
        raise HeadStudioError(f"{path} has {path.stat().st_size / 2**20:.0f} MiB; cut it up.")
    content = path.read_bytes()
    arrays: dict[str, np.ndarray] = {}
    names: set[str] = set()
    limit, taken = largest(len(content), MAX_BYTES), 0
    try:
        order = {b"IM": "<", b"MI": ">"}[content[126:128]]
        for kind, data in _elements(content[_HEADER:], order):
            if kind == _COMPRESSED:
                inflated = _inflate(data, limit - taken)
                taken += len(inflated)
                ((kind, data),) = _elements(inflated, order)
            if kind == _MATRIX:
                name, array = _matrix(data, order, wanted)
                names.add(name)
                if array is not None:
                    arrays[name] = array
    except (ValueError, LookupError, struct.error, zlib.error, StopIteration) as error:
        raise HeadStudioError(
            f"{path} cannot be read as .mat ({error}). It is damaged or cut off; get it again."
        ) from error
    return arrays, names


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of one element after another."""
    place = 0
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start = place + 8
        if kind >> 16:  # a small element keeps size, type and up to 4 bytes in one word each
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        data = content[start : start + size]
        if len(data) < size or (start == place + 4 and size > 4):
            raise ValueError(f"{size} bytes are announced, {len(data)} are there")
        yield kind, data
        place = (
            start + size
            if kind == _COMPRESSED
            else place + 8 * math.ceil((start - place + size) / 8)
        )


def _inflate(data: bytes, limit: int) -> bytes:
    # Counted first: a buffer that grows as it is filled takes its memory twice.
    stream, size, left = zlib.decompressobj(), 0, data
    while not stream.eof and (piece := stream.decompress(left, 1 << 20)):
        size, left = size + len(piece), stream.unconsumed_tail
        if size > limit:
            raise ValueError(f"more than {limit / 2**20:.0f} MiB are compressed in it")
    content = zlib.decompress(data, bufsize=max(size, 1))
    return content


def _matrix(data: bytes, order: str, wanted: Container[str]) -> tuple[str, np.ndarray | None]:
    """Name of a variable, and its numbers if it is an array of real ones and wanted."""
    elements = _elements(data, order)
    (_, flags), (_, dimensions), (_, label) = next(elements), next(elements), next(elements)
    name = label.decode("latin1")
    (flag,) = struct.unpack_from(f"{order}I", flags)
    if name not in wanted or flag & 0xFF not in _NUMERIC_CLASSES or flag & _COMPLEX:
        return name, None
    kind, numbers = next(elements)
    shape = np.frombuffer(dimensions, f"{order}i4").tolist()
    array = np.frombuffer(numbers, f"{order}{_NUMBERS[kind]}")
    if min(shape, default=-1) < 0 or math.prod(shape) != array.size:
        raise ValueError(f"{array.size} numbers for an array of shape {shape}")
    return name, array.reshape(shape, order="F")
