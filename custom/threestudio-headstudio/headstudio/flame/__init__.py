"""A head model in FLAME's format: load it safely, pose it, find its landmarks."""

from headstudio.flame.files import HeadArrays, read_head
from headstudio.flame.frame import WorldFrame
from headstudio.flame.landmarks import LandmarkEmbedding
from headstudio.flame.model import HeadModel
from headstudio.flame.npz import read_npz
from headstudio.flame.params import POSE_NAMES, FlameParams

__all__ = [
    "POSE_NAMES",
    "FlameParams",
    "HeadArrays",
    "HeadModel",
    "LandmarkEmbedding",
    "WorldFrame",
    "read_head",
    "read_npz",
]
