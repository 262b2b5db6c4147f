"""Cameras, projections, activations and other tensor helpers.

Cameras look along -z with y up (OpenGL); ``c2w`` takes camera coordinates to the world.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from threestudio.utils.chunks import chunk_batch as chunk_batch
from threestudio.utils.errors import UserError


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Scalar product over the last dimension, which is kept: [..., D] -> [..., 1]."""
    return (x * y).sum(-1, keepdim=True)


def reflect(x: Tensor, n: Tensor) -> Tensor:
    """Mirror directions that point away from a surface at its unit normals: [..., 3]."""
    return 2 * dot(x, n) * n - x


def scale_tensor(dat: Tensor, inp_scale: Any, tgt_scale: Any) -> Tensor:
    """Map the range ``inp_scale`` linearly to ``tgt_scale``; each a pair, or [2, D], or (0, 1)."""
    low, high = (0, 1) if inp_scale is None else inp_scale
    to_low, to_high = (0, 1) if tgt_scale is None else tgt_scale
    return (dat - low) / (high - low) * (to_high - to_low) + to_low


class _TruncatedExp(torch.autograd.Function):
    """exp in float32 whose gradient stops growing at x = 15."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.float())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (grad * torch.exp(x.float().clamp(max=15))).to(x.dtype)


trunc_exp = _TruncatedExp.apply


class SpecifyGradient(torch.autograd.Function):
    """``apply(x, grad)``: a loss of 1 whose gradient with respect to ``x`` is ``grad``."""

    @staticmethod
    def forward(ctx: Any, input_tensor: Tensor, gt_grad: Tensor) -> Tensor:
        ctx.save_for_backward(gt_grad)
        # A gradient scaler multiplies this 1, and thereby tells its scale to backward.
        return torch.ones([1], device=input_tensor.device, dtype=input_tensor.dtype)

    @staticmethod
    def backward(ctx: Any, grad_scale: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_scale, None


def linear_to_srgb(x: Tensor) -> Tensor:
    """The sRGB transfer curve (IEC 61966-2-1), clamped to [0, 1]."""
    curve = 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(x > 0.0031308, curve, 12.92 * x).clamp(0.0, 1.0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "lin2srgb": linear_to_srgb,
    "exp": torch.exp,
    "shifted_exp": lambda x: torch.exp(x - 1.0),
    "trunc_exp": trunc_exp,
    "shifted_trunc_exp": lambda x: trunc_exp(x - 1.0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "shifted_softplus": lambda x: F.softplus(x - 1.0),
    "scale_-11_01": lambda x: 0.5 * x + 0.5,
}


def get_activation(name: str | None) -> Callable[[Tensor], Tensor]:
    """An activation by its name; ``None`` and ``"none"`` are the identity.

    Besides those of ``ACTIVATIONS``, everything in ``torch.nn.functional`` has a name.
    """
    name = (name or "none").lower()
    function = ACTIVATIONS.get(name) or getattr(F, name, None)
    if function is None:
        raise UserError(f"unknown activation {name!r}; known are {', '.join(ACTIVATIONS)}")
    return function


def get_ray_directions(
    H: int,
    W: int,
    focal: float | tuple[float, float],
    principal: tuple[float, float] | None = None,
    use_pixel_centers: bool = True,
) -> Tensor:
    """Directions of all pixels' rays in camera coordinates, at depth 1, not normalised.

    Args:
        H, W: picture size in pixels.
        focal: focal length in pixels, or (fx, fy), which needs ``principal``.
        principal: (cx, cy) in pixels; the middle if not given.

    Returns:
        [H, W, 3]: x to the right, y up, z = -1.
    """
    if isinstance(focal, (int, float)):
        fx = fy = focal
        cx, cy = principal or (W / 2, H / 2)
    else:
        if principal is None:
            raise ValueError("two focal lengths need a principal point")
        (fx, fy), (cx, cy) = focal, principal
    centre = 0.5 if use_pixel_centers else 0.0
    x = ((torch.arange(W, dtype=torch.float32) + centre - cx) / fx).expand(H, W)
    y = (-(torch.arange(H, dtype=torch.float32) + centre - cy) / fy)[:, None].expand(H, W)
    return torch.stack([x, y, -torch.ones(H, W)], dim=-1)


def get_rays(
    directions: Tensor,
    c2w: Tensor,
    keepdim: bool = False,
    noise_scale: float = 0.0,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Rays in the world.

    Args:
        directions: in camera coordinates: [N, 3] with one camera or one per ray, or [H, W, 3]
            or [B, H, W, 3].
        c2w: [4, 4], [B, 4, 4], or [N, 4, 4].
        keepdim: keep the pixels' shape; otherwise rays are listed, [-1, 3].
        noise_scale: standard deviation of one random shift of all origins and directions.
        normalize: make directions unit length.

    Returns:
        Origins and directions.
    """
    if directions.shape[-1] != 3:
        raise ValueError(f"directions are [..., 3], not {tuple(directions.shape)}")
    per_ray = directions.ndim == 2
    if c2w.ndim == 2 and directions.ndim != 3:
        c2w = c2w[None]
    if c2w.ndim == 3 and not per_ray:
        c2w = c2w[:, None, None]
    origins, rotation = c2w[..., :3, 3], c2w[..., :3, :3]
    rays_d = (rotation @ directions[..., None])[..., 0]
    rays_o = origins.expand(rays_d.shape)
    if noise_scale > 0:
        rays_o = rays_o + torch.randn(3, device=rays_o.device) * noise_scale
        rays_d = rays_d + torch.randn(3, device=rays_d.device) * noise_scale
    if normalize:
        rays_d = F.normalize(rays_d, dim=-1)
    if not keepdim:
        rays_o, rays_d = rays_o.reshape(-1, 3), rays_d.reshape(-1, 3)
    return rays_o, rays_d


