"""Where the embedded defaults lie, and how a file is written without leaving half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstudio.errors import HeadStudioError

REPOSITORY = Path(__file__).resolve().parents[3]


def find_asset(relative: str | Path) -> Path:
    """Locate a file or folder under ``load/``.

    Args:
        relative: path inside ``load/``, such as ``"flame/open_head.npz"``.

    Returns:
        The first that exists of ``<cwd>/load/<relative>`` and the same in this repository.

    Raises:
        HeadStudioError: if neither exists; the message lists both.
    """
    tried = [Path.cwd() / "load" / relative, REPOSITORY / "load" / relative]
    for path in tried:
        if path.exists():
            return path
    places = "\n  ".join(str(path) for path in dict.fromkeys(tried))
    raise HeadStudioError(
        f"load/{relative} was not found; looked at\n  {places}\n"
        "Run from the repository's root, or give the path of the file."
    )


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The temporary name keeps the suffix, so writers that choose a format by it work. On an error
    the temporary file is removed and whatever stood at ``path`` is untouched.

    Raises:
        HeadStudioError: if the folder cannot be created or written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:40]}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise HeadStudioError(
            f"cannot write {path}: {error.strerror}. Choose a folder that can be written to."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to their owner; a result is as readable as any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
