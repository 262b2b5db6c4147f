"""How numba compiles and runs our kernels: cached on disk, as many threads as PyTorch uses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba
import torch


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``numba.njit`` that caches compiled code where it can.

    numba keeps it beside the source, else in the user's cache folder (``NUMBA_CACHE_DIR``
    overrides both). Where neither can be written it raises; then every process compiles anew.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            return numba.njit(**options)(function)

    return decorate


_running = threading.Lock()


def run(function: Callable[..., Any], *args: Any, chunk: int = 0) -> Any:
    """Call a parallel kernel with ``torch.get_num_threads()`` threads.

    Args:
        function: a kernel compiled with ``parallel=True``.
        *args: its arguments.
        chunk: iterations that a thread takes at a time; 0 divides them evenly beforehand.

    One call at a time: numba's fallback threading layer may not be entered twice at once, and a
    viewer renders from several threads. The results do not depend on the number of threads.
    """
    threads = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    with _running:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            with numba.parallel_chunksize(chunk):
                return function(*args)
        finally:
            numba.set_num_threads(before)
