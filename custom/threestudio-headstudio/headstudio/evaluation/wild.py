"""An avatar without a ground truth: all around at rest, and its expressions from the front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstudio.evaluation.stage import Figure, landmark_pixels
from headstudio.flame import FlameParams
from headstudio.guidance import landmark_visibility
from headstudio.motion.expressions import expression_pose
from headstudio.render import Cameras

#: As `headstudio animate` understands them; each is a picture of its own.
EXPRESSIONS = ("neutral", "jawOpen", "smile", "eyeBlinkLeft + eyeBlinkRight")
FRONT_DEG = (-30.0, -15.0, 0.0, 15.0, 30.0)
_AT_ONCE = 8


@dataclass(frozen=True)
class Views:
    """How an avatar is looked at; 120 views all around are those of the authors' release."""

    count: int = 120
    size: int = 512
    distance: float = 2.2
    fovy_deg: float = 45.0
    elevation_deg: float = 5.0
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def around(self) -> Cameras:
        """``[1, count]``: evenly spread, the first from the front."""
        return self._at(torch.arange(self.count) * (360.0 / self.count))

    def front(self) -> Cameras:
        """``[1, 5]``."""
        return self._at(torch.tensor(FRONT_DEG))

    def _at(self, azimuth_deg: Tensor) -> Cameras:
        return Cameras.orbit(
            azimuth_deg, self.elevation_deg, self.distance, self.fovy_deg, self.size, self.size
        )


@dataclass
class Fronts:
    """An expression from the front."""

    pictures: Tensor  # [5, H, W, 3], on the CPU
    driven: dict[int, Tensor]  # pixels [5, 2] by MediaPipe number
    visible: Tensor  # bool [5, L], in the order of ``driven``


def turntable(figure: Figure, views: Views, progress: Callable[[int], None]) -> Tensor:
    """The avatar at rest from all around, ``[count, H, W, 3]``, on the CPU."""
    rest = FlameParams.zeros(1, figure.head.n_shape, figure.head.n_expression)
    vertices = figure.vertices(rest)
    cameras = views.around()
    pictures = []
    for start in range(0, views.count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        some = Cameras(cameras.c2w[:, part], cameras.fovy[:, part], views.size, views.size)
        pictures.append(figure.render(vertices, some, views.background).rgb[0].cpu())
        progress(min(start + _AT_ONCE, views.count))
    return torch.cat(pictures)


def fronts(figure: Figure, views: Views, expressions: Sequence[str]) -> dict[str, Fronts]:
    """Each expression from the front, with the landmarks that drive it."""
    cameras = views.front()
    found = {}
    for text in expressions:
        params = (
            FlameParams.zeros(1, figure.head.n_shape, figure.head.n_expression)
            if text == "neutral"
            else expression_pose(text, figure.head)
        )
        vertices = figure.vertices(params)
        pictures = figure.render(vertices, cameras, views.background).rgb[0].cpu()
        on_device = cameras.to(vertices.device)
        points = figure.head.landmark_points(vertices)
        visible = landmark_visibility(figure.head, vertices, points, on_device)
        pixels = landmark_pixels(figure.head, vertices, on_device)
        driven = {number: where[0] for number, where in pixels.items()}
        found[text] = Fronts(pictures, driven, visible[0].cpu())
    return found
