"""Avatars as files for other programs: splats in three formats, and an animatable glTF mesh.

``headstudio.export.head_mesh`` writes the mesh; it alone needs pygltflib.
"""

from headstudio.export.coloring import vertex_colors
from headstudio.export.formats import SUFFIXES, check_format, export_avatar
from headstudio.export.splat_files import SPLAT_FORMATS, UPS, turned, write_splats

__all__ = [
    "SPLAT_FORMATS",
    "SUFFIXES",
    "UPS",
    "check_format",
    "export_avatar",
    "turned",
    "vertex_colors",
    "write_splats",
]
