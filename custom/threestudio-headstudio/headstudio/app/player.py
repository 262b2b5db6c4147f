"""An avatar on its head: FLAME parameters in, splats and pictures out.

What every command that opens an ``avatar.ply`` shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstudio.flame import FlameParams, HeadModel, WorldFrame
from headstudio.paths import find_asset
from headstudio.render import Cameras, RenderOutput, render_splats
from headstudio.splats import Avatar, PosedSplats, load_avatar, pose_splats, triangle_frames

#: The head model that commands assume, below ``load/``.
DEFAULT_HEAD = "flame/open_head.npz"


@dataclass
class Player:
    """An avatar, the head model it rides on, and the world it stands in (docs/architecture.md)."""

    avatar: Avatar
    head: HeadModel
    frame: WorldFrame

    @classmethod
    def open(
        cls,
        path: str | Path,
        head: str | Path | None = None,
        device: torch.device | str = "cpu",
    ) -> Player:
        """Load an avatar file.

        Args:
            path: of the ``avatar.ply``.
            head: the head model's file; None is the open head.
            device: where everything is put.

        Raises:
            HeadStudioError: for a file that cannot be read, or that rides on another head.
        """
        model = HeadModel.load(head or find_asset(DEFAULT_HEAD)).to(device)
        return cls.of(load_avatar(path, model), model)

    @classmethod
    def of(cls, avatar: Avatar, head: HeadModel) -> Player:
        """The player of an avatar that is loaded already."""
        return cls(avatar, head, head.world_frame(avatar.extent).to(head.faces.device))

    @property
    def device(self) -> torch.device:
        """Where the splats and the head are."""
        return self.head.faces.device

    def vertices(self, params: FlameParams, own_shape: bool = True) -> Tensor:
        """The posed head ``[P, V, 3]`` in world space.

        Args:
            params: P poses.
            own_shape: with the avatar's identity in place of ``params.shape``.
        """
        params = params.to(self.device)
        if own_shape:
            params = params.replace(shape=self.avatar.shape[None].to(self.device))
        return self.frame.to_world(self.head(params))

    def pose(self, vertices: Tensor) -> PosedSplats:
        """The splats on P posed heads ``[P, V, 3]``, as `vertices` gives them."""
        return pose_splats(self.avatar.splats, triangle_frames(vertices, self.head.faces))

    @torch.no_grad()
    def render(self, params: FlameParams, cameras: Cameras, **options: Any) -> RenderOutput:
        """Pictures of P poses by C cameras; ``options`` are `headstudio.render.render`'s."""
        return render_splats(self.pose(self.vertices(params)), cameras.to(self.device), **options)
