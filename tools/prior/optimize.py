"""Weights in half precision for speed, in full precision for learning, and averaged for keeping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tools.prior.settings import Phase

# Plain bf16 weights beat autocast here: under autocast every group norm of these narrow networks
# runs in float32, which doubles the bytes moved, and each weight is cast anew in every step.
WORKING_DTYPE = torch.bfloat16


@dataclass
class Progress:
    """How much of a phase is done; this is what a stopped run goes on from."""

    step: int = 0
    seconds: float = 0.0

    def fraction(self, phase: Phase) -> float:
        """Share of the phase's budget of minutes or steps, whichever is further, in 0..1."""
        shares = [self.seconds / max(60.0 * phase.minutes, 1e-6)]
        if phase.steps is not None:
            shares.append(self.step / max(phase.steps, 1))
        return min(max(shares), 1.0)


def learning_rate(phase: Phase, progress: Progress) -> float:
    """Linear warm-up by steps, then half a cosine down to 1 % at the end of the budget."""
    warmup = min(1.0, (progress.step + 1) / max(phase.warmup_steps, 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress.fraction(phase)))
    return phase.learning_rate * warmup * max(cosine, 0.01)


class Learner:
    """AdamW on float32 master weights for networks that compute in bfloat16.

    The optimiser sees float32 copies of the networks' parameters; after each step the copies are
    rounded back into the networks and into an exponential moving average, which is what is kept.
    """

    def __init__(self, modules: dict[str, nn.Module], phase: Phase, device: torch.device) -> None:
        """Move ``modules`` to ``device`` in the working precision, in place."""
        self.modules, self.phase = modules, phase
        for module in modules.values():
            module.to(device).train()
        names = [(m, n) for m, module in modules.items() for n, _ in module.named_parameters()]
        self.names = [f"{m}.{n}" for m, n in names]
        masters = [p.detach().float().clone() for m in modules.values() for p in m.parameters()]
        for module in modules.values():
            module.to(WORKING_DTYPE)
        self.working = [p for m in modules.values() for p in m.parameters()]
        self.master = [nn.Parameter(p) for p in masters]
        self.average = [p.detach().clone() for p in self.master]
        for p in self.master:
            p.grad = torch.zeros_like(p)
        # Biases and norms are not decayed.
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.master if p.ndim > 1], "weight_decay": 0.01},
                {"params": [p for p in self.master if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=phase.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )

    @torch.no_grad()
    def step(self, progress: Progress, max_norm: float = 1.0) -> Tensor:
        """Apply the gradients that lie on the working weights, and clear them.

        Returns:
            The norm of the gradients before clipping, a 0-d tensor on the device (not yet read).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.phase, progress)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.working]
        torch._foreach_copy_([p.grad for p in self.master], gradients)
        norm = nn.utils.clip_grad_norm_(self.master, max_norm, foreach=True)
        self.optimizer.step()
        masters = [p.detach() for p in self.master]
        torch._foreach_copy_([p.detach() for p in self.working], masters)
        decay = min(self.phase.ema_decay, (1 + progress.step) / (10 + progress.step))
        torch._foreach_lerp_(self.average, masters, 1.0 - decay)
        for p in self.working:
            p.grad = None
        return norm

    @torch.no_grad()
    def copy_average(self, modules: dict[str, nn.Module]) -> None:
        """Write the averaged weights into float32 networks of the same kinds."""
        targets = [p for name in self.modules for p in modules[name].parameters()]
        torch._foreach_copy_([p.detach() for p in targets], self.average)

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit."""
        return {
            "names": self.names,
            "master": [p.detach() for p in self.master],
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state_dict`.

        Raises:
            ValueError: if the state is of other networks.
        """
        if state["names"] != self.names:
            raise ValueError("the saved state is of networks with other parameters")
        masters = [p.detach() for p in self.master]
        torch._foreach_copy_(masters, [t.to(masters[0].device) for t in state["master"]])
        torch._foreach_copy_(self.average, [t.to(masters[0].device) for t in state["average"]])
        torch._foreach_copy_([p.detach() for p in self.working], masters)
        self.optimizer.load_state_dict(state["optimizer"])
