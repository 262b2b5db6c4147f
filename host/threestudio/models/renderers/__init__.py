"""From shapes to pictures."""

from threestudio.models.renderers import base

__all__ = ["base"]
