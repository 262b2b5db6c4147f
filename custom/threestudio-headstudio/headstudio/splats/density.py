"""Density control: where splats are added, and which are removed.

The schedule and the thresholds are HeadStudio's; cloning, splitting and removing are gsplat's
strategy operations on the triangle-local parameters, with the triangle index in their ``state``.
"""

# No `from __future__ import annotations`: OmegaConf reads the Config's annotations as types.

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy import ops
from torch import Tensor, nn

from headstudio import ranks
from headstudio.errors import HeadStudioError
from headstudio.on_device import constant
from headstudio.settings import check_all, setting
from headstudio.splats.optimizers import views_by_parameter
from headstudio.splats.parameters import SplatModule
from headstudio.splats.rig import TriangleFrames

GRADIENT_UNITS = ("relative", "ndc")
_SPLIT_SHRINK = 1.6  # gsplat's and 3DGS's: children of a split are this much smaller

Optimizers = torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer]


@dataclass
class DensityReport:
    """What one call of `DensityControl.step` did."""

    n_cloned: int
    n_split: int
    n_pruned: int
    n: int
    """Number of splats now."""

    def __str__(self) -> str:
        return (
            f"{self.n_cloned} splats cloned, {self.n_split} split, {self.n_pruned} removed; "
            f"now {self.n}"
        )


