"""What a system is made of."""

from threestudio.models import (
    background,
    exporters,
    geometry,
    guidance,
    materials,
    prompt_processors,
    renderers,
)

__all__ = [
    "background",
    "exporters",
    "geometry",
    "guidance",
    "materials",
    "prompt_processors",
    "renderers",
]
