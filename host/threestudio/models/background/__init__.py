"""What is behind."""

from threestudio.models.background import base, solid_color_background

__all__ = ["base", "solid_color_background"]
