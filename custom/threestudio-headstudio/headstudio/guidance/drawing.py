"""Landmarks in the picture -> the control image, pixel for pixel as the annotator draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.guidance._mediapipe_topology import (
    CONTOURS,
    CONTROL_LANDMARKS,
    LINE_THICKNESS,
    PUPIL_HALF_WIDTH,
    PUPILS,
    REFERENCE_HEIGHT,
)
from headstudio.guidance._spans import covered, line_spans, square_spans
from headstudio.on_device import constant


def line_thickness(height: int) -> int:
    """Width of the lines in a picture of this height: 2 px at 512, never less than 1."""
    return max(1, round(LINE_THICKNESS * height / REFERENCE_HEIGHT))


def pupil_half_width(height: int) -> int:
    """Half the side of the squares that mark pupils: 2 px at 512, never less than 1."""
    return max(1, round(PUPIL_HALF_WIDTH * height / REFERENCE_HEIGHT))


def draw_control(
    points2d: Tensor,  # [B, L, 2]
    visible: Tensor,  # [B, L] bool
    mediapipe_index: Tensor | Sequence[int],  # [L]
    height: int,
    width: int,
    thickness: int | None = None,
    half_width: int | None = None,
) -> Tensor:  # [B, height, width, 3]
    """Draw the face's contours and pupils as controlnet_aux's MediaPipe-face annotator does.

    At 512 px the picture is the annotator's own, bit for bit, for the same landmarks. A connection
    is drawn when both its ends are visible and inside the picture.

    Args:
        points2d: pixels (x to the right, y down); the picture covers [0, width] x [0, height].
        visible: which landmarks are to be drawn.
        mediapipe_index: which of MediaPipe's landmarks each of the L is.
        height: of the picture.
        width: of the picture.
        thickness: of lines, px; by default :func:`line_thickness` of the height.
        half_width: of pupils, px; by default :func:`pupil_half_width` of the height.

    Returns:
        RGB in [0, 1], float32, on black, on the device of ``points2d``. Carries no gradient.

    Raises:
        HeadStudioError: if shapes do not fit or a landmark that is to be drawn is not among the L.
    """
    index = tuple(
        mediapipe_index.tolist() if isinstance(mediapipe_index, Tensor) else mediapipe_index
    )
    if points2d.shape[1:] != (len(index), 2) or visible.shape != points2d.shape[:2]:
        raise HeadStudioError(
            f"points2d has shape {list(points2d.shape)} and visible {list(visible.shape)}; "
            f"expected [B, {len(index)}, 2] and [B, {len(index)}], one entry for each of the "
            f"{len(index)} landmarks."
        )
    thickness = line_thickness(height) if thickness is None else thickness
    half_width = pupil_half_width(height) if half_width is None else half_width
    if min(height, width, thickness, half_width) < 1:
        raise HeadStudioError(
            f"cannot draw {thickness} px lines and pupils of half width {half_width} px in a "
            f"picture of {width} x {height}: all must be at least 1."
        )
    plan = _plan(index, points2d.device)

    points2d = points2d.detach()
    size = constant((width, height), points2d)
    inside = (points2d >= 0) & (points2d <= size)  # a NaN is outside
    drawn = visible & inside.all(dim=-1)
    # The annotator lets lines end on the far border itself, but not pupils.
    pupil_drawn = drawn & (points2d < size).all(dim=-1)
    pixel = torch.where(drawn[..., None], points2d, 0).floor().long()
    pixel = torch.minimum(pixel, size.long() - 1)

    lines = line_spans(pixel[:, plan.start], pixel[:, plan.end], thickness, height, width)
    both = drawn[:, plan.start] & drawn[:, plan.end]
    lines = lines._replace(valid=lines.valid & both[..., None])
    squares = square_spans(pixel[:, plan.pupil], half_width)
    squares = squares._replace(valid=squares.valid & pupil_drawn[:, plan.pupil, None])

    n_contours, n_layers = len(CONTOURS), len(CONTOURS) + len(PUPILS)
    mask = torch.cat(
        [
            covered(lines, plan.line_layer, n_contours, height, width),
            covered(squares, plan.pupil_layer, len(PUPILS), height, width),
        ],
        dim=1,
    )
    # The topmost layer at a pixel gives its colour; colour 0 is the ground.
    rank = torch.arange(1, n_layers + 1, device=mask.device, dtype=torch.uint8)
    top = (mask * rank[:, None, None]).amax(dim=1)
    return plan.palette[top.long()]


@dataclass(frozen=True)
class _Plan:
    """What is drawn, as positions among the L landmarks, on one device."""

    start: Tensor  # [S] where the lines begin
    end: Tensor  # [S]
    line_layer: Tensor  # [S] 0 .. number of contour groups - 1
    pupil: Tensor  # [number of pupils]
    pupil_layer: Tensor
    palette: Tensor  # [1 + number of layers, 3] RGB in [0, 1]; the first is black


@lru_cache(maxsize=16)
def _plan(mediapipe_index: tuple[int, ...], device: torch.device) -> _Plan:
    position = {landmark: i for i, landmark in enumerate(mediapipe_index)}
    missing = [landmark for landmark in CONTROL_LANDMARKS if landmark not in position]
    if missing:
        raise HeadStudioError(
            f"the control image needs {len(CONTROL_LANDMARKS)} of MediaPipe's landmarks; missing "
            f"{missing}. Embed them with tools/embed_landmarks.py."
        )
    edges = [
        (position[a], position[b], layer)
        for layer, group in enumerate(CONTOURS)
        for a, b in group.edges()
    ]
    start, end, line_layer = torch.tensor(edges, device=device).unbind(dim=-1)
    colours = [(0, 0, 0), *(group.rgb for group in CONTOURS), *(pupil.rgb for pupil in PUPILS)]
    return _Plan(
        start=start,
        end=end,
        line_layer=line_layer,
        pupil=torch.tensor([position[pupil.landmark] for pupil in PUPILS], device=device),
        pupil_layer=torch.arange(len(PUPILS), device=device),
        # Divided on the host: CUDA divides by a number through its reciprocal, one bit off.
        palette=(torch.tensor(colours, dtype=torch.float32) / 255).to(device),
    )
