"""What the control image is made of: MediaPipe landmarks, how they are joined, in what colour.

The landmark numbers are MediaPipe's (478 points: 468 of the face mesh, then two irises of five).
Grouping, colours, line width and drawing order are those of controlnet_aux's MediaPipe-face
annotator, because the pictures it drew are what ControlNetMediaPipeFace was trained on.
"Left" and "right" are the subject's. Each chain is a polyline, walked from its first number to its
last: OpenCV's rasterised line depends on its direction, so the direction is part of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class ContourGroup:
    """Polylines that share a colour (RGB, 0-255)."""

    name: str
    rgb: tuple[int, int, int]
    chains: tuple[tuple[int, ...], ...]

    def edges(self) -> list[tuple[int, int]]:
        """The connections (start, end), by MediaPipe number."""
        return [edge for chain in self.chains for edge in pairwise(chain)]


@dataclass(frozen=True)
class Pupil:
    """A filled square around one iris centre."""

    name: str
    rgb: tuple[int, int, int]
    landmark: int


# fmt: off
FACE_OVAL = ContourGroup("face_oval", (10, 200, 10), (
    (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
     148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),
))
LEFT_EYE = ContourGroup("left_eye", (10, 200, 180), (
    (263, 249, 390, 373, 374, 380, 381, 382, 362),  # lower lid
    (263, 466, 388, 387, 386, 385, 384, 398, 362),  # upper lid
))
LEFT_BROW = ContourGroup("left_brow", (10, 220, 180), (
    (276, 283, 282, 295, 285),
    (300, 293, 334, 296, 336),
))
RIGHT_EYE = ContourGroup("right_eye", (180, 200, 10), (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
))
RIGHT_BROW = ContourGroup("right_brow", (180, 220, 10), (
    (46, 53, 52, 65, 55),
    (70, 63, 105, 66, 107),
))
LIPS = ContourGroup("lips", (10, 180, 10), (
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),  # lower, outer
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),  # upper, outer
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),  # lower, inner
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),  # upper, inner
))
# fmt: on

# In drawing order: where two overlap, the later one covers the earlier one.
CONTOURS: tuple[ContourGroup, ...] = (FACE_OVAL, LEFT_EYE, LEFT_BROW, RIGHT_EYE, RIGHT_BROW, LIPS)
# Pupils cover the contours.
PUPILS: tuple[Pupil, ...] = (
    Pupil("right_pupil", (250, 200, 10), 468),
    Pupil("left_pupil", (10, 200, 250), 473),
)

# At this picture height lines are LINE_THICKNESS wide and a pupil's square reaches
# PUPIL_HALF_WIDTH to either side; the annotator detects and draws at 512 px.
REFERENCE_HEIGHT = 512
LINE_THICKNESS = 2
PUPIL_HALF_WIDTH = 2

#: Every landmark that the control image needs, in ascending order.
CONTROL_LANDMARKS: tuple[int, ...] = tuple(
    sorted(
        {index for group in CONTOURS for chain in group.chains for index in chain}
        | {pupil.landmark for pupil in PUPILS}
    )
)
