"""An avatar that is played as fast as it goes: parameters in, pictures out, no gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstudio.animation.pictures import Pictures
from headstudio.animation.prepared import prepare
from headstudio.animation.skinning import triangle_maps, world_vertices
from headstudio.flame import FlameParams, HeadModel
from headstudio.render.cameras import Cameras
from headstudio.render.grouped import render_grouped
from headstudio.splats import Avatar

if TYPE_CHECKING:
    from headstudio.animation.captured import CapturedPlayer


MOST_CAPTURED = 16
"""Pictures at once. Of more, launching is a small part of the time, and a graph would keep the
memory of all that it works out on the way, for good."""


class FastPlayer:
    """Pictures of an avatar, the same as `headstudio.app.player.Player` makes, in less time.

    The identity is folded into the head once; a frame then costs the expression's directions, five
    joints, a map per triangle and the drawing. On CUDA all before the drawing is captured in one
    graph per size of the batch and the picture, so that it is one launch; batches of more than
    `MOST_CAPTURED` pictures do without.

    Args:
        avatar: as `headstudio.splats.load_avatar` gives it.
        head: the model it rides on; its device is where everything happens.
        capture: whether to use CUDA graphs on CUDA; without them the results are the same.
    """

    def __init__(self, avatar: Avatar, head: HeadModel, capture: bool = True) -> None:
        self.head, self.splats = prepare(avatar, head)
        self.capture = capture and self.device.type == "cuda" and self.splats.n > 0
        self._captured: dict[tuple[float, ...], CapturedPlayer] = {}

    @property
    def device(self) -> torch.device:
        """Where the pictures are made."""
        return self.splats.means.device

    @torch.no_grad()
    def maps(self, packed: Tensor) -> Tensor:
        """The map of each triangle ``[P, F, 3, 4]`` for packed parameters ``[P, n_inputs]``."""
        return triangle_maps(world_vertices(self.head, packed), self.head.corners)

    @torch.no_grad()
    def render(
        self, params: FlameParams, cameras: Cameras, background: Tensor | None = None
    ) -> Pictures:
        """Pictures of P poses by C cameras.

        Args:
            params: of P rows, on any device; the shape is not used, the avatar has its own.
            cameras: of P poses, or one set for all; on any device.
            background: ``[3]``; None is black.

        Raises:
            HeadStudioError: expression coefficients the head does not have, or numbers of poses
                that neither agree nor are 1.
        """
        packed = self.head.pack(params)
        poses = packed.shape[0] if packed.shape[0] > 1 else cameras.poses
        packed, cameras = packed.expand(poses, -1), cameras.expand(poses)
        if self.capture and poses * cameras.views <= MOST_CAPTURED:
            return self._graph(cameras).render(packed, cameras, background)
        ground = None if background is None else background.to(self.device, torch.float32)
        maps = self.maps(packed.to(self.device))
        return Pictures(*render_grouped(self.splats, maps, cameras.to(self.device), ground))

    def _graph(self, cameras: Cameras) -> CapturedPlayer:
        from headstudio.animation.captured import CapturedPlayer

        key = (
            cameras.poses,
            cameras.views,
            cameras.height,
            cameras.width,
            cameras.near,
            cameras.far,
        )
        if key not in self._captured:
            self._captured[key] = CapturedPlayer(self, cameras)
        return self._captured[key]
