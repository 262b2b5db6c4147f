"""Cameras that look where they should, whatever the host computed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from threestudio.utils.ops import get_mvp_matrix


def look_at(positions: Tensor, center: Tensor, up: Tensor) -> Tensor:
    """Cameras at ``positions`` that look at ``center``: ``c2w [B, 4, 4]``, OpenGL's convention.

    Args:
        positions, center, up: ``[B, 3]``; ``up`` need not be a right angle to the line of sight.
    """
    forward = F.normalize(center - positions, dim=-1)
    right = F.normalize(torch.linalg.cross(forward, up, dim=-1), dim=-1)
    upward = torch.linalg.cross(right, forward, dim=-1)
    c2w = torch.eye(4, dtype=positions.dtype, device=positions.device).repeat(len(positions), 1, 1)
    c2w[:, :3] = torch.stack([right, upward, -forward, positions], dim=-1)
    return c2w


def aim_again(batch: dict[str, Any], center_perturb: float, up_perturb: float) -> None:
    """Aim the cameras of a batch of three, which threestudio gets wrong, in place.

    threestudio 0.2.3 takes its cross products along the first dimension of size 3. Of three cameras
    that is the one of cameras, and they come out skewed. Where they stand is right; what they look
    at and which way is up is drawn here as there: around the origin, and around +z.
    """
    positions = batch["camera_positions"]
    if len(positions) != 3:
        return
    center = center_perturb * torch.randn_like(positions)
    up = torch.tensor([0.0, 0.0, 1.0]).to(positions) + up_perturb * torch.randn_like(positions)
    batch["c2w"] = look_at(positions, center, up)
    batch["mvp_mtx"] = get_mvp_matrix(batch["c2w"], batch["proj_mtx"])
