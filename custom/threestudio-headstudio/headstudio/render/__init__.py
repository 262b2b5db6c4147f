"""Splats and cameras to pictures: gsplat on CUDA, numba kernels on the CPU.

    cameras = Cameras.orbit(azimuth_deg=0, elevation_deg=10, distance=2.5, fovy_deg=40,
                            height=256, width=256)
    picture = render(means, quats, scales, opacities, colors, cameras).rgb  # [1, 1, 256, 256, 3]

``headstudio.render.mesh`` draws triangle meshes with the same cameras.
"""

from __future__ import annotations

from headstudio.render.api import Backend, RenderOutput, render, render_splats
from headstudio.render.cameras import Cameras

__all__ = ["Backend", "Cameras", "RenderOutput", "render", "render_splats"]
