"""A diffusion prior and a picture of the face's landmarks -> a gradient on rendered pictures."""

from __future__ import annotations

from headstudio.guidance._mediapipe_topology import CONTROL_LANDMARKS
from headstudio.guidance.control_image import control_image, landmark_visibility
from headstudio.guidance.distillation import DistillationConfig, ScoreDistillation
from headstudio.guidance.drawing import draw_control
from headstudio.guidance.prior import DiffusionPrior
from headstudio.guidance.sampling import sample

__all__ = [
    "CONTROL_LANDMARKS",
    "DiffusionPrior",
    "DistillationConfig",
    "ScoreDistillation",
    "control_image",
    "draw_control",
    "landmark_visibility",
    "sample",
]
