"""Splats where none belong, and none where some do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HOLE_DEPTH = 0.1  # world units: 2 cm of a head 1.5 units long
HOLE_OPACITY = 0.5


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Bool ``[..., H, W]`` grown by ``radius`` pixels in every direction (a disc)."""
    if radius <= 0:
        return mask
    span = torch.arange(-radius, radius + 1, device=mask.device)
    disc = (span[:, None] ** 2 + span[None] ** 2 <= radius**2).float()
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    grown = F.conv2d(flat, disc[None, None], padding=radius) > 0.5
    return grown.reshape(mask.shape)


def floaters(alpha: Tensor, truth: Tensor, radius: int) -> Tensor:
    """Opacity outside the silhouette of the ground truth, as a share of the silhouette's area.

    Σ max(α − α*, 0) over the pixels outside the grown silhouette / pixels of the silhouette. The
    silhouette is where α* is above a half; what the ground truth itself has outside of it, such as
    the ends of single hairs, is no floater.

    Args:
        alpha: ``[B, H, W]``, of the avatar.
        truth: ``[B, H, W]``, α*.
        radius: pixels by which the silhouette is grown first.

    Returns:
        ``[B]``.
    """
    silhouette = truth > 0.5
    outside = (alpha - truth).clamp(min=0) * ~dilate(silhouette, radius)
    return outside.flatten(1).sum(1) / silhouette.flatten(1).sum(1).clamp(min=1)


def holes(
    alpha: Tensor, depth: Tensor, mesh_depth: Tensor, region: Tensor, margin: float = HOLE_DEPTH
) -> Tensor:
    """Share of a region's pixels where one looks through the surface.

    A pixel is a hole if less than half of it is covered, or if what covers it lies more than
    ``margin`` behind the driving mesh: through a gap in the face one sees the back of the head
    from within, which is opaque.

    Args:
        alpha: ``[B, H, W]``; depth: ``[B, H, W]``, that of the splats, expected.
        mesh_depth: ``[B, H, W]``, that of the driving mesh, 0 where there is none.
        region: bool ``[B, H, W]``.
        margin: world units.

    Returns:
        ``[B]``; 0 where the region is empty.
    """
    region = region & (mesh_depth > 0)
    hole = (alpha < HOLE_OPACITY) | (depth > mesh_depth + margin)
    return (hole & region).flatten(1).sum(1) / region.flatten(1).sum(1).clamp(min=1)
