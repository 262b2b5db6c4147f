"""How numba compiles and runs our kernels: cached on disk, as many threads as PyTorch uses."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numba
import numpy as np
import torch

# Division follows IEEE: Python's check for zero is a branch, which cannot be vectorised.
_OPTIONS: dict[str, Any] = {"error_model": "numpy"}

Array: TypeAlias = np.ndarray
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def helper(**options: Any) -> Decorator:
    """Compile a function that is only called by kernels.

    It is not cached on purpose. What numba loads from its cache is machine code, which cannot be
    inlined any more; a kernel compiled after that would call it for every pixel instead of being
    vectorised, and would be slower and round differently than one compiled from nothing.
    """
    return numba.njit(**_OPTIONS, **options)


def kernel(**options: Any) -> Decorator:
    """Compile a function that is called from Python, in parallel, and cache the machine code.

    numba keeps it beside the source, else in the user's cache folder (``NUMBA_CACHE_DIR``
    overrides both), in files named after the function. Where neither can be written it raises;
    then every process compiles anew. numba compares the kernel's own file only and would go on
    with constants and helpers as they once were in others; so the name tells the version of all.
    Files of earlier versions stay, a megabyte in all, and may be deleted.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ += f"_{_version()}"
        compile_ = partial(numba.njit, parallel=True, **_OPTIONS, **options)
        try:
            return compile_(cache=True)(function)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            return compile_()(function)

    return decorate


@cache
def _version() -> str:
    """Of the renderer's sources: what is compiled into a kernel may come from any of them."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


_running = threading.Lock()


def run(function: Callable[..., Any], *args: Any, chunk: int = 0) -> Any:
    """Call a parallel kernel with ``torch.get_num_threads()`` threads.

    Args:
        function: what ``kernel`` made.
        *args: its arguments.
        chunk: iterations that a thread takes at a time; 0 divides them evenly beforehand.

    One call at a time: numba's fallback threading layer may not be entered twice at once, and a
    viewer renders from several threads. The results do not depend on the number of threads.
    """
    wanted = torch.get_num_threads()
    with _running:
        before = numba.get_num_threads()
        limit = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at run time
        numba.set_num_threads(max(1, min(wanted, limit)))
        try:
            with numba.parallel_chunksize(chunk):
                return function(*args)
        finally:
            numba.set_num_threads(before)
            # Starting its threads, numba sets OpenMP's number of threads, which is PyTorch's too.
            if torch.get_num_threads() != wanted:
                torch.set_num_threads(wanted)
