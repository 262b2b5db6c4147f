"""Where and in which poses avatars and characters are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from headstudio.characters import Character, CharacterStudio
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel, WorldFrame
from headstudio.render import Cameras, RenderOutput, render_splats
from headstudio.splats import Avatar, Splats, pose_splats, triangle_frames

JAW_OPEN = 0.3  # radians
_BROW, _CHIN = 105, 152  # MediaPipe landmarks
#: Expression coefficients of each pose, by the name of the facial action; the jaw is apart.
ACTIONS: dict[str, tuple[str, ...]] = {
    "neutral": (),
    "jaw open": (),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
}
POSES = tuple(ACTIONS)
NEUTRAL, JAW, BLINK = (POSES.index(name) for name in ("neutral", "jaw open", "blink"))


@dataclass(frozen=True)
class Stage:
    """Cameras and the ground behind; the world is that of a head 1.5 units long."""

    size: int = 256  # pixels, of all pictures
    distance: float = 2.2
    fovy_deg: float = 45.0
    elevation_deg: float = 5.0
    azimuths_deg: tuple[float, ...] = tuple(45.0 * i for i in range(8))
    close_fovy_deg: float = 30.0  # of the picture that is the face alone
    background: tuple[float, float, float] = field(default=(0.8, 0.8, 0.8))

    def cameras(self) -> Cameras:
        """``[1, 8]``: all around."""
        azimuth = torch.tensor(self.azimuths_deg)
        return Cameras.orbit(
            azimuth, self.elevation_deg, self.distance, self.fovy_deg, self.size, self.size
        )

    def close_camera(self, head: HeadModel) -> Cameras:
        """``[1, 1]``: the face, level, from the front, from its brows to the open jaw's chin."""
        params = FlameParams.zeros(2, head.n_shape, head.n_expression, head.faces.device)
        params.jaw_pose[1, 0] = JAW_OPEN
        with torch.no_grad():
            points = head.landmark_points(world_of(head).to_world(head(params)))
        row = {int(index): i for i, index in enumerate(head.landmarks.mediapipe_index)}
        middle = (points[0, row[_BROW], 2] + points[1, row[_CHIN], 2]) / 2
        cameras = Cameras.orbit(0.0, 0.0, self.distance, self.close_fovy_deg, self.size, self.size)
        cameras.c2w[..., 2, 3] += middle.cpu()
        return cameras


def world_of(head: HeadModel, extent: float = 1.5) -> WorldFrame:
    """The world of a head, on its device."""
    return head.world_frame(extent).to(head.faces.device)


def bench_poses(head: HeadModel) -> FlameParams:
    """The four :data:`POSES`, in their order.

    Raises:
        HeadStudioError: a head whose expressions have no names (FLAME itself).
    """
    params = FlameParams.zeros(len(POSES), head.n_shape, head.n_expression)
    params.jaw_pose[JAW, 0] = JAW_OPEN
    for row, names in enumerate(ACTIONS.values()):
        for name in names:
            if name not in head.expression_names:
                raise HeadStudioError(
                    f"head model {head.name!r} has no facial action {name!r}; the benchmark needs "
                    "the open head, load/flame/open_head.npz."
                )
            params.expression[row, head.expression_names.index(name)] = 1.0
    return params


@dataclass
class Figure:
    """Splats on a head of some identity: an avatar, or a character it should look like."""

    splats: Splats
    shape: Tensor  # [n]
    head: HeadModel
    frame: WorldFrame

    @classmethod
    def of_avatar(cls, avatar: Avatar, head: HeadModel) -> Figure:
        """An avatar that was loaded with ``head``; it stays on the head's device."""
        return cls(avatar.splats, avatar.shape, head, world_of(head, avatar.extent))

    @classmethod
    def of_character(
        cls, character: Character, studio: CharacterStudio, extent: float = 1.5
    ) -> Figure:
        """A procedural character, without the splats it does not use."""
        batch = studio.build([character])
        return cls(batch.splats(0), batch.shape[0], studio.head, world_of(studio.head, extent))

    def vertices(self, params: FlameParams, shape: Tensor | None = None) -> Tensor:
        """The posed head ``[P, V, 3]`` in the world, with another identity if one is given."""
        identity = self.shape if shape is None else shape
        params = params.to(self.head.faces.device)
        with torch.no_grad():
            return self.frame.to_world(self.head(params.replace(shape=identity[None])))

    @torch.no_grad()
    def render(
        self,
        vertices: Tensor,
        cameras: Cameras,
        background: tuple[float, float, float],
        features: Tensor | None = None,
    ) -> RenderOutput:
        """Pictures of posed heads ``[P, V, 3]``; ``features [N, K]`` are blended like colours."""
        posed = pose_splats(self.splats, triangle_frames(vertices, self.head.faces))
        ground = torch.tensor(background, device=vertices.device)
        cameras = cameras.to(vertices.device)
        out = render_splats(posed, cameras, background=ground, features=features)
        out.rgb = out.rgb.clamp(0, 1)
        return out


def landmark_pixels(head: HeadModel, vertices: Tensor, cameras: Cameras) -> dict[int, Tensor]:
    """Pixels ``[P, C, 2]`` of the driven landmarks, by their MediaPipe number; on the CPU."""
    points = head.landmark_points(vertices)
    pixels = cameras.to(vertices.device).project(points)[0].cpu()  # [P, C, L, 2]
    return dict(zip(head.landmarks.mediapipe_index.tolist(), pixels.unbind(2), strict=True))
