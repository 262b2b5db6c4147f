"""Head avatars from a sentence: 3D Gaussian splats rigged to FLAME.

The rooms, each importing only those to its right:
``app -> plugin -> guidance, render, characters -> splats, motion -> flame``.
"""

__version__ = "0.1.0"
