"""How numba compiles and runs our kernels: cached on disk, as many threads as PyTorch uses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
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
    overrides both). Where neither can be written it raises; then every process compiles anew.
    It looks at the kernel's own file only: after editing a constant or a helper in another file,
    touch the kernel's.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        compile_ = partial(numba.njit, parallel=True, **_OPTIONS, **options)
        try:
            return compile_(cache=True)(function)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            return compile_()(function)

    return decorate


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
