"""Posed splats in the layout that viser's page draws them from.

The page takes one buffer for all splats, and takes it as a whole: there is no smaller update than
all of it. So what never changes (colour, opacity, a splat's shape on its own triangle) is put in
place once, and a pose writes positions and covariances only.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from headstudio.render.reference import quats_to_rotations
from headstudio.splats import Splats, TriangleFrames

HEAD_UNITS = 256.0
"""Units of the buffer to the longest extent of the head.

The page has covariances in half precision, whose normal numbers go from 6e-5 to 65504: in world
units (a head of 1.5, splats of 0.005) they would be subnormal and lose most of their digits. In
these, standard deviations from a thirty-thousandth of a head to a whole one are exact to 0.05 %.
"""
_LARGEST = 65504.0
_UPPER_TRIANGLE = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class SplatBuffer:
    """The buffer of N splats, ``[N, 8]`` uint32: x, y, z (float32), a word that the page uses
    itself, the covariance's upper triangle (6 x float16), and RGBA (4 x uint8).

    Args:
        splats: triangle-local.
        extent: longest extent of the head in world units.
    """

    def __init__(self, splats: Splats, extent: float) -> None:
        splats = splats.detach().to("cpu")
        self._face = splats.face
        self._units = HEAD_UNITS / extent
        axes = quats_to_rotations(splats.quats) * splats.scales.exp()[:, None, :]
        # Position and axes take the same turn and growth: one product does both.
        self._local = torch.cat([axes, splats.means[:, :, None]], dim=2)  # [N, 3, 3 axes + 1]
        self.array = np.zeros((splats.n, 8), np.uint32)
        rgba = torch.cat([splats.rgb(), splats.opacities.sigmoid()[:, None]], dim=1)
        levels = (rgba.clamp(0, 1) * 255).round().to(torch.uint8)
        self.array[:, 7:] = levels.numpy().view("<u4")

    @property
    def scale(self) -> float:
        """World units to a unit of the buffer; what the scene node is to be scaled by."""
        return 1.0 / self._units

    def pose(self, frames: TriangleFrames) -> np.ndarray:
        """Write one pose, and return the buffer itself.

        Positions and covariances are those of `headstudio.splats.pose_splats`: ``T + k R mu'`` and
        ``(k R A)(k R A)^T``, where A has the splat's own axes times their standard deviations.

        Args:
            frames: the triangles in world space; of several poses the first is taken.
        """
        grow = frames.scale[0, :, None] * self._units
        table = torch.cat(
            [frames.rotation[0].flatten(1) * grow, frames.origin[0] * self._units], dim=1
        )
        turn, origin = F.embedding(self._face, table).split([9, 3], dim=1)
        posed = torch.bmm(turn.view(-1, 3, 3), self._local)
        rows = posed[:, :, :3].unbind(1)
        covariance = torch.stack([(rows[i] * rows[j]).sum(-1) for i, j in _UPPER_TRIANGLE], dim=1)
        half = covariance.clamp(-_LARGEST, _LARGEST).half()
        self.array[:, :3] = (posed[:, :, 3] + origin).numpy().view(np.uint32)
        self.array[:, 4:7] = half.numpy().view(np.uint32)
        return self.array
