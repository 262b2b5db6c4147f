"""Functions of tensors as CUDA graphs, one for each combination of shapes they are called with.

A graph reads its arguments from, and leaves its results in, memory of its own. The arguments are
copied there; the results are handed out as they are, and the next call overwrites them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 3
"""Calls before capturing, in which libraries choose their kernels."""


class Captured:
    """A function of tensors without gradients.

    Args:
        function: what is captured. It must not wait for the GPU, nor depend on values on it.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}
        self._pool: Any = None

    def __call__(self, *arguments: Tensor) -> Tensor:
        """``function(*arguments)``; overwritten by the next call."""
        key = _shapes(arguments)
        if key not in self._graphs:
            self._graphs[key] = self._capture(arguments)
        graph, inputs, result = self._graphs[key]
        for inside, outside in zip(inputs, arguments, strict=True):
            inside.copy_(outside)
        graph.replay()
        return result

    @torch.no_grad()
    def _capture(
        self, arguments: tuple[Tensor, ...]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        inputs = [argument.clone() for argument in arguments]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Never replayed at the same time, the graphs can share their memory. Other threads may use
        # the GPU meanwhile, as one that pins a batch's memory does.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = self._function(*inputs)
        self._pool = graph.pool()
        return graph, inputs, result


class CapturedWithGradient:
    """A function of one tensor that gradients flow through, to that tensor.

    Between a call and its backward pass there may be no second call.

    Args:
        function: as of :class:`Captured`.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        self._function = function
        self._graphs: dict[Hashable, Any] = {}

    def __call__(self, argument: Tensor) -> tuple[Tensor, ...]:
        """``function(argument)``; overwritten by the next call."""
        key = _shapes((argument,))
        if key not in self._graphs:
            sample = argument.detach().clone().requires_grad_()
            self._graphs[key] = torch.cuda.make_graphed_callables(self._function, (sample,))
        result: tuple[Tensor, ...] = self._graphs[key](argument)
        return result


def _shapes(arguments: tuple[Tensor, ...]) -> Hashable:
    return tuple((argument.shape, argument.stride(), argument.dtype) for argument in arguments)
