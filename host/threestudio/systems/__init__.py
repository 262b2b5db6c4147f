"""What is trained."""

from threestudio.systems import base

__all__ = ["base"]
