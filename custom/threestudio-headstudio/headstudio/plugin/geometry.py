"""``flame-gaussians``: splats that ride on a FLAME head, as threestudio's geometry.

No ``from __future__ import annotations`` in this room: OmegaConf reads the annotations of the
``Config`` classes as types.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel, WorldFrame
from headstudio.plugin._common import resolve_asset
from headstudio.plugin._randomness import run_seed
from headstudio.settings import check_all, setting
from headstudio.splats import (
    DensityControl,
    DensityReport,
    PosedSplats,
    SplatModule,
    Splats,
    TriangleFrames,
    initialise_per_triangle,
    initialise_uniform,
    pose_splats,
    triangle_frames,
)
from threestudio.models.geometry.base import BaseGeometry
from threestudio.utils.config import parse_structured

INITIALISATIONS = ("uniform", "per-triangle")
OBSERVED = ("means2d", "radii", "cameras")
"""What :meth:`FlameGaussians.observe` looks at of what ``gsplat-renderer`` returned."""


@dataclass
class PosedHead:
    """A head in P poses, in world space: what is rendered, and what it is rendered from."""

    splats: PosedSplats
    vertices: Tensor  # [P, V, 3]
    frames: TriangleFrames


@threestudio.register("flame-gaussians")
class FlameGaussians(BaseGeometry):
    """Triangle-local splats and the identity of the head that carries them.

    Parameters, by the names that ``optimizer.params`` refers to: ``geometry.splats.means, .quats,
    .scales, .opacities, .colors`` as in :class:`headstudio.splats.Splats`, and ``geometry.shape``,
    FLAME's identity coefficients ``[n_shape]``.
    """

    @dataclass
    class Config(BaseGeometry.Config):
        # A head in FLAME's format: ours (.npz), or FLAME 2020/2023 (.pkl, .npz).
        head_model: str = "load/flame/open_head.npz"
        # The neutral head's longest extent in world units.
        extent: float = setting(1.5, above=0, at_most=1000)
        # "uniform": n_splats drawn evenly over the surface; "per-triangle": one on each triangle.
        initialisation: str = setting("uniform", one_of=INITIALISATIONS)
        n_splats: int = setting(100_000, at_least=1, at_most=10_000_000)
        initial_opacity: float = setting(0.1, above=0, below=1)
        initial_color: float = setting(0.5, at_least=0, at_most=1)
        # How densely the regions of the head are covered, by region name; 1 where not given.
        region_weights: dict[str, float] = field(default_factory=dict)
        # Which colour [r, g, b] in 0 to 1 splats start with, by region name; initial_color where
        # not given. The inside of a mouth is dark in everybody, and seldom seen in training.
        region_colors: dict[str, Any] = field(default_factory=dict)
        learn_shape: bool = True
        # The shape is frozen from this step on.
        shape_until_step: int = setting(7000, at_least=0)
        # Identity at the start: the first coefficients, the others are 0.
        initial_shape: list[float] = setting(factory=list, each=True)
        # Whether splats are cloned, split and pruned; when and by what: the fields of
        # headstudio.splats.DensityControl.Config.
        density_control: bool = True
        density: dict[str, Any] = setting(factory=dict, of=DensityControl.Config)

        def __post_init__(self) -> None:
            check_all(self, "system.geometry")

        @staticmethod
        def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
            """See :func:`headstudio.settings.violations`."""
            for region, weight in values.get("region_weights", {}).items():
                if not (isinstance(weight, (int, float)) and 0 <= weight < 1e6):
                    yield "region_weights", f"gives {region} {weight}; expected 0 or more"
            for region, color in values.get("region_colors", {}).items():
                if not _is_color(color):
                    yield (
                        "region_colors",
                        f"gives {region} {color}; expected [r, g, b], each from 0 to 1",
                    )
            density = values.get("density", {})
            most = density.get("max_splats", DensityControl.Config.max_splats)
            n = values.get("n_splats")
            if isinstance(n, int) and isinstance(most, int) and n > most:
                yield (
                    "n_splats",
                    f"is {n}, more than density.max_splats, {most}; raise that, or start fewer",
                )

    cfg: Config

    def configure(self) -> None:
        head = HeadModel.load(resolve_asset(self.cfg.head_model)).to(self.device)
        world = head.world_frame(self.cfg.extent)
        self.head = head
        self._world_scale = world.scale
        self._world_center: Tensor
        self.register_buffer("_world_center", world.center, persistent=False)
        self.splats = SplatModule(self._initial_splats(head))
        self.shape = nn.Parameter(self._initial_shape(head), requires_grad=self.cfg.learn_shape)
        self.density = DensityControl(parse_structured(DensityControl.Config, self.cfg.density))

    def get_extra_state(self) -> Tensor:
        """Which head the splats ride on, kept with them in checkpoints: UTF-8 bytes, ``[n]``.

        A tensor, like all else there: who looks through a checkpoint's weights need not know of it.
        """
        note = f"{self.head.content_hash} {self.head.name}"
        return torch.tensor(list(note.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Refuse splats of another head, on whose triangles they would be anywhere.

        Raises:
            HeadStudioError: naming both heads.
        """
        stored = state.to(torch.uint8).flatten().tolist() if isinstance(state, Tensor) else []
        note = bytes(stored).decode(errors="replace")
        content_hash, _, name = note.partition(" ")
        if content_hash != self.head.content_hash:
            raise HeadStudioError(
                f"the avatar in the checkpoint rides on the head model {name!r} "
                f"({content_hash[:12]}), and system.geometry.head_model, {self.cfg.head_model}, is "
                f"{self.head.name!r} ({self.head.content_hash[:12]}). Give the head model it was "
                "trained with, or train a new avatar."
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Checkpoints that were written before say nothing of their head, and are taken as they are.
        state_dict.setdefault(prefix + "_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _initial_splats(self, head: HeadModel) -> Splats:
        vertices = self.world.to_world(head.neutral())
        opacity, rgb = self.cfg.initial_opacity, self._face_colors(head)
        if self.cfg.initialisation == "per-triangle":
            return initialise_per_triangle(vertices, head.faces, opacity, rgb)
        # Not the process's own seed: all processes of a run have to start with the same splats.
        generator = torch.Generator().manual_seed(run_seed())
        return initialise_uniform(
            vertices, head.faces, self.cfg.n_splats, generator, opacity, rgb,
            face_weights=self._face_weights(head),
        )  # fmt: skip

    def _face_weights(self, head: HeadModel) -> Tensor | None:
        """Sampling weight of each triangle, ``[F]``, from ``region_weights``."""
        if not self.cfg.region_weights:
            return None
        weights = torch.ones(len(head.faces), device=head.faces.device)
        for region, weight in self._of_regions(head, "region_weights"):
            weights[region] = weight
        return weights

    def _face_colors(self, head: HeadModel) -> Tensor:
        """Colour of each triangle's splats at the start, ``[F, 3]``."""
        colors = head.v_template.new_full((len(head.faces), 3), self.cfg.initial_color)
        for region, color in self._of_regions(head, "region_colors"):
            colors[region] = colors.new_tensor(list(color))
        return colors

    def _of_regions(self, head: HeadModel, key: str) -> Iterator[tuple[Tensor, Any]]:
        """What the configuration's ``key`` gives to the triangles of each region ``[F]`` bool."""
        given = getattr(self.cfg, key)
        unknown = sorted(set(given) - set(head.region_names))
        if unknown:
            raise HeadStudioError(
                f"geometry.{key} names {', '.join(unknown)}, but the head model "
                f"{head.name} has {', '.join(head.region_names) or 'no regions'}."
            )
        for region, value in given.items():
            yield head.region_mask(region), value

    def _initial_shape(self, head: HeadModel) -> Tensor:
        given = torch.tensor(list(self.cfg.initial_shape), dtype=torch.float32)
        if len(given) > head.n_shape:
            raise HeadStudioError(
                f"geometry.initial_shape has {len(given)} coefficients; "
                f"the head model {head.name} has {head.n_shape}."
            )
        shape = torch.zeros(head.n_shape)
        shape[: len(given)] = given
        return shape.to(self.device)

    @property
    def world(self) -> WorldFrame:
        """From FLAME's frame to the world's."""
        return WorldFrame(self._world_center, self._world_scale)

    def pose(self, flame: Mapping[str, Tensor] | None = None) -> PosedHead:
        """Pose the head, and the splats with it, once for each row of ``flame``.

        Args:
            flame: FLAME parameters by name, each ``[P, ...]``; those not given are zero, and
                ``shape`` is always the learned one. None is the one neutral pose.

        Returns:
            The head in P poses, differentiable in the splats and the shape.
        """
        params = self._flame_params(flame or {})
        vertices = self.world.to_world(self.head(params))
        frames = triangle_frames(vertices, self.head.faces)
        return PosedHead(pose_splats(self.splats.splats, frames), vertices, frames)

    def _flame_params(self, flame: Mapping[str, Tensor]) -> FlameParams:
        rest = FlameParams.zeros(
            1, self.head.n_shape, self.head.n_expression, device=self.shape.device
        )
        given = {name: value for name, value in flame.items() if name != "shape"}
        return rest.replace(shape=self.shape[None], **given)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        learning = self.cfg.learn_shape and global_step < self.cfg.shape_until_step
        self.shape.requires_grad_(learning)

    def observe(self, *outs: Mapping[str, Any], loss_scale: float = 1.0) -> None:
        """Take in what density control decides by, after the backward passes of a training step.

        Args:
            outs: of ``gsplat-renderer``, one for each batch whose gradients the step gathers; of
                the same splats, in pictures of one size.
            loss_scale: what a mixed-precision trainer multiplied the loss by. A trainer that
                gathers divides each batch's loss by their number, which makes the sum the mean over
                all views.

        Raises:
            HeadStudioError: if backward left no image-plane gradient; density control would go on
                without a reason to clone or split anything.
        """
        if not self.cfg.density_control:
            return
        seen = [_by_view(out) for out in outs]
        gradients, radii = (
            torch.cat(parts) if len(outs) > 1 else parts[0] for parts in zip(*seen, strict=True)
        )
        cameras = outs[0]["cameras"]
        self.density.observe(gradients, radii, cameras.width, cameras.height, loss_scale)

    def density_is_due(self, step: int) -> bool:
        """Whether :meth:`control_density` does anything after ``step`` steps."""
        return self.cfg.density_control and self.density.is_due(step)

    @torch.no_grad()
    def control_density(self, step: int, optimizer: torch.optim.Optimizer) -> DensityReport | None:
        """Clone, split and prune if that is due after ``step`` steps; says what was done."""
        if not self.density_is_due(step):
            return None
        return self.density.step(step, self.splats, optimizer, self.pose().frames)

    def export(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What ``avatar.ply`` is written from; see :func:`headstudio.splats.save_avatar`."""
        return {
            "splats": self.splats.splats.detach(),
            "head": self.head,
            "shape": self.shape.detach(),
            "frame": self.world,
        }


def _by_view(out: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Of each view, the gradients of the splats' image positions, ``[V, N, 2]``, and their radii on
    screen, ``[V, N]`` or ``[V, N, 2]``.

    Raises:
        HeadStudioError: if there are no gradients.
    """
    gradient, radii = out["means2d"].grad, out["radii"]
    if gradient is None:
        raise HeadStudioError(
            "density control got no gradient of the splats' image positions: the loss does not "
            "depend on the rendered pictures, or backward has not run. "
            "Use geometry.density_control=false to train without it."
        )
    views = gradient.ndim - 2
    return gradient.flatten(0, views - 1), radii.flatten(0, views - 1)


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 3
        and all(isinstance(part, (int, float)) and 0 <= part <= 1 for part in value)
    )
