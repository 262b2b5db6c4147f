"""What ends a run that had begun well, in a sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import torch

# What a disk, or whoever looks after it, refuses. Other errors of the system are mistakes of ours.
DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.EEXIST,  # a file where a folder is to be
    errno.ESTALE,
}
GPU = re.compile("CUDA (driver )?error|CUDA-capable device|cuDNN error|CUBLAS_STATUS|HIP error")
LESS = "Smaller data.batch_size, data.height and data.width need less."


def explain(error: BaseException) -> str | None:
    """Say what happened, if it was the disk, the memory or the GPU; None if it was not.

    What is raised may come of something else: lightning, tidying up after a GPU is lost, asks the
    GPU again. So the errors that came before are looked at too, the first of them first.
    """
    for cause in reversed(list(_history(error))):
        if isinstance(cause, OSError) and cause.errno in DISK:
            name = f" {cause.filename}" if cause.filename else ""
            return f"the run cannot write{name}: {cause.strerror}. Make room, or move the run."
        if isinstance(cause, torch.OutOfMemoryError):
            return f"the GPU's memory is full: {str(cause).splitlines()[0]} {LESS}"
        if isinstance(cause, MemoryError):
            return f"the memory is full. {LESS}"
        if isinstance(cause, RuntimeError) and GPU.search(str(cause)):
            first = str(cause).splitlines()[0]
            return f"the GPU stopped working: {first}"
    return None


def _history(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, what that came of, and so on."""
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        here = here.__cause__ or here.__context__
