"""Avatars that are played fast: parameters in, pictures out, on a CPU and in CUDA graphs."""

from headstudio.animation.fast_player import FastPlayer
from headstudio.animation.pictures import Pictures

__all__ = ["FastPlayer", "Pictures"]
