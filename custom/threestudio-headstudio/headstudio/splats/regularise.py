"""Losses that keep splats near their triangles and no larger than them (HeadStudio, sec. 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.splats.rig import MIN_AREA, PosedSplats, TriangleFrames, gather_faces


def position_regulariser(
    posed: PosedSplats,
    face: Tensor,
    frames: TriangleFrames,
    threshold: float = 0.5,
    adaptive: bool = False,
) -> Tensor:
    """Mean SmoothL1 of the distance to the triangle's centroid, where it is beyond the threshold.

    Args:
        posed: N splats in P poses.
        face: ``[N]`` int64, the triangle of each.
        frames: those the splats were posed with.
        threshold: times the radius of the triangle (largest vertex-to-centroid distance).
        adaptive: divide each term by the area of its triangle. The areas are weights: no gradient
            reaches the mesh through them.

    Returns:
        A scalar; 0, with zero gradients, where no splat is beyond the threshold.
    """
    distance = torch.linalg.vector_norm(posed.means - gather_faces(frames.origin, face), dim=-1)
    terms = F.smooth_l1_loss(distance, torch.zeros_like(distance), reduction="none")
    return _mean_beyond(distance[..., None], terms[..., None], face, frames, threshold, adaptive)


def scale_regulariser(
    posed: PosedSplats,
    face: Tensor,
    frames: TriangleFrames,
    threshold: float = 0.5,
    adaptive: bool = False,
) -> Tensor:
    """Mean of the standard deviations (world) that are beyond the threshold.

    Arguments and result as for `position_regulariser`; each of a splat's three axes counts.
    """
    return _mean_beyond(posed.scales, posed.scales, face, frames, threshold, adaptive)


def _mean_beyond(
    values: Tensor,
    terms: Tensor,
    face: Tensor,
    frames: TriangleFrames,
    threshold: float,
    adaptive: bool,
) -> Tensor:
    """Mean of ``terms [P, N, K]`` where ``values`` exceed ``threshold`` triangle radii."""
    per_face = torch.stack([frames.radius, frames.area], dim=-1).detach()
    radius, area = gather_faces(per_face, face).split(1, dim=-1)
    beyond = values.detach() > threshold * radius
    if adaptive:
        terms = terms / area.clamp_min(MIN_AREA)
    # A sum over a mask, not a selection: the number of terms never has to reach the host.
    return torch.where(beyond, terms, 0.0).sum() / beyond.sum().clamp_min(1)
