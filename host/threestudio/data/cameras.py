"""Cameras that look at the middle of the scene, and the lights that go with them.

The world is right-handed with z up. Azimuth 0 is on +x, 90 degrees on +y; elevation counts from
the horizontal plane upwards. Everything is batched over B cameras.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from threestudio.utils.errors import UserError
from threestudio.utils.ops import (
    get_mvp_matrix,
    get_projection_matrix,
    get_ray_directions,
    get_rays,
)

NEAR, FAR = 0.01, 100.0


def uniform(n: int, bounds: Sequence[float]) -> Tensor:
    """n numbers, uniform between two bounds."""
    low, high = bounds
    return torch.rand(n) * (high - low) + low


def on_sphere(elevation: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
    """Positions [B, 3] from angles in degrees and distances, each [B]."""
    elevation, azimuth = torch.deg2rad(elevation), torch.deg2rad(azimuth)
    direction = [
        torch.cos(elevation) * torch.cos(azimuth),
        torch.cos(elevation) * torch.sin(azimuth),
        torch.sin(elevation),
    ]
    return distance[:, None] * torch.stack(direction, dim=-1)


def look_at(position: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Camera-to-world matrices [B, 4, 4], OpenGL axes, from positions, targets, ups [B, 3]."""
    forward = F.normalize(target - position, dim=-1)
    right = F.normalize(torch.linalg.cross(forward, up), dim=-1)
    true_up = torch.linalg.cross(right, forward)
    c2w = torch.eye(4).repeat(position.shape[0], 1, 1)
    c2w[:, :3] = torch.stack([right, true_up, -forward, position], dim=-1)
    return c2w


def projections(c2w: Tensor, fovy: Tensor, height: int, width: int) -> dict[str, Tensor]:
    """``proj_mtx`` and ``mvp_mtx`` [B, 4, 4] for fovy [B] in radians."""
    proj_mtx = get_projection_matrix(fovy, width / height, NEAR, FAR)
    return {"proj_mtx": proj_mtx, "mvp_mtx": get_mvp_matrix(c2w, proj_mtx)}


def pixel_rays(
    c2w: Tensor, fovy: Tensor, height: int, width: int, normalize: bool
) -> dict[str, Tensor]:
    """``rays_o`` and ``rays_d`` [B, H, W, 3] through all pixels' centres."""
    focal = 0.5 * height / torch.tan(0.5 * fovy)
    directions = get_ray_directions(height, width, 1.0).repeat(len(fovy), 1, 1, 1)
    directions[..., :2] /= focal[:, None, None, None]
    rays_o, rays_d = get_rays(directions, c2w, keepdim=True, normalize=normalize)
    return {"rays_o": rays_o, "rays_d": rays_d}


def lights_near_camera(camera: Tensor, distance: Tensor, perturb: float) -> Tensor:
    """Lights [B, 3] at the given distances [B], in directions scattered around the cameras'."""
    direction = F.normalize(camera + torch.randn_like(camera) * perturb, dim=-1)
    return direction * distance[:, None]


def lights_in_cone(camera: Tensor, distance: Tensor) -> Tensor:
    """Lights [B, 3] within 60 degrees of the cameras' directions, at the given distances [B]."""
    n = camera.shape[0]
    z = F.normalize(camera, dim=-1)
    x = F.normalize(torch.stack([z[:, 1], -z[:, 0], torch.zeros(n)], dim=-1), dim=-1)
    frame = torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)
    azimuth, elevation = uniform(n, (-180.0, 180.0)), uniform(n, (30.0, 90.0))
    return (frame @ on_sphere(elevation, azimuth, distance)[..., None])[..., 0]


def sample_lights(
    strategy: str, camera: Tensor, distance_range: Sequence[float], perturb: float
) -> Tensor:
    """Lights [B, 3] by one of the two strategies, ``dreamfusion`` or ``magic3d``."""
    distance = uniform(camera.shape[0], distance_range)
    if strategy == "dreamfusion":
        return lights_near_camera(camera, distance, perturb)
    if strategy == "magic3d":
        return lights_in_cone(camera, distance)
    raise UserError(f"light_sample_strategy is dreamfusion or magic3d, not {strategy!r}")


def sample_elevation(n: int, bounds: Sequence[float], over_sphere: bool) -> Tensor:
    """Elevations [n] in degrees: uniform in angle, or uniform over the sphere's area."""
    if not over_sphere:
        return uniform(n, bounds)
    sines = [math.sin(math.radians(bound)) for bound in bounds]
    return torch.rad2deg(torch.asin(uniform(n, sines)))


def sample_azimuth(n: int, bounds: Sequence[float], spread: bool) -> Tensor:
    """Azimuths [n] in degrees; ``spread`` draws one from each of n equal parts of the range."""
    if not spread:
        return uniform(n, bounds)
    low, high = bounds
    return (torch.rand(n) + torch.arange(n)) / n * (high - low) + low
