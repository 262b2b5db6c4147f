"""Avatars in a grid, each as splats and, if asked for, as the head beneath and its landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.app.player import Player
from headstudio.flame import FlameParams
from headstudio.guidance.control_image import control_image
from headstudio.render import Cameras, render_splats
from headstudio.render.mesh import shade_mesh
from headstudio.render.pictures import grid_columns, label_strip, over, tile, to_bytes

LAYERS = ("avatar", "mesh", "control")
Rgb = tuple[float, float, float]
# Pixels rendered at once, over all frames of a batch: what keeps either busy in little memory.
_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}
_MAX_BATCH = 64


@dataclass
class Stage:
    """What is in a picture, and where.

    Every avatar has a cell of its layers side by side; the cells make a grid.
    """

    players: Sequence[Player]
    height: int
    """Of one layer's picture, px."""
    width: int
    background: Rgb | None
    """None is transparent: pictures are RGBA then."""
    layers: Sequence[str] = ("avatar",)
    columns: int | None = None
    """Cells in a row; None makes the grid that is nearest to 4:3."""
    labels: Sequence[str] = ()
    """Words at the lower edge of each cell, or nothing."""

    def __post_init__(self) -> None:
        self._strips = [label_strip(text, *self.cell_size) for text in self.labels]

    @property
    def cell_size(self) -> tuple[int, int]:
        """Height and width of one avatar's layers."""
        return self.height, self.width * len(self.layers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        height, width = self.cell_size
        columns = self.columns or grid_columns(len(self.players), width, height)
        columns = min(columns, len(self.players))
        return -(-len(self.players) // columns), columns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture: even in every format, as H.264 has them."""
        height, width = (n * size for n, size in zip(self.grid, self.cell_size, strict=True))
        return height + height % 2, width + width % 2

    @property
    def batch_size(self) -> int:
        """Frames rendered in one call."""
        pixels = _PIXELS.get(self.players[0].device.type, _PIXELS["cpu"])
        return max(1, min(_MAX_BATCH, pixels // (self.height * self.width)))

    @torch.no_grad()
    def pictures(self, poses: FlameParams, cameras: Cameras) -> Iterator[np.ndarray]:
        """Render T poses, each by its own camera.

        Args:
            poses: T rows.
            cameras: ``[T, 1]``, of the size of a layer.

        Yields:
            ``[n, height, width, 3 or 4]`` uint8, n frames at a time, T in all.
        """
        poses = poses.expand()
        fill = [1.0, 1.0, 1.0, 0.0] if self.background is None else list(self.background)
        for start in range(0, len(poses), self.batch_size):
            part = slice(start, start + self.batch_size)
            views = replace(cameras, c2w=cameras.c2w[part], fovy=cameras.fovy[part])
            cells = [self._cell(player, poses[part], views) for player in self.players]
            for number, strip in enumerate(self._strips):
                cells[number] = over(cells[number], strip)
            picture = tile(cells, self.grid[1], fill)
            yield to_bytes(self._even(picture, fill))

    def _cell(self, player: Player, poses: FlameParams, cameras: Cameras) -> Tensor:
        """One avatar's layers ``[n, H, W * layers, 3 or 4]``."""
        vertices = player.vertices(poses)
        cameras = cameras.to(vertices.device)
        draw = {"avatar": self._avatar, "mesh": self._mesh, "control": self._control}
        layers = [draw[layer](player, vertices, cameras) for layer in self.layers]
        return torch.cat(layers, dim=2)

    def _avatar(self, player: Player, vertices: Tensor, cameras: Cameras) -> Tensor:
        posed = player.pose(vertices)
        if self.background is not None:
            ground = vertices.new_tensor(self.background)
            return render_splats(posed, cameras, background=ground).rgb[:, 0]
        seen = render_splats(posed, cameras)
        # PNG's colours are not multiplied by the opacity.
        color = seen.rgb / seen.alpha.clamp(min=1e-6)
        return torch.cat([color.clamp(0, 1), seen.alpha], dim=-1)[:, 0]

    def _mesh(self, player: Player, vertices: Tensor, cameras: Cameras) -> Tensor:
        faces = player.head.faces
        if self.background is not None:
            ground = vertices.new_tensor(self.background)
            return shade_mesh(vertices, faces, cameras, background=ground)[:, 0]
        black = shade_mesh(vertices, faces, cameras, background=0.0)[:, 0]
        white = shade_mesh(vertices, faces, cameras, background=1.0)[:, 0]
        alpha = (1 - (white - black).mean(-1, keepdim=True)).clamp(0, 1)
        return torch.cat([(black / alpha.clamp(min=1e-6)).clamp(0, 1), alpha], dim=-1)

    def _control(self, player: Player, vertices: Tensor, cameras: Cameras) -> Tensor:
        image = control_image(player.head, vertices, cameras)[0][:, 0]
        return image if self.background is not None else F.pad(image, (0, 1), value=1.0)

    def _even(self, picture: Tensor, fill: Sequence[float]) -> Tensor:
        """A line or column of background where the grid's size is odd."""
        height, width = self.size
        padded = picture.new_tensor(list(fill)).expand(len(picture), height, width, -1).clone()
        padded[:, : picture.shape[1], : picture.shape[2]] = picture
        return padded
