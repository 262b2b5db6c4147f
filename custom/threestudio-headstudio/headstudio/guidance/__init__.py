"""A diffusion prior and a picture of the face's landmarks -> a gradient on rendered pictures."""

from __future__ import annotations

from headstudio.guidance._mediapipe_topology import CONTROL_LANDMARKS

__all__ = ["CONTROL_LANDMARKS"]
