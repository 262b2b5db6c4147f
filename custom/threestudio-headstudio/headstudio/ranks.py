"""What the processes of one run, each on a GPU of its own, have to agree on.

Each renders other views of the same splats. Everything by which splats change has therefore to be
the same number in all processes: gradients, what density control gathers, whether a step counts.
In a run of one process these functions do nothing. All processes must call them in the same order,
or they wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn


def several() -> bool:
    """Whether other processes belong to this run."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def is_first() -> bool:
    """Whether this is the process that writes what is written once."""
    return not several() or distributed.get_rank() == 0


def added_up(value: Tensor) -> Tensor:
    """The sum over all processes."""
    return _reduced(value, distributed.ReduceOp.SUM) if several() else value


def largest(value: Tensor) -> Tensor:
    """The elementwise maximum over all processes."""
    return _reduced(value, distributed.ReduceOp.MAX) if several() else value


def of_the_first(value: Tensor) -> Tensor:
    """What the first process has, in all of them; shape and type must be the same everywhere."""
    if not several():
        return value
    result = value.detach().clone(memory_format=torch.contiguous_format)
    distributed.broadcast(result, src=0)
    return result


def is_the_same(number: int, device: torch.device) -> bool:
    """Whether all processes have this number."""
    if not several():
        return True
    ends = torch.tensor([number, -number], device=device)
    distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    return bool(ends[0] == -ends[1])


def gathered(value: Any) -> list[Any]:
    """What each process has, in all of them. It is pickled: tensors should be on the CPU."""
    if not several():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every parameter the mean of all processes' gradients.

    As each process's loss is a mean over its views, that is the gradient of the mean over all.
    One without a gradient counts as zero: in another process it may have one.
    """
    if not several():
        return
    gradients: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            key = (parameter.grad.dtype, parameter.grad.device)
            gradients.setdefault(key, []).append(parameter.grad)
    for alike in gradients.values():
        together = torch.cat([gradient.reshape(-1) for gradient in alike])
        distributed.all_reduce(together)
        together /= distributed.get_world_size()
        parts = together.split([gradient.numel() for gradient in alike])
        for gradient, mean in zip(alike, parts, strict=True):
            gradient.copy_(mean.view_as(gradient))


def _reduced(value: Tensor, operation: Any) -> Tensor:
    result = value.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(result, operation)
    return result
