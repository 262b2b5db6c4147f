"""Sequences of FLAME parameters: read, write, resample, loop, join, and draw from in training."""

from headstudio.motion.arkit import ARKIT_NAMES, from_arkit
from headstudio.motion.files import load_motion, save_motion
from headstudio.motion.motion import Motion, concatenate, frame_of, loop, resample
from headstudio.motion.sampler import MotionSampler, MotionSamplerConfig, for_head

__all__ = [
    "ARKIT_NAMES",
    "Motion",
    "MotionSampler",
    "MotionSamplerConfig",
    "concatenate",
    "for_head",
    "frame_of",
    "from_arkit",
    "load_motion",
    "loop",
    "resample",
    "save_motion",
]
