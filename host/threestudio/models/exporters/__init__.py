"""From shapes to files."""

from threestudio.models.exporters import base

__all__ = ["base"]