class DensityControl(nn.Module):
    """Clones, splits and prunes splats during training.

    Call `observe` after every backward pass and `step` after every optimiser step. A module, so
    that what it has gathered travels with checkpoints and devices.
    """

    @dataclass
    class Config:
        """Steps count completed optimiser steps; both ends of an interval are included."""

        # Clone, split and prune.
        start: int = setting(300, at_least=0)
        end: int = setting(2100, at_least=-1)
        interval: int = setting(300, at_least=1)
        # Mean image-plane gradient from which a splat is cloned or split, in one of two units:
        # "relative": in each step, the gradient norms of a splat's views are added up and divided
        #     by the root of the sum of squares over all visible splats. It does not depend on the
        #     scale of the loss, and 1 / sqrt(N) is the average splat, so a threshold for 100 000
        #     splats means sqrt(10) times it for 10 000. The authors' release normalises like this
        #     (after adding the gradient vectors of the views), and 0.001 is its value.
        # "ndc": as in 3DGS and gsplat, the mean over views of the norm in units of half a picture,
        #     times the number of views; depends on the loss. 0.0002 is 3DGS's value.
        grad_threshold: float = setting(0.001, at_least=0)
        grad_units: str = setting("relative", one_of=GRADIENT_UNITS)
        # World size of the scene that the next two are fractions of.
        extent: float = setting(4.0, above=0)
        # Largest standard deviation up to which a splat is cloned, above which it is split.
        clone_size: float = setting(0.01, at_least=0)
        # Largest standard deviation above which a splat is removed.
        prune_size: float = setting(0.03, above=0)
        # Distance of split children from their parent in its standard deviations. 1 is 3DGS; the
        # authors' release has 0.01.
        split_spread: float = setting(1.0, at_least=0)
        # Opacity below which a splat is removed.
        prune_opacity: float = setting(0.05, at_least=0, below=1)
        # Radius on screen above which a splat is removed, in pixels of a picture whose longer side
        # is screen_reference; scaled to the pictures that are rendered.
        prune_screen: float = setting(60.0, above=0)
        screen_reference: int = setting(1024, at_least=1)
        # First step that removes by size, on screen and in the world.
        prune_size_start: int = 1500
        # Afterwards only prune: by opacity and by size in the world.
        prune_only_start: int = 2400
        prune_only_end: int = 3300
        prune_only_interval: int = setting(300, at_least=1)
        prune_only_opacity: float = setting(0.005, at_least=0, below=1)
        # Growth stops here; the splats with the largest gradients grow first.
        max_splats: int = setting(300_000, at_least=1)
        # Pruning stops here; the most opaque splats stay.
        min_splats: int = setting(100, at_least=1)
        # Splitting draws random numbers; those of a step follow from this and the step alone.
        seed: int = 0

        @staticmethod
        def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
            """See `headstudio.settings.violations`."""
            least, most = values.get("min_splats"), values.get("max_splats")
            if least is not None and most is not None and least > most:
                yield "min_splats", f"({least}) is above max_splats ({most})"

    grad_sum: Tensor
    """``[N]``, gradient norms added up since the last `step` that did anything."""
    count: Tensor
    """``[N]``, observations in that sum."""
    screen_size: Tensor
    """``[N]``, largest radius on screen seen since, as a fraction of the picture's longer side."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.cfg = config if config is not None else self.Config()
        _check(self.cfg)
        for name in ("grad_sum", "count", "screen_size"):
            self.register_buffer(name, torch.zeros(0))

    def grows_at(self, step: int) -> bool:
        """Whether `step` clones, splits and prunes after this many optimiser steps."""
        cfg = self.cfg
        return cfg.start <= step <= cfg.end and step % cfg.interval == 0

    def prunes_at(self, step: int) -> bool:
        """Whether `step` does nothing but prune after this many optimiser steps."""
        cfg = self.cfg
        return (
            cfg.prune_only_start <= step <= cfg.prune_only_end
            and step % cfg.prune_only_interval == 0
            and not self.grows_at(step)
        )

    def is_due(self, step: int) -> bool:
        """Whether `step` does anything after this many optimiser steps."""
        return self.grows_at(step) or self.prunes_at(step)

    @torch.no_grad()
    def observe(
        self, grad: Tensor, radii: Tensor, width: int, height: int, loss_scale: float = 1.0
    ) -> None:
        """Take in one training step: all of its views at once, those of other processes too.

        Args:
            grad: ``[..., N, 2]``, gradient of the loss by the splats' image positions in pixels;
                the leading dimensions are views (poses and cameras).
            radii: ``[..., N]`` or ``[..., N, 2]``, radius on screen in pixels (three standard
                deviations), 0 where a view does not see the splat.
            width, height: of the pictures, in pixels.
            loss_scale: what a mixed-precision scaler multiplied ``grad`` by.
        """
        n = grad.shape[-2]
        radii = radii.amax(-1) if radii.ndim == grad.ndim and radii.shape[-1] == 2 else radii
        if radii.shape != grad.shape[:-1]:
            raise HeadStudioError(
                f"density control: radii of shape {tuple(radii.shape)} do not fit gradients of "
                f"shape {tuple(grad.shape)}."
            )
        self._fit(n, grad.device)
        half_picture = constant((width / 2, height / 2), grad)
        norms = torch.linalg.vector_norm(grad * half_picture / loss_scale, dim=-1).reshape(-1, n)
        radii = radii.reshape(-1, n).float()
        visible = radii > 0
        # A step whose half-precision gradients overflowed is skipped by the scaler; so it is here.
        norms = torch.where(visible & torch.isfinite(norms), norms, 0.0)
        total, seen = ranks.added_up(torch.stack([norms.sum(0), visible.sum(0).float()]))
        if self.cfg.grad_units == "relative":
            length = torch.linalg.vector_norm(total.double()).float()
            self.grad_sum += total / length.clamp_min(torch.finfo(torch.float32).tiny)
            self.count += seen > 0
        else:
            # Each process's loss is a mean over its own views, so their number is that of one.
            self.grad_sum += total * norms.shape[0]
            self.count += seen
        size = ranks.largest(radii.amax(0) / max(width, height))
        self.screen_size = torch.maximum(self.screen_size, size)

    @torch.no_grad()
    def step(
        self, step: int, splats: SplatModule, optimizer: Optimizers, frames: TriangleFrames
    ) -> DensityReport | None:
        """Clone, split and prune if it is time to.

        Parameters are exchanged for new ones in ``splats`` and in ``optimizer``; survivors keep
        their moments, new splats start with none.

        Args:
            step: completed optimiser steps.
            splats: what to change.
            optimizer: one with each parameter of ``splats`` in a group of its own (other groups are
                left alone), or one per parameter by name.
            frames: of the current shape, in any poses; their mean says how large a splat is.

        Returns:
            What was done, or None if nothing was due.

        Raises:
            HeadStudioError: if the processes of a run were left with different numbers of splats.
        """
        if not self.is_due(step):
            return None
        editor = _Editor(self, splats, optimizer, frames)
        n_cloned = n_split = 0
        if self.grows_at(step):
            n_cloned, n_split = editor.grow(step)
            n_pruned = editor.prune(
                self.cfg.prune_opacity,
                by_world=step >= self.cfg.prune_size_start,
                by_screen=step >= self.cfg.prune_size_start,
            )
        else:
            n_pruned = editor.prune(self.cfg.prune_only_opacity, by_world=True, by_screen=False)
        if not ranks.is_the_same(editor.n, splats.face.device):
            raise HeadStudioError(
                "density control: the processes of this run no longer have the same splats; are "
                "their GPUs of different kinds? system.geometry.density_control=false does without."
            )
        splats.replace(editor.parameters, editor.state["face"])
        for name in ("grad_sum", "count", "screen_size"):
            setattr(self, name, torch.zeros_like(editor.state[name]))
        return DensityReport(n_cloned, n_split, n_pruned, splats.n)

    def _fit(self, n: int, device: torch.device) -> None:
        """Start from zero for another number of splats than was observed before."""
        if self.grad_sum.shape[0] != n or self.grad_sum.device != device:
            for name in ("grad_sum", "count", "screen_size"):
                setattr(self, name, torch.zeros(n, device=device))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        stored = state_dict.get(prefix + "grad_sum")
        if isinstance(stored, Tensor):
            self._fit(stored.shape[0], self.grad_sum.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class _Editor:
    """The parameters, optimiser views and per-splat state that one control step works on."""

    def __init__(
        self,
        control: DensityControl,
        splats: SplatModule,
        optimizer: Optimizers,
        frames: TriangleFrames,
    ) -> None:
        control._fit(splats.n, splats.means.device)
        self.cfg = control.cfg
        self.parameters = splats.parameter_dict()
        self.optimizers = (
            dict(optimizer)
            if isinstance(optimizer, Mapping)
            else views_by_parameter(optimizer, self.parameters)
        )
        # All else that is decided by is the same in all processes, bit for bit. This comes out of
        # matrix products, which may round otherwise on another GPU.
        self.triangle_scale = ranks.of_the_first(frames.scale.mean(0))
        # Buffers alike: gsplat's operations carry every tensor in here along.
        self.state = {
            "face": splats.face,
            "grad_sum": control.grad_sum,
            "count": control.count,
            "screen_size": control.screen_size,
        }

    @property
    def n(self) -> int:
        return self.state["face"].shape[0]

    def world_size(self) -> Tensor:
        """Largest standard deviation of each splat in world units, ``[N]``."""
        largest = self.parameters["scales"].exp().amax(-1)
        return largest * self.triangle_scale[self.state["face"]]

    def grow(self, step: int) -> tuple[int, int]:
        """Clone small and split large splats of large gradient; returns how many of each."""
        gradient = self.state["grad_sum"] / self.state["count"].clamp_min(1)
        candidates = (gradient >= self.cfg.grad_threshold) & (self.state["count"] > 0)
        candidates = _largest(candidates, gradient, max(self.cfg.max_splats - self.n, 0))
        small = self.world_size() <= self.cfg.clone_size * self.cfg.extent
        clone, split = candidates & small, candidates & ~small
        n_cloned, n_split = int(clone.sum()), int(split.sum())
        if n_cloned:
            ops.duplicate(self.parameters, self.optimizers, self.state, clone)
            split = torch.cat([split, split.new_zeros(n_cloned)])
        if n_split:
            self._split(split, n_split, step)
        return n_cloned, n_split

    def _split(self, mask: Tensor, n_split: int, step: int) -> None:
        parents = self.parameters["means"].detach()[mask].repeat(2, 1)
        with _seeded(mask.device, self.cfg.seed, step):
            ops.split(self.parameters, self.optimizers, self.state, mask)
        # gsplat puts the children last, all first ones before all second ones.
        children = self.parameters["means"].data[-2 * n_split :]
        children.lerp_(parents, 1.0 - self.cfg.split_spread)
        self.state["screen_size"][-2 * n_split :] /= _SPLIT_SHRINK

    def prune(self, opacity: float, by_world: bool, by_screen: bool) -> int:
        """Remove splats that are faint or too large; returns how many."""
        opacities = self.parameters["opacities"].detach().sigmoid()
        prune = opacities < opacity
        if by_world:
            prune |= self.world_size() > self.cfg.prune_size * self.cfg.extent
        if by_screen:
            prune |= self.state["screen_size"] > self.cfg.prune_screen / self.cfg.screen_reference
        least = min(self.cfg.min_splats, self.n)
        if self.n - int(prune.sum()) < least:
            warnings.warn(
                f"density control would leave {self.n - int(prune.sum())} of {self.n} splats; the "
                f"{least} best are kept. The learning rate or the loss is probably far too large.",
                stacklevel=4,
            )
            # Those that need not go come first, then the most opaque.
            prune = ~_largest(torch.ones_like(prune), opacities - prune.float(), least)
        n_pruned = int(prune.sum())
        if n_pruned:
            ops.remove(self.parameters, self.optimizers, self.state, prune)
        return n_pruned


def _largest(mask: Tensor, score: Tensor, n: int) -> Tensor:
    """Of the elements in ``mask``, the (at most) ``n`` of largest ``score``, as a mask."""
    if int(mask.sum()) <= n:
        return mask
    order = torch.where(mask, score, -torch.inf).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(mask)
    chosen[order[:n]] = True
    return chosen


@contextmanager
def _seeded(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """Torch's global generators in a state that follows from seed and step; then as before."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        number = (seed * 1_000_003 + step) % 2**63
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        else:
            torch.random.default_generator.manual_seed(number)
        yield


def _check(cfg: DensityControl.Config) -> None:
    check_all(cfg, "system.geometry.density", DensityControl.Config)
