"""Reading ``.npz`` files that strangers made: nothing is executed, sizes are known before memory
is taken."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from headstudio.errors import HeadStudioError

MAX_BYTES = 1 << 30
"""Largest sum of array sizes that is read from one file (a FLAME model takes 55 MB)."""

ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    RuntimeError,  # zipfile's word for an encrypted member; includes NotImplementedError
)
"""What reading a damaged zip file of arrays raises."""


def require_file(path: str | Path, what: str) -> Path:
    """Return ``path`` if it is a file that can be opened.

    Raises:
        HeadStudioError: if it is missing or a folder; ``what`` names what was being looked for.
    """
    path = Path(path)
    if path.is_dir():
        raise HeadStudioError(f"{path} is a folder; expected {what}.")
    if not path.is_file():
        raise HeadStudioError(f"{path} does not exist; expected {what}.")
    return path


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
            if total > max_bytes:
                raise HeadStudioError(
                    f"{path} claims {total / 2**20:.0f} MiB of arrays; at most "
                    f"{max_bytes / 2**20:.0f} MiB are read. It is not {what}."
                )
            for info, name in members:
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


def _check_header(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, path: Path, what: str
) -> None:
    """Refuse an array whose header is not a plain numeric array filling its zip member exactly."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"array {name!r} has .npy version {version}")
        start = stream.tell()
    if dtype.hasobject:
        raise HeadStudioError(
            f"{path}: array {name!r} holds Python objects, which can run code when they are read; "
            f"{what} holds plain numbers and text. Save it again without objects."
        )
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(
            f"array {name!r} announces shape {shape} of {dtype} but its data has "
            f"{info.file_size - start} bytes"
        )
