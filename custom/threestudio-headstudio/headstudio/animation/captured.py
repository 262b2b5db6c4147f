"""A frame up to the tiles as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstudio.animation.pictures import Pictures
from headstudio.render import _gsplat, _gsplat_stages
from headstudio.render.cameras import Cameras
from headstudio.render.grouped import place

if TYPE_CHECKING:
    from headstudio.animation.fast_player import FastPlayer

_WARM_UP = 3


class CapturedPlayer:
    """Pictures of one number of poses and views, and of one size.

    From the parameters to the ellipses there are more than a hundred small operations, which take
    longer to launch one by one than to run: they are one graph. Then gsplat asks the GPU how many
    tiles the ellipses touch, which a graph cannot; that and the drawing are a few launches more.

    A graph reads and writes at fixed addresses. What it reads is copied there first, unless it is
    there already.

    Args:
        player: on CUDA.
        cameras: of P poses; where they stand may change from call to call.
    """

    def __init__(self, player: FastPlayer, cameras: Cameras) -> None:
        _gsplat.require()
        self._player = player
        self._packed = _Input((cameras.poses, player.head.n_inputs), player.device)
        self._background = _Input((3,), player.device)
        self.cameras = _StandingCameras(cameras, player.device)
        self._graph: Callable[[], None] | None = None

    @property
    def packed(self) -> Tensor:
        """The parameters that the next frame is of, ``[P, n_inputs]``."""
        return self._packed.values

    def render(self, packed: Tensor, cameras: Cameras, background: Tensor | None) -> Pictures:
        """As `FastPlayer.render`; returns when the pictures are there."""
        # Graphs, streams and gsplat's launches go to the current GPU, which may be another one.
        with torch.cuda.device(self._player.device):
            return self._render(packed, cameras, background)

    def _render(self, packed: Tensor, cameras: Cameras, background: Tensor | None) -> Pictures:
        self._packed.set(packed)
        self.cameras.stand_as(cameras)
        if background is not None:
            self._background.set(background)
        if self._graph is None:
            self._graph, self._ellipses = record(self.frame)
        self._graph()
        tiles = _gsplat_stages.intersect(self._ellipses, self.cameras)
        rgb, alpha = _gsplat_stages.rasterize(
            self._ellipses,
            tiles,
            self._player.splats,
            self.cameras,
            None if background is None else self._background.values,
        )
        # The next frame, on whatever stream, writes to where this one is drawn from.
        torch.cuda.current_stream().synchronize()
        return Pictures(rgb, alpha)

    @torch.no_grad()
    def frame(self) -> _gsplat_stages.Ellipses:
        """What is captured."""
        splats = self._player.splats
        means, covariances = place(splats, self._player.maps(self.packed))
        return _gsplat_stages.project(means, covariances, splats.opacities, self.cameras)


def record(
    frame: Callable[[], _gsplat_stages.Ellipses],
) -> tuple[Callable[[], None], _gsplat_stages.Ellipses]:
    """A graph of what ``frame`` does: how to run it, and what it then writes."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            frame()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ellipses = frame()
    return graph.replay, ellipses


class _Input:
    """Numbers at a fixed address on the GPU, copied there only when they change."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.values = torch.zeros(shape, device=device)
        # Only from page-locked memory are copies to the GPU made without waiting for it.
        self._staging = torch.zeros(shape).pin_memory()
        self._staged = True  # whether the values are those of the staging

    def set(self, values: Tensor) -> None:
        """Write them; whoever wrote before has waited until that was copied."""
        values = values.to(torch.float32)
        on_host = values.device.type == "cpu"
        if on_host:
            if self._staged and torch.equal(values, self._staging):
                return
            values = self._staging.copy_(values)
        self._staged = on_host
        self.values.copy_(values, non_blocking=True)


class _StandingCameras(Cameras):
    """Cameras whose matrices are at fixed addresses on the GPU.

    Drawing needs nothing else of them. Most often they stand still, and nothing is to be done.
    """

    def __init__(self, cameras: Cameras, device: torch.device) -> None:
        super().__init__(
            *(cameras.c2w, cameras.fovy, cameras.height, cameras.width, cameras.near, cameras.far)
        )
        size = (cameras.poses, cameras.views)
        self._viewmats = _Input((*size, 4, 4), device)
        self._intrinsics = _Input((*size, 3, 3), device)
        self._known: tuple[Tensor, ...] | None = None

    def stand_as(self, cameras: Cameras) -> None:
        """Move to where these are."""
        # Working the matrices out is some twenty small operations, which the host does sooner.
        cameras = cameras.to("cpu")
        given = tuple(x.to(torch.float32) for x in (cameras.c2w, cameras.fovy))
        if self._known is not None and all(map(torch.equal, given, self._known)):
            return
        self._viewmats.set(cameras.viewmats())
        self._intrinsics.set(cameras.intrinsics())
        # Copies: the caller may write new places into the same tensors.
        self._known = tuple(x.clone() for x in given)

    def viewmats(self) -> Tensor:
        return self._viewmats.values

    def intrinsics(self) -> Tensor:
        return self._intrinsics.values
