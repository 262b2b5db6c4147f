"""Sequences of FLAME parameters: read, write, resample, loop, join, and draw from in training."""

from headstudio.motion.actions import Actions, arkit_actions
from headstudio.motion.arkit import ARKIT_NAMES, from_arkit
from headstudio.motion.expression_table import EXPRESSIONS
from headstudio.motion.expressions import expression_pose, parse_face, parse_script
from headstudio.motion.files import load_motion, save_motion
from headstudio.motion.motion import FLAME_NAMES, Motion, concatenate, frame_of, loop, resample
from headstudio.motion.readers import Recording, read_motion, read_recording
from headstudio.motion.retarget import for_head
from headstudio.motion.sampler import MotionSampler, MotionSamplerConfig
from headstudio.motion.script import script_motion

__all__ = [
    "ARKIT_NAMES",
    "EXPRESSIONS",
    "FLAME_NAMES",
    "Actions",
    "Motion",
    "MotionSampler",
    "MotionSamplerConfig",
    "Recording",
    "arkit_actions",
    "concatenate",
    "expression_pose",
    "for_head",
    "frame_of",
    "from_arkit",
    "load_motion",
    "loop",
    "parse_face",
    "parse_script",
    "read_motion",
    "read_recording",
    "resample",
    "save_motion",
    "script_motion",
]