def get_projection_matrix(fovy: Tensor, aspect_wh: float, near: float, far: float) -> Tensor:
    """OpenGL's perspective projection with the y axis turned over, as nvdiffrast wants it.

    Args:
        fovy: [B] vertical field of view in radians.
        aspect_wh: width / height.

    Returns:
        [B, 4, 4].
    """
    matrix = torch.zeros(fovy.shape[0], 4, 4, dtype=torch.float32, device=fovy.device)
    cotangent = 1.0 / torch.tan(fovy / 2)
    matrix[:, 0, 0] = cotangent / aspect_wh
    matrix[:, 1, 1] = -cotangent
    matrix[:, 2, 2] = (far + near) / (near - far)
    matrix[:, 2, 3] = 2.0 * far * near / (near - far)
    matrix[:, 3, 2] = -1.0
    return matrix


def invert_rigid(c2w: Tensor) -> Tensor:
    """The inverse of a rotation and translation: [B, 4, 4] -> [B, 4, 4]."""
    inverse = torch.zeros_like(c2w)
    rotation = c2w[..., :3, :3].transpose(-1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -rotation @ c2w[..., :3, 3:]
    inverse[..., 3, 3] = 1.0
    return inverse


def get_mvp_matrix(c2w: Tensor, proj_mtx: Tensor) -> Tensor:
    """World to clip coordinates: [B, 4, 4] each, and the result."""
    return proj_mtx @ invert_rigid(c2w)


def get_full_projection_matrix(c2w: Tensor, proj_mtx: Tensor) -> Tensor:
    """The product ``c2w @ proj_mtx`` [4, 4], for matrices that are kept transposed."""
    return c2w @ proj_mtx


def convert_pose(C2W: Tensor) -> Tensor:
    """Between OpenGL's and OpenCV's camera axes: y and z are turned over. [..., 4, 4]."""
    return C2W @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], device=C2W.device))


def get_projection_matrix_gaussian(
    znear: float, zfar: float, fovX: float, fovY: float, device: Any = None
) -> Tensor:
    """The projection that 3DGS uses (OpenCV axes, depth in [0, 1]): [4, 4]."""
    matrix = torch.zeros(4, 4, device=device)
    matrix[0, 0] = 1.0 / math.tan(fovX / 2)
    matrix[1, 1] = 1.0 / math.tan(fovY / 2)
    matrix[2, 2] = zfar / (zfar - znear)
    matrix[2, 3] = -zfar * znear / (zfar - znear)
    matrix[3, 2] = 1.0
    return matrix


def get_fov_gaussian(P: Tensor) -> tuple[float, float]:
    """Horizontal and vertical field of view in radians from a projection [4, 4]."""
    return 2 * math.atan(1 / float(P[0, 0])), 2 * math.atan(1 / float(P[1, 1]))


def get_cam_info_gaussian(
    c2w: Tensor, fovx: float, fovy: float, znear: float, zfar: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What 3DGS rasterisers ask of a camera.

    Args:
        c2w: [4, 4], OpenGL axes.
        fovx, fovy: radians.

    Returns:
        World to view [4, 4] and world to clip [4, 4], both transposed, and the centre [3].
    """
    view = torch.inverse(convert_pose(c2w.float())).T
    projection = get_projection_matrix_gaussian(znear, zfar, fovx, fovy, device=c2w.device).T
    return view, view @ projection, c2w[:3, 3].float()


def binary_cross_entropy(input: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy in the arguments' precision, unlike torch's under autocast."""
    return -(target * torch.log(input) + (1 - target) * torch.log(1 - input)).mean()


def shifted_expotional_decay(a: float, b: float, c: float, r: Any) -> Tensor:
    """``a exp(-b r) + c``; the name is threestudio's."""
    return a * torch.exp(-b * torch.as_tensor(r)) + c


def shifted_cosine_decay(a: float, b: float, c: float, r: Any) -> Tensor:
    """``a cos(b r + c) + a``."""
    return a * torch.cos(b * torch.as_tensor(r) + c) + a


def perpendicular_component(x: Tensor, y: Tensor) -> Tensor:
    """The part of each picture ``x`` that is at right angles to ``y``: [B, C, H, W]."""
    along = (x * y).sum((1, 2, 3), keepdim=True)
    length = (y * y).sum((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return x - along / length * y
