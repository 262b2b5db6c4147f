"""Steps whose numbers are not finite change nothing, and say so.

A NaN in one gradient is a NaN in Adam's moments, in the splat at the next step, in every picture
after that: a run of hours is lost, and nothing is said. So the pictures, every term of the loss,
every gradient and every updated parameter are looked at in the step they are made in. If one of
them is not finite, parameters and the optimiser's state are put back to what they were.

Whether to put them back is decided on the device (``torch.where`` on a flag), so a GPU is not
waited for. The counts that name the culprit are copied to the host meanwhile and read when the next
step has its gradients: until then the GPU was busy anyway. What is on the host in any case, the
step counters of Adam on the CPU, is set back then, and state that the optimiser made in the step is
thrown away, for it to be made anew. Only when something was wrong is more looked at.

Where several processes train the same splats, what one of them finds all act on, and say: each
count is the largest that any of them has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstudio import ranks
from headstudio.errors import HeadStudioError


@dataclass
class _Held:
    """A tensor of a parameter's or its optimiser's, and what it was before the update."""

    tensor: Tensor
    before: Tensor


@dataclass
class _Findings:
    """How much of what was not finite in a step."""

    names: list[str]
    sizes: list[int]
    counts: Tensor
    copied: torch.cuda.Event | None


class FiniteGuard:
    """Looks at one optimiser's steps. For each: `watch`, `before_update`, `after_update`.

    Attributes:
        skipped: steps that changed nothing, in the whole run.
        in_a_row: those of them since the last one that did.
    """

    def __init__(self, max_in_a_row: int) -> None:
        """
        Args:
            max_in_a_row: so many skipped steps in a row end the run; 0 is no limit.
        """
        self.max_in_a_row = max_in_a_row
        self.skipped = 0
        self.in_a_row = 0
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._counts: list[Tensor] = []
        self._held: list[_Held] = []
        self._parameters: dict[str, nn.Parameter] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._known_state: set[tuple[nn.Parameter, str]] = set()
        self._new_state: list[tuple[nn.Parameter, str]] = []
        self._on_host: list[_Held] = []
        self._findings: _Findings | None = None

    # ------------------------------------------------------------------ in a step

    def watch(self, name: str, value: Tensor) -> None:
        """Look at a tensor; ``name`` is what a message calls it."""
        self._add(name, value.numel(), (~value.detach().isfinite()).sum())

    def watch_count(self, name: str, count: Tensor | int) -> None:
        """Take in how many values somebody else found not to be finite."""
        # Zeros too: processes compare their counts in the order in which they were taken.
        self._add(name, 0, torch.as_tensor(count).detach())

    def before_update(
        self, optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
    ) -> None:
        """Look at the gradients, and keep what the update is about to change.

        Args:
            named: parameters by the names to call them by; those not in ``optimizer`` are left out.
        """
        learned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._parameters = {
            name: parameter
            for name, parameter in named.items()
            if id(parameter) in learned and parameter.grad is not None
        }
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None
            self._add_rows(f"the gradient of {name}", parameter.grad)
        self._optimizer = optimizer
        state = dict(self._state(optimizer))
        kept = [value for value in state.values() if isinstance(value, Tensor)]
        self._held = [
            _Held(tensor, tensor.detach().clone()) for tensor in [*self._parameters.values(), *kept]
        ]
        self._known_state = set(state)

    @property
    def broken(self) -> Tensor:
        """Whether anything looked at so far in this step, in any process, is not finite.

        A bool on the device. All processes have to ask.
        """
        return ranks.largest(_total(self._counts)) > 0

    @torch.no_grad()
    def after_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at what the update made of the parameters; put all back if anything is wrong."""
        if not self._held:
            return
        for name, parameter in self._parameters.items():
            self._add_rows(f"{name} after its update", parameter)
        device = next(iter(self._parameters.values())).device if self._parameters else None
        counts = ranks.largest(
            torch.stack([count.to(device, torch.int64) for count in self._counts])
        )
        broken = counts.sum() > 0
        # The optimiser makes its state in the first step, and not all of it begins as zeros.
        self._new_state = [key for key, _ in self._state(optimizer) if key not in self._known_state]
        for held in self._held:
            if held.tensor.device == broken.device:
                held.tensor.copy_(torch.where(broken, held.before, held.tensor))
        self._on_host = [held for held in self._held if held.tensor.device != broken.device]
        self._held = []
        self._findings = _Findings(self._names, self._sizes, *_copy_to_host(counts))
        self._names, self._sizes, self._counts = [], [], []

    # ------------------------------------------------------------------ between steps

    def report(self) -> str | None:
        """Read what was found in the last step; None if all was well, or nothing is to be read.

        Returns:
            A sentence that names what was not finite, if the step was skipped.

        Raises:
            HeadStudioError: if there were too many such steps in a row, or if the parameters
                themselves are not finite, which no further step can repair.
        """
        step, self._findings = self._findings, None
        if step is None:
            return None
        if step.copied is not None:
            step.copied.synchronize()
        found = [
            _describe(name, count, size)
            for name, size, count in zip(step.names, step.sizes, step.counts.tolist(), strict=True)
            if count
        ]
        if not found:
            self.in_a_row = 0
            return None
        for held in self._on_host:
            held.tensor.copy_(held.before)
        self._forget_new_state()
        self.skipped += 1
        self.in_a_row += 1
        said = f"not finite: {', '.join(found)}"
        refuse_broken(self._parameters)
        if self.max_in_a_row and self.in_a_row >= self.max_in_a_row:
            raise HeadStudioError(
                f"{self.in_a_row} steps in a row were skipped because their numbers are not finite "
                f"(system.max_skipped_steps); in the last one, {said}. A smaller learning rate, "
                "another seed, or system.guidance.half_precision_weights=false may help."
            )
        return f"the step was skipped, {self.skipped} so far; {said}"

    # ------------------------------------------------------------------ inside

    def _add(self, name: str, size: int, count: Tensor) -> None:
        self._names.append(name)
        self._sizes.append(size)
        self._counts.append(count)

    def _add_rows(self, name: str, value: Tensor) -> None:
        self._add(name, _n_rows(value), _broken_rows(value))

    def _state(
        self, optimizer: torch.optim.Optimizer
    ) -> Iterator[tuple[tuple[nn.Parameter, str], Any]]:
        """What the optimiser keeps, by parameter and name."""
        for parameter in self._parameters.values():
            for name, value in optimizer.state.get(parameter, {}).items():
                yield (parameter, name), value

    def _forget_new_state(self) -> None:
        """Have the optimiser make anew what it made in the last step."""
        assert self._optimizer is not None
        for parameter, name in self._new_state:
            state = self._optimizer.state[parameter]
            state.pop(name, None)
            if not state:
                del self._optimizer.state[parameter]


