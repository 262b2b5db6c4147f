"""A whole frame as one CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstudio.animation.pictures import Pictures
from headstudio.render import _gsplat, _gsplat_stages
from headstudio.render.cameras import Cameras
from headstudio.render.grouped import place

if TYPE_CHECKING:
    from headstudio.animation.fast_player import FastPlayer

ROOM = 1.25
"""Room for pairs of a splat and a tile, as a multiple of what the first picture needed."""
_WARM_UP = 3


class CapturedPlayer:
    """Pictures of one number of poses and views, and of one size.

    A CUDA graph runs at fixed addresses, with arrays of fixed sizes, and without asking anything of
    the GPU. Parameters and cameras are therefore copied to where it reads them. How many tiles the
    splats touch is not known beforehand: there is room for `ROOM` times what the first picture
    needed; the graph counts, and if there were more, the picture is drawn again with more room.

    Args:
        player: on CUDA.
        cameras: of P poses; where they stand may change from call to call.
    """

    def __init__(self, player: FastPlayer, cameras: Cameras) -> None:
        _gsplat.require()
        device = player.device
        self.player = player
        self.cameras = Cameras(
            cameras.c2w.to(device, torch.float32, copy=True).contiguous(),
            cameras.fovy.to(device, torch.float32, copy=True).contiguous(),
            *(cameras.height, cameras.width, cameras.near, cameras.far),
        )
        self.packed = torch.zeros(cameras.poses, player.head.n_inputs, device=device)
        self.background = torch.zeros(3, device=device)
        self._inputs = (self.packed, self.cameras.c2w, self.cameras.fovy, self.background)
        # Only from page-locked memory are copies to the GPU made without waiting for it.
        self._staging = [torch.empty(x.shape).pin_memory() for x in self._inputs]
        self._needed = torch.zeros((), dtype=torch.int64).pin_memory()
        rows, columns = _gsplat_stages.grid(self.cameras)
        n_tiles = cameras.poses * cameras.views * (rows + 1) * columns
        self._tiles = torch.arange(
            n_tiles, device=device, dtype=torch.int16 if n_tiles < 2**15 else torch.int32
        )
        self._slots = torch.empty(0, dtype=torch.int32, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def render(self, packed: Tensor, cameras: Cameras, background: Tensor | None) -> Pictures:
        """As `FastPlayer.render`; returns when the pictures are there."""
        ground = torch.zeros(3) if background is None else background
        given = (packed, cameras.c2w, cameras.fovy, ground)
        for target, staging, value in zip(self._inputs, self._staging, given, strict=True):
            if value.device.type == "cpu":
                value = staging.copy_(value)
            target.copy_(value, non_blocking=True)
        if self._graph is None:
            self._make_room()
        while True:
            assert self._graph is not None
            self._graph.replay()
            self._needed.copy_(self._count, non_blocking=True)
            pictures = Pictures(self._rgb.clone(), self._alpha.clone())
            torch.cuda.current_stream().synchronize()
            if int(self._needed) <= len(self._slots):
                return pictures
            self._make_room()

    def _make_room(self) -> None:
        """Count what the picture needs now, and capture a graph with room for more."""
        with torch.no_grad():
            means, covariances = place(self.player.splats, self.player.maps(self.packed))
            ellipses = _gsplat_stages.project(
                means, covariances, self.player.splats.opacities, self.cameras
            )
            needed = len(_gsplat_stages.intersect(ellipses, self.cameras).ids)
        self._graph = None  # its memory is free before more is taken
        room = max(1024, int(ROOM * needed))
        self._slots = torch.arange(room, dtype=torch.int32, device=self.player.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self.frame()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._rgb, self._alpha, self._count = self.frame()
        self._graph = graph

    @torch.no_grad()
    def frame(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is captured: rgb, alpha, and how many pairs of a splat and a tile there are."""
        splats = self.player.splats
        means, covariances = place(splats, self.player.maps(self.packed))
        ellipses = _gsplat_stages.project(means, covariances, splats.opacities, self.cameras)
        tiles, count = _gsplat_stages.list_tiles(ellipses, self.cameras, self._slots, self._tiles)
        rgb, alpha = _gsplat_stages.rasterize(
            ellipses, tiles, splats, self.cameras, self.background
        )
        return rgb, alpha, count
