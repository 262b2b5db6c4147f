"""``.npy`` files: plain arrays are read, pickled objects are left to the caller."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import array_header, check_sizes
from headstudio.motion.files import MAX_BYTES


def read_npy(path: Path) -> tuple[np.ndarray | None, int]:
    """A file's array, and where its data begin; None for the array if they are a pickle.

    Raises:
        HeadStudioError: a damaged file, or a header that announces other sizes than there are.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise HeadStudioError(
            f"{path} has {size / 2**20:.0f} MiB; at most {MAX_BYTES / 2**20:.0f} MiB are read. Cut "
            "it into pieces."
        )
    try:
        with path.open("rb") as stream:
            shape, dtype = array_header(stream)
            start = stream.tell()
            if dtype.hasobject:
                return None, start
            check_sizes(shape, dtype, size - start, "the array")
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False), start
    except (ValueError, EOFError, OSError) as error:
        raise HeadStudioError(
            f"{path} cannot be read as .npy ({error}). It is damaged or cut off; get it again."
        ) from error
