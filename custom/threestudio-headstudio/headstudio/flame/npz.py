"""Reading ``.npz`` files that strangers made: nothing is executed, sizes are known before memory
is taken. And writing our own."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write

MAX_BYTES = 1 << 30
"""Largest sum of array sizes that is read from one file (a FLAME model takes 55 MB)."""

ALLOWANCE = 64 << 20
"""Bytes that a file may expand to however small it is; see `largest`."""

ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    OverflowError,  # a size or a time that no integer of the machine holds
    RuntimeError,  # zipfile's word for an encrypted member; includes NotImplementedError
)
"""What reading a damaged zip file of arrays raises."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = "biufcUS"
_MAX_HEADER = 4096
_HEADER = re.compile(
    r"\{\s*'descr'\s*:\s*'([<>|=]?[a-zA-Z?]\d{0,9})'\s*,\s*'fortran_order'\s*:\s*(?:True|False)"
    r"\s*,\s*'shape'\s*:\s*\(\s*((?:\d{1,20}L?\s*,\s*){0,32}(?:\d{1,20}L?\s*)?)\)\s*,?\s*\}\s*",
    re.ASCII,
)


def largest(file_size: int, max_bytes: int) -> int:
    """How many bytes the content of a compressed file may take.

    Ten times the file and 64 MiB, at most ``max_bytes``: numbers hardly compress, and what expands
    a thousandfold was made to fill somebody's memory.
    """
    return min(max_bytes, 10 * file_size + ALLOWANCE)


def require_file(path: str | Path, what: str) -> Path:
    """Return ``path`` if it is a file that can be opened.

    Raises:
        HeadStudioError: if it is missing, a folder or not to be read; ``what`` names what was being
            looked for.
    """
    path = Path(path)
    with reading(path, what):
        if path.is_dir():
            raise HeadStudioError(f"{path} is a folder; expected {what}.")
        if not path.is_file():
            raise HeadStudioError(f"{path} does not exist; expected {what}.")
        with path.open("rb"):
            pass
    return path


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Looks at files in a ``with`` block, and says it in a sentence where that is not allowed.

    Raises:
        HeadStudioError: in place of an OSError; names the file, or else ``path``.
    """
    try:
        yield
    except OSError as error:
        raise HeadStudioError(
            f"{error.filename or path} cannot be opened ({error.strerror}); expected {what} that "
            "you may read. Change its permissions, or give another."
        ) from error


def read_npz(
    path: str | Path,
    what: str = "an .npz file",
    wanted: Iterable[str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> dict[str, np.ndarray]:
    """Read arrays from an ``.npz`` file, never unpickling.

    Args:
        path: the file.
        what: what the file should be, for messages ("a motion file").
        wanted: names of the arrays to read if present; ``None`` reads all. Others are not looked
            at, so a stray object array in a foreign file does no harm.
        max_bytes: refuse files whose wanted arrays claim more than this, uncompressed.

    Returns:
        The arrays found, by name without the ``.npy`` ending.

    Raises:
        HeadStudioError: missing or damaged file, an object array, or a size over the limit.
    """
    path = require_file(path, what)
    names = None if wanted is None else set(wanted)
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                (info, info.filename[: -len(".npy")])
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            ]
            members = [(info, name) for info, name in members if names is None or name in names]
            total = sum(info.file_size for info, _ in members)
            limit = largest(path.stat().st_size, max_bytes)
            if total > limit:
                raise HeadStudioError(
                    f"{path} claims {total / 2**20:.0f} MiB of arrays; at most "
                    f"{limit / 2**20:.0f} MiB are read from a file of its size. It is not {what}."
                )
            for info, name in members:
                if info.compress_type not in _METHODS:
                    raise ValueError(
                        f"array {name!r} is compressed in a way that .npz files are not"
                    )
                _check_header(archive, info, name, path, what)
                with archive.open(info) as stream:
                    arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    except HeadStudioError:
        raise
    except ZIP_DAMAGE as error:
        raise HeadStudioError(
            f"{path} cannot be read as {what} ({error}). It is damaged or not an .npz file; "
            "get it again."
        ) from error
    return arrays


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of numbers and texts, in one piece or not at all; the same give the same bytes.

    Raises:
        HeadStudioError: as `headstudio.paths.atomic_write`.
    """
    with atomic_write(path) as temporary:
        # Without allow_pickle=False: numpy before 2 would write it as an array of that name.
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def _check_header(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, path: Path, what: str
) -> None:
    """Refuse an array whose header is not a plain numeric array filling its zip member exactly."""
    with archive.open(info) as stream:
        shape, dtype = array_header(stream)
        start = stream.tell()
    if dtype.hasobject:
        raise HeadStudioError(
            f"{path}: array {name!r} holds Python objects, which can run code when they are read; "
            f"{what} holds plain numbers and text. Save it again without objects."
        )
    check_sizes(shape, dtype, info.file_size - start, f"array {name!r}")


def array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the header of a ``.npy`` file announces; reads up to its end.

    Not by numpy, which has Python parse the header as an expression: that raises a dozen different
    errors, and takes seconds for some. Of headers there is one form that everybody writes.

    Raises:
        ValueError: a header that is damaged, or none.
    """
    start = stream.read(8)
    if len(start) < 8 or start[:6] != np.lib.format.MAGIC_PREFIX:
        raise ValueError("it does not begin as .npy files do")
    if start[6:] not in (b"\1\0", b"\2\0"):
        raise ValueError(f".npy version {start[6]}.{start[7]} is not known")
    field = struct.Struct("<H" if start[6] == 1 else "<I")
    (length,) = field.unpack(stream.read(field.size).ljust(field.size, b"\xff"))
    header = stream.read(min(length, _MAX_HEADER)).decode("latin1")
    match = _HEADER.fullmatch(header)
    if len(header) != length or match is None:
        raise ValueError("its header is damaged, or of a table with named columns")
    try:
        dtype = np.dtype(match[1])
    except TypeError as error:
        raise ValueError(f"its elements are of an unknown type {match[1]!r}") from error
    return tuple(int(number) for number in re.findall(r"\d+", match[2])), dtype


def check_sizes(shape: tuple[int, ...], dtype: np.dtype, n_bytes: int, what: str) -> None:
    """Whether a header's promise is kept by the bytes behind it.

    Raises:
        ValueError: elements of no size or no plain kind, sizes that numpy cannot hold, or another
            number of bytes.
    """
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise ValueError(f"{what} has elements of type {dtype.str!r}")
    plain = all(type(n) is int and 0 <= n < 2**62 for n in shape)
    if not plain or len(shape) > 32 or math.prod(shape) * dtype.itemsize != n_bytes:
        raise ValueError(
            f"{what}: {str(list(shape))[:80]} of {dtype} are announced, {n_bytes} bytes are there"
        )


def as_texts(array: np.ndarray) -> list[str]:
    """The texts of an array of kind U, as a flat list.

    Raises:
        ValueError: code points that do not exist, which Python's own conversion stumbles over.
    """
    points = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    order = array.dtype.str[0] if array.dtype.str[0] in "<>" else "<"
    codes = points.view(f"{order}u4")
    if codes.size and (codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any()):
        raise ValueError("a text has characters that do not exist")
    return [str(text) for text in array.reshape(-1)]
