"""A diffusion prior and a picture of the face's landmarks -> a gradient on rendered pictures."""

from __future__ import annotations

from headstudio.guidance._mediapipe_topology import CONTROL_LANDMARKS
from headstudio.guidance.drawing import draw_control

__all__ = ["CONTROL_LANDMARKS", "draw_control"]
