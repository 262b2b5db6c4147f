"""An avatar in the scene: its splats, its mesh, its landmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import viser
from torch import Tensor

from headstudio.animation.prepared import grouped
from headstudio.animation.skinning import triangle_maps
from headstudio.app.player import Player
from headstudio.app.view.drawing import Body
from headstudio.app.view.splat_buffer import SplatBuffer
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.render.mesh import vertex_normals
from headstudio.splats import triangle_frames

_SKIN = (205, 195, 186)
_WIRE = (40, 110, 170)
_LANDMARK = (230, 60, 40)
_LANDMARK_SIZE = 0.006  # of the head's extent
_LIFT = 0.01  # of the head's extent


@dataclass(frozen=True)
class Layers:
    """What of an avatar is shown."""

    splats: bool = True
    mesh: bool = False
    landmarks: bool = False
    drawn_here: bool = False
    """Whether the page is sent pictures of the splats, not the splats."""


@dataclass
class Shown:
    """A pose, in the arrays of the scene's nodes; None for what is not seen."""

    layers: Layers
    splats: np.ndarray | None = None  # [N, 8] uint32, as `SplatBuffer` has it
    mesh: np.ndarray | None = None  # [V, 3] world
    landmarks: np.ndarray | None = None  # [L, 3] world
    maps: Tensor | None = None  # [F, 3, 4], of the triangles; to draw splats from here


@dataclass(frozen=True)
class Place:
    """Where a head is."""

    sideways: float
    """Of the centre, along the world's +y."""
    turn_deg: float
    """About the vertical axis."""

    def map(self) -> Tensor:
        """``[3, 4]``: from the head's own space."""
        cos, sin = math.cos(math.radians(self.turn_deg)), math.sin(math.radians(self.turn_deg))
        return torch.tensor([[cos, -sin, 0, 0], [sin, cos, 0, self.sideways], [0, 0, 1, 0]])


class Figure:
    """The scene nodes of one avatar, below one that places and turns them.

    Args:
        scene: where the nodes are added.
        name: of the topmost node, such as ``"/first"``.
        player: the avatar on its head.
    """

    def __init__(self, scene: viser.SceneApi, name: str, player: Player) -> None:
        self.player = player
        self._buffer = SplatBuffer(player.avatar.splats, player.avatar.extent)
        self._visible = grouped(player.avatar.splats.detach(), player.avatar.splats.face)
        self._place = scene.add_frame(name, show_axes=False)
        self._scene, self._name = scene, name
        self._splats: viser.GaussianSplatHandle | None = None
        neutral = player.frame.to_world(player.head.neutral())
        self._mesh = scene.add_mesh_simple(
            f"{name}/mesh",
            neutral.numpy(),
            player.head.faces.numpy(),
            color=_SKIN,
            visible=False,
        )
        self._landmarks = self._add_landmarks(scene, f"{name}/landmarks", neutral)

    def _add_splats(self) -> viser.GaussianSplatHandle:
        n = self.player.avatar.splats.n
        return self._scene.add_gaussian_splats(
            f"{self._name}/splats",
            centers=np.zeros((n, 3)),
            covariances=np.zeros((n, 3, 3)),  # of no size: nothing is seen before the first pose
            rgbs=np.zeros((n, 3)),
            opacities=np.zeros((n, 1)),
            scale=self._buffer.scale,
        )

    def _add_landmarks(
        self, scene: viser.SceneApi, name: str, neutral: Tensor
    ) -> viser.PointCloudHandle | None:
        try:
            points = self.player.head.landmark_points(neutral)
        except HeadStudioError:  # a head that nobody has embedded landmarks in
            return None
        return scene.add_point_cloud(
            name,
            points.numpy(),
            _LANDMARK,
            point_size=_LANDMARK_SIZE * self.player.avatar.extent,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
            visible=False,
        )

    def place(self, place: Place) -> None:
        """Put the head somewhere."""
        half = math.radians(place.turn_deg) / 2
        self._place.position = (0.0, place.sideways, 0.0)
        self._place.wxyz = (math.cos(half), 0.0, 0.0, math.sin(half))

    @torch.inference_mode()
    def pose(self, params: FlameParams, layers: Layers) -> Shown:
        """Compute one pose, for `show`.

        Args:
            params: of one pose; its shape is added to the avatar's own.
            layers: what is to be seen. The rest is not computed.
        """
        player, faces = self.player, self.player.head.faces
        shape = player.avatar.shape[None] + params.shape
        vertices = player.vertices(params.replace(shape=shape), own_shape=False)
        shown = Shown(layers)
        if layers.splats and layers.drawn_here:
            shown.maps = triangle_maps(vertices, faces.T)[0]
        elif layers.splats:
            shown.splats = self._buffer.pose(triangle_frames(vertices, faces))
        if layers.splats and (layers.mesh or layers.landmarks):
            # The page draws splats last, and those in front of a line or point hide it.
            vertices = vertices + _LIFT * player.avatar.extent * vertex_normals(vertices, faces)
        if layers.mesh:
            shown.mesh = vertices[0].numpy()
        if layers.landmarks and self._landmarks is not None:
            shown.landmarks = player.head.landmark_points(vertices)[0].numpy()
        return shown

    def show(self, shown: Shown) -> None:
        """Send a pose to the page."""
        layers = shown.layers
        if layers.drawn_here and self._splats is not None:
            # Hiding them would not do: the page would go on sorting and drawing what is hidden.
            self._splats.remove()
            self._splats = None
        if shown.splats is not None:
            self._splats = self._splats or self._add_splats()
            self._splats.buffer = shown.splats
        if shown.mesh is not None:
            self._mesh.vertices = shown.mesh
            self._mesh.wireframe = layers.splats
            self._mesh.color = _WIRE if layers.splats else _SKIN
        if self._splats is not None:
            self._splats.visible = layers.splats
        self._mesh.visible = layers.mesh
        if self._landmarks is not None:
            if shown.landmarks is not None:
                self._landmarks.points = shown.landmarks
            self._landmarks.visible = layers.landmarks

    def body(self, shown: Shown, place: Place) -> Body:
        """A pose that is to be drawn here, where the head is to be."""
        assert shown.maps is not None
        return Body(self._visible, shown.maps, place.map())

    def remove(self) -> None:
        """Take everything out of the scene."""
        self._place.remove()