def refuse_broken(named: Mapping[str, nn.Parameter]) -> None:
    """Refuse to train parameters that are not finite already; waits for the device.

    Raises:
        HeadStudioError: naming the first of them.
    """
    for name, parameter in named.items():
        rows = int(_broken_rows(parameter))
        if rows:
            raise HeadStudioError(
                f"{_describe(name, rows, _n_rows(parameter))} is not finite before the step "
                "begins: it came so from the checkpoint or the weights that the run started from. "
                "Start from another."
            )


def _n_rows(value: Tensor) -> int:
    return len(value) if value.ndim else 1


def _broken_rows(value: Tensor) -> Tensor:
    """How many rows, which are splats in most cases, have a value that is not finite."""
    broken = ~value.detach().isfinite()
    return (broken.flatten(1).any(-1) if broken.ndim > 1 else broken).sum()


def _total(counts: list[Tensor]) -> Tensor:
    device = max((count.device for count in counts), key=lambda d: d.type == "cuda")
    return torch.stack([count.to(device, torch.int64) for count in counts]).sum()


def _describe(name: str, count: int, size: int) -> str:
    return f"{name} ({count} of {size})" if size else f"{name} ({count})"


def _copy_to_host(counts: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start copying; the event says when it is done, None at once."""
    if counts.device.type != "cuda":
        return counts, None
    host = torch.empty(counts.shape, dtype=counts.dtype, pin_memory=True)
    host.copy_(counts, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(counts.device))
    return host, event
