"""Splat rendering in plain PyTorch: slow, readable, differentiable by autograd.

What the kernels are tested against and measured against. It follows "EWA Volume Splatting"
(Zwicker et al. 2001) as used by 3D Gaussian Splatting (Kerbl et al. 2023), with gsplat's constants.
Works in float32 and float64, on any device. It goes tile by tile, because a dense [N, H * W]
matrix of 10 000 splats at 128 px and its gradient do not fit into a laptop's memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstudio.render import constants
from headstudio.render.cameras import Cameras

TILE = 16


def quats_to_rotations(quats: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of quaternions ``[..., 4]``, wxyz, of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def project(
    means: Tensor,  # [P, N, 3]
    quats: Tensor,  # [P, N, 4]
    scales: Tensor,  # [P, N, 3]
    opacities: Tensor,  # [P or 1, N]
    cameras: Cameras,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project splats to ellipses in the pictures.

    Returns:
        means2d ``[P, C, N, 2]`` px; conics ``[P, C, N, 3]``, the upper triangle of the inverse
        2D covariance; depths ``[P, C, N]`` along the viewing axis; radii ``[P, C, N, 2]`` px,
        half sizes of the box outside which the splat cannot be seen, 0 where it is culled.
    """
    height, width = cameras.height, cameras.width
    viewmats = cameras.viewmats().to(means.dtype)
    focal = cameras.focal().to(means.dtype)[..., None]
    rotation = viewmats[..., :3, :3]

    centre = torch.einsum("pcij,pnj->pcni", rotation, means) + viewmats[..., None, :3, 3]
    x, y, depth = centre.unbind(-1)
    culled = (depth < cameras.near) | (depth > cameras.far)
    z = torch.where(culled, 1.0, depth)  # keeps the divisions of culled splats finite
    means2d = torch.stack([focal * x / z + 0.5 * width, focal * y / z + 0.5 * height], dim=-1)

    margin = 1 + constants.FOV_MARGIN
    limit_x, limit_y = margin * 0.5 * width / focal, margin * 0.5 * height / focal
    ray_x = torch.minimum(torch.maximum(x / z, -limit_x), limit_x)
    ray_y = torch.minimum(torch.maximum(y / z, -limit_y), limit_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [focal / z, zero, -focal * ray_x / z, zero, focal / z, -focal * ray_y / z], dim=-1
    ).unflatten(-1, (2, 3))

    axes = quats_to_rotations(quats) * scales[..., None, :]
    spread = jacobian @ rotation[:, :, None] @ axes[:, None]  # [P, C, N, 2, 3]
    covariance = spread @ spread.transpose(-1, -2)
    a = covariance[..., 0, 0] + constants.EPS2D
    b = covariance[..., 0, 1]
    c = covariance[..., 1, 1] + constants.EPS2D
    determinant = a * c - b * b
    conics = torch.stack([c, -b, a], dim=-1) / determinant[..., None]

    with torch.no_grad():
        faint = opacities < constants.MIN_ALPHA
        visible_to = 2 * (opacities.clamp(min=constants.MIN_ALPHA) / constants.MIN_ALPHA).log()
        extent = visible_to.sqrt().clamp(max=constants.EXTENT)[:, None]
        radii = torch.stack([(extent * a.sqrt()).ceil(), (extent * c.sqrt()).ceil()], dim=-1)
        size = means2d.new_tensor([width, height])
        outside = ((means2d + radii <= 0) | (means2d - radii >= size)).any(-1)
        outside |= (radii == 0).any(-1)
        radii[culled | outside | faint[:, None]] = 0
    return means2d, conics, depth, radii.int()


def composite(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    values: Tensor,  # [N, K]
    depths: Tensor,  # [N]
    radii: Tensor,  # [N, 2]
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Blend the splats of one picture from front to back.

    Returns:
        accumulated values ``[H, W, K]`` and alpha ``[H, W, 1]``.
    """
    visible = torch.nonzero((radii > 0).all(-1))[:, 0]
    order = visible[torch.sort(depths[visible], stable=True).indices]
    low, high = means2d[order] - radii[order], means2d[order] + radii[order]
    strips, alpha_strips = [], []
    for top in range(0, height, TILE):
        row, alpha_row = [], []
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            hit = (low[:, 0] < right) & (high[:, 0] > left)
            hit &= (low[:, 1] < bottom) & (high[:, 1] > top)
            ids = order[hit]
            py, px = torch.meshgrid(
                torch.arange(top, bottom, device=means2d.device) + 0.5,
                torch.arange(left, right, device=means2d.device) + 0.5,
                indexing="ij",
            )
            pixels = torch.stack([px, py], dim=-1).to(means2d.dtype)
            weights = _weights(means2d[ids], conics[ids], opacities[ids], pixels)
            row.append(torch.einsum("nhw,nk->hwk", weights, values[ids]))
            alpha_row.append(weights.sum(0)[..., None])
        strips.append(torch.cat(row, dim=1))
        alpha_strips.append(torch.cat(alpha_row, dim=1))
    return torch.cat(strips), torch.cat(alpha_strips)


def _weights(means2d: Tensor, conics: Tensor, opacities: Tensor, pixels: Tensor) -> Tensor:
    """Share of each pixel ``[n, h, w]`` that each splat, sorted from the front, gives."""
    dx, dy = (means2d[:, None, None, :] - pixels).unbind(-1)
    a, b, c = (value[:, None, None] for value in conics.unbind(-1))
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities[:, None, None] * torch.exp(-sigma)).clamp(max=constants.MAX_ALPHA)
    alpha = torch.where((sigma >= 0) & (alpha >= constants.MIN_ALPHA), alpha, 0.0)
    with torch.no_grad():
        unfinished = torch.cumprod(1 - alpha, dim=0) > constants.MIN_TRANSMITTANCE
    alpha = torch.where(unfinished, alpha, 0.0)
    after = torch.cumprod(1 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    return alpha * before


def rasterize(
    means: Tensor,  # [P, N, 3]
    quats: Tensor,  # [P, N, 4]
    scales: Tensor,  # [P, N, 3]
    opacities: Tensor,  # [P or 1, N]
    values: Tensor,  # [P or 1, N, K]
    cameras: Cameras,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Project and blend every picture; the shape of all backends' entry.

    Returns:
        accumulated values ``[P, C, H, W, K]``, accumulated depth ``[P, C, H, W, 1]``, alpha
        ``[P, C, H, W, 1]``, means2d ``[P, C, N, 2]``, radii ``[P, C, N, 2]``.
    """
    means2d, conics, depths, radii = project(means, quats, scales, opacities, cameras)
    if means2d.requires_grad:
        means2d.retain_grad()
    pictures, alphas = [], []
    for p in range(cameras.poses):
        own_opacities = opacities[p if opacities.shape[0] > 1 else 0]
        own_values = values[p if values.shape[0] > 1 else 0]
        for c in range(cameras.views):
            picture, alpha = composite(
                means2d[p, c],
                conics[p, c],
                own_opacities,
                torch.cat([own_values, depths[p, c, :, None]], dim=-1),
                depths[p, c],
                radii[p, c],
                cameras.height,
                cameras.width,
            )
            pictures.append(picture)
            alphas.append(alpha)
    shape = (cameras.poses, cameras.views)
    blended = torch.stack(pictures).unflatten(0, shape)
    alpha = torch.stack(alphas).unflatten(0, shape)
    return blended[..., :-1], blended[..., -1:], alpha, means2d, radii
