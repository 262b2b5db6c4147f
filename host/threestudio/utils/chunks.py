"""Doing in parts what is too large to be done at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def chunk_batch(func: Callable, chunk_size: int, *args: Any, **kwargs: Any) -> Any:
    """Call a function on slices of its tensor arguments' first dimension, and join the results.

    ``func`` returns a tensor, or a tuple, list or dict of tensors and Nones, or None.
    """
    values = [*args, *kwargs.values()]
    sizes = [value.shape[0] for value in values if isinstance(value, Tensor)]
    if chunk_size <= 0:
        return func(*args, **kwargs)
    if not sizes:
        raise ValueError("chunk_batch needs a tensor among the arguments")

    def part(value: Any, start: int) -> Any:
        return value[start : start + chunk_size] if isinstance(value, Tensor) else value

    results = [
        func(*(part(a, i) for a in args), **{k: part(a, i) for k, a in kwargs.items()})
        for i in range(0, max(1, sizes[0]), chunk_size)
    ]
    return _join([result for result in results if result is not None])


def _join(results: list[Any]) -> Any:
    if not results:
        return None
    first = results[0]
    if isinstance(first, Tensor):
        return torch.cat(results if torch.is_grad_enabled() else [r.detach() for r in results])
    if isinstance(first, dict):
        return {k: _join([r[k] for r in results if r[k] is not None]) for k in first}
    if isinstance(first, (tuple, list)):
        return type(first)(
            _join([v for v in c if v is not None]) for c in zip(*results, strict=True)
        )
    raise TypeError(f"chunk_batch joins tensors, tuples, lists and dicts, not {type(first)}")
