"""Numbers that are known to the host, on a device, brought there once."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """``like.new_tensor(values)``, made once for each device and type and then the same tensor.

    A tensor that is made from numbers is copied to a GPU from memory that is not pinned, and for
    that the host waits until the GPU has done all it was given: in a training step, for nothing.

    Args:
        values: K numbers.
        like: gives type and device.

    Returns:
        ``[K]``. Not to be written to.
    """
    return _constant(values, like.dtype, like.device)


class OnTheWay:
    """A copy to the host that goes on while the host does something else."""

    def __init__(self, tensor: Tensor) -> None:
        """Start copying."""
        self._copy, self._copied = tensor.detach(), None
        if tensor.device.type == "cuda":
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._copy.copy_(tensor.detach(), non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def arrived(self) -> Tensor:
        """The copy, on the CPU. Waits for what was launched before it was started, no more."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy


@lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is made in it cannot be used in training later
        return torch.tensor(values, dtype=dtype, device=device)
