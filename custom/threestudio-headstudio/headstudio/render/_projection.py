"""Numba kernels that project splats to ellipses, forward and backward.

Σ' = J W R S Sᵀ Rᵀ Wᵀ Jᵀ + 0.3 I, written as B Bᵀ + 0.3 I with B = J W R S (2 x 3). The arithmetic
is float64 in registers, as the determinant of a long thin ellipse cancels in float32.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from headstudio.render import constants
from headstudio.render._jit import Array, helper, kernel

EPS2D = constants.EPS2D
EXTENT = constants.EXTENT
MIN_ALPHA = constants.MIN_ALPHA
MARGIN = 1.0 + constants.FOV_MARGIN
BLOCK = 256
"""Splats handled with one set of scratch matrices."""


@helper()
def _rotation(quat: Array, rotation: Array) -> float:
    """Write the rotation matrix of a wxyz quaternion; returns its length."""
    length = math.sqrt(
        float(quat[0]) ** 2 + float(quat[1]) ** 2 + float(quat[2]) ** 2 + float(quat[3]) ** 2
    )
    length = max(length, 1e-12)
    w, x, y, z = quat[0] / length, quat[1] / length, quat[2] / length, quat[3] / length
    rotation[0, 0] = 1 - 2 * (y * y + z * z)
    rotation[0, 1] = 2 * (x * y - w * z)
    rotation[0, 2] = 2 * (x * z + w * y)
    rotation[1, 0] = 2 * (x * y + w * z)
    rotation[1, 1] = 1 - 2 * (x * x + z * z)
    rotation[1, 2] = 2 * (y * z - w * x)
    rotation[2, 0] = 2 * (x * z - w * y)
    rotation[2, 1] = 2 * (y * z + w * x)
    rotation[2, 2] = 1 - 2 * (x * x + y * y)
    return length


@helper()
def _spread(
    view: Array,
    rotation: Array,
    scale: Array,
    fz: float,
    ray_x: float,
    ray_y: float,
    axes: Array,
    spread: Array,
) -> None:
    """Write A = W R S (3 x 3) and B = J A (2 x 3), with J = fz [[1, 0, -rx], [0, 1, -ry]]."""
    for j in range(3):
        for i in range(3):
            axes[i, j] = scale[j] * (
                view[i, 0] * rotation[0, j]
                + view[i, 1] * rotation[1, j]
                + view[i, 2] * rotation[2, j]
            )
        spread[0, j] = fz * (axes[0, j] - ray_x * axes[2, j])
        spread[1, j] = fz * (axes[1, j] - ray_y * axes[2, j])


@helper()
def _covariance(spread: Array) -> tuple[float, float, float, float]:
    """The 2D covariance (a, b, c) = [[a, b], [b, c]] and its determinant."""
    b0, b1 = spread[0], spread[1]
    a = b0[0] * b0[0] + b0[1] * b0[1] + b0[2] * b0[2] + EPS2D
    b = b0[0] * b1[0] + b0[1] * b1[1] + b0[2] * b1[2]
    c = b1[0] * b1[0] + b1[1] * b1[1] + b1[2] * b1[2] + EPS2D
    return a, b, c, a * c - b * b


@helper()
def _to_camera(view: Array, mean: Array) -> tuple[float, float, float]:
    x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
    y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
    z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
    return x, y, z


@helper()
def _project_one(
    view: Array,
    mean: Array,
    rotation: Array,
    scale: Array,
    opacity: float,
    focal: float,
    height: int,
    width: int,
    near: float,
    far: float,
    axes: Array,
    spread: Array,
    mean2d: Array,
    conic: Array,
    depth: Array,
    radius: Array,
) -> None:
    """Write where one camera sees a splat of axes ``rotation * scale``; zeros if it is culled."""
    mean2d[:] = 0
    conic[:] = 0
    depth[0] = 0
    radius[:] = 0
    x, y, z = _to_camera(view, mean)
    if not (near <= z <= far) or not opacity >= MIN_ALPHA:
        return
    limit_x, limit_y = MARGIN * 0.5 * width / focal, MARGIN * 0.5 * height / focal
    ray_x = min(limit_x, max(-limit_x, x / z))
    ray_y = min(limit_y, max(-limit_y, y / z))
    _spread(view, rotation, scale, focal / z, ray_x, ray_y, axes, spread)
    a, b, c, determinant = _covariance(spread)
    extent = min(EXTENT, math.sqrt(2 * math.log(opacity / MIN_ALPHA)))
    u, v = focal * x / z + 0.5 * width, focal * y / z + 0.5 * height
    radius_x = np.ceil(extent * math.sqrt(a))
    radius_y = np.ceil(extent * math.sqrt(c))
    inside = u + radius_x > 0 and u - radius_x < width
    inside = inside and v + radius_y > 0 and v - radius_y < height
    # Also false for what is not finite, so that no NaN reaches the tiles.
    if not (inside and radius_x > 0 and radius_y > 0 and determinant > 0):
        return
    mean2d[0], mean2d[1] = u, v
    conic[0] = c / determinant
    conic[1] = -b / determinant
    conic[2] = a / determinant
    depth[0] = z
    radius[0] = int(min(radius_x, 1e6))
    radius[1] = int(min(radius_y, 1e6))


@kernel()
def project_forward(
    means: Array,  # [P, N, 3] f32
    quats: Array,  # [P, N, 4] f32
    scales: Array,  # [P, N, 3] f32
    opacities: Array,  # [P or 1, N] f32
    viewmats: Array,  # [P, C, 4, 4] f64
    focals: Array,  # [P, C] f64
    height: int,
    width: int,
    near: float,
    far: float,
    means2d: Array,  # out [P, C, N, 2] f32
    conics: Array,  # out [P, C, N, 3] f32
    depths: Array,  # out [P, C, N] f32
    radii: Array,  # out [P, C, N, 2] i32
) -> None:
    """Fill the outputs; culled splats get zeros everywhere."""
    n_poses, n_splats = means.shape[0], means.shape[1]
    n_views = viewmats.shape[1]
    n_blocks = (n_splats + BLOCK - 1) // BLOCK
    for job in numba.prange(n_poses * n_blocks):
        p = job // n_blocks
        first = (job % n_blocks) * BLOCK
        rotation, axes, spread = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
        for n in range(first, min(first + BLOCK, n_splats)):
            opacity = float(opacities[p if opacities.shape[0] > 1 else 0, n])
            _rotation(quats[p, n], rotation)
            for cam in range(n_views):
                _project_one(
                    viewmats[p, cam], means[p, n], rotation, scales[p, n], opacity,
                    focals[p, cam], height, width, near, far, axes, spread,
                    means2d[p, cam, n], conics[p, cam, n], depths[p, cam, n : n + 1],
                    radii[p, cam, n],
                )  # fmt: skip


@kernel()
def project_grouped(
    maps: Array,  # [P, G, 3, 4] f32
    group: Array,  # [N] i64
    means: Array,  # [N, 3] f32, in the group's coordinates
    axes: Array,  # [N, 3, 3] f32, columns; likewise
    opacities: Array,  # [N] f32
    viewmats: Array,  # [P, C, 4, 4] f64
    focals: Array,  # [P, C] f64
    height: int,
    width: int,
    near: float,
    far: float,
    means2d: Array,  # out, all as project_forward's
    conics: Array,
    depths: Array,
    radii: Array,
) -> None:
    """As ``project_forward``, of splats that affine maps carry into the world."""
    n_poses, n_splats, n_views = maps.shape[0], means.shape[0], viewmats.shape[1]
    n_blocks = (n_splats + BLOCK - 1) // BLOCK
    for job in numba.prange(n_poses * n_blocks):
        p = job // n_blocks
        first = (job % n_blocks) * BLOCK
        mean, posed, one = np.empty(3), np.empty((3, 3)), np.ones(3)
        scratch, spread = np.empty((3, 3)), np.empty((2, 3))
        for n in range(first, min(first + BLOCK, n_splats)):
            carry = maps[p, group[n]]
            for i in range(3):
                mean[i] = carry[i, 3]
                for k in range(3):
                    mean[i] += carry[i, k] * means[n, k]
                    posed[i, k] = (
                        carry[i, 0] * axes[n, 0, k]
                        + carry[i, 1] * axes[n, 1, k]
                        + carry[i, 2] * axes[n, 2, k]
                    )
            for cam in range(n_views):
                _project_one(
                    viewmats[p, cam], mean, posed, one, float(opacities[n]), focals[p, cam],
                    height, width, near, far, scratch, spread, means2d[p, cam, n],
                    conics[p, cam, n], depths[p, cam, n : n + 1], radii[p, cam, n],
                )  # fmt: skip


@helper()
def _one_view_backward(
    view: Array,
    mean: Array,
    scale: Array,
    rotation: Array,
    focal: float,
    height: int,
    width: int,
    v_mean2d: Array,
    v_conic: Array,
    v_depth: float,
    scratch: Array,
    v_mean: Array,
    v_axes: Array,
) -> None:
    """Add one camera's gradient of a splat to ``v_mean`` (3) and of R S to ``v_axes`` (3 x 3)."""
    axes, spread, v_spread = scratch[0:3], scratch[3:5], scratch[5:7]
    x, y, z = _to_camera(view, mean)
    fz = focal / z
    limit_x, limit_y = MARGIN * 0.5 * width / focal, MARGIN * 0.5 * height / focal
    ray_x = min(limit_x, max(-limit_x, x / z))
    ray_y = min(limit_y, max(-limit_y, y / z))
    _spread(view, rotation, scale, fz, ray_x, ray_y, axes, spread)
    a, b, c, determinant = _covariance(spread)

    # Q = Σ'⁻¹, so dL/dΣ' = -Q (dL/dQ) Q; the off-diagonal of Q is one variable used twice.
    q0, q1, q2 = c / determinant, -b / determinant, a / determinant
    g0, g1, g2 = float(v_conic[0]), 0.5 * v_conic[1], float(v_conic[2])
    left00, left01 = q0 * g0 + q1 * g1, q0 * g1 + q1 * g2
    left10, left11 = q1 * g0 + q2 * g1, q1 * g1 + q2 * g2
    s00 = -(left00 * q0 + left01 * q1)
    s01 = -(left00 * q1 + left01 * q2)
    s11 = -(left10 * q1 + left11 * q2)

    v_scale, v_ray_x, v_ray_y = 0.0, 0.0, 0.0  # v_scale: fz times the gradient of fz
    for j in range(3):
        v_spread[0, j] = 2 * (s00 * spread[0, j] + s01 * spread[1, j])
        v_spread[1, j] = 2 * (s01 * spread[0, j] + s11 * spread[1, j])
        v_scale += v_spread[0, j] * spread[0, j] + v_spread[1, j] * spread[1, j]
        v_ray_x -= fz * v_spread[0, j] * axes[2, j]
        v_ray_y -= fz * v_spread[1, j] * axes[2, j]
        v_camera0, v_camera1 = fz * v_spread[0, j], fz * v_spread[1, j]
        v_camera2 = -ray_x * v_camera0 - ray_y * v_camera1
        for i in range(3):
            v_axes[i, j] += view[0, i] * v_camera0 + view[1, i] * v_camera1 + view[2, i] * v_camera2

    v_x, v_y = fz * v_mean2d[0], fz * v_mean2d[1]
    v_z = v_depth - (v_scale + v_x * x + v_y * y) / z
    if -limit_x <= x / z <= limit_x:
        v_x += v_ray_x / z
        v_z -= v_ray_x * x / (z * z)
    if -limit_y <= y / z <= limit_y:
        v_y += v_ray_y / z
        v_z -= v_ray_y * y / (z * z)
    for i in range(3):
        v_mean[i] += view[0, i] * v_x + view[1, i] * v_y + view[2, i] * v_z


@helper()
def _quat_backward(quat: Array, length: float, v_rotation: Array, v_quat: Array) -> None:
    """Gradient of a quaternion of any length from that of its rotation matrix."""
    w, x, y, z = quat[0] / length, quat[1] / length, quat[2] / length, quat[3] / length
    v = v_rotation
    v_w = x * (v[2, 1] - v[1, 2]) + y * (v[0, 2] - v[2, 0]) + z * (v[1, 0] - v[0, 1])
    v_x = y * (v[0, 1] + v[1, 0]) + z * (v[0, 2] + v[2, 0]) + w * (v[2, 1] - v[1, 2])
    v_y = x * (v[0, 1] + v[1, 0]) + z * (v[1, 2] + v[2, 1]) + w * (v[0, 2] - v[2, 0])
    v_z = x * (v[0, 2] + v[2, 0]) + y * (v[1, 2] + v[2, 1]) + w * (v[1, 0] - v[0, 1])
    v_x -= 2 * x * (v[1, 1] + v[2, 2])
    v_y -= 2 * y * (v[0, 0] + v[2, 2])
    v_z -= 2 * z * (v[0, 0] + v[1, 1])
    along = w * v_w + x * v_x + y * v_y + z * v_z
    v_quat[0] = 2 * (v_w - w * along) / length
    v_quat[1] = 2 * (v_x - x * along) / length
    v_quat[2] = 2 * (v_y - y * along) / length
    v_quat[3] = 2 * (v_z - z * along) / length


@kernel()
def project_backward(
    means: Array,  # [P, N, 3] f32
    quats: Array,  # [P, N, 4] f32
    scales: Array,  # [P, N, 3] f32
    viewmats: Array,  # [P, C, 4, 4] f64
    focals: Array,  # [P, C] f64
    height: int,
    width: int,
    radii: Array,  # [P, C, N, 2] i32
    v_means2d: Array,  # [P, C, N, 2] f32
    v_conics: Array,  # [P, C, N, 3] f32
    v_depths: Array,  # [P, C, N] f32
    v_means: Array,  # out [P, N, 3] f32
    v_quats: Array,  # out [P, N, 4] f32
    v_scales: Array,  # out [P, N, 3] f32
) -> None:
    """Gradients of the splats, summed over the cameras in their order."""
    n_poses, n_splats = means.shape[0], means.shape[1]
    n_views = viewmats.shape[1]
    n_blocks = (n_splats + BLOCK - 1) // BLOCK
    for job in numba.prange(n_poses * n_blocks):
        p = job // n_blocks
        first = (job % n_blocks) * BLOCK
        rotation, v_axes = np.empty((3, 3)), np.empty((3, 3))
        v_mean, scratch = np.empty(3), np.empty((7, 3))
        for n in range(first, min(first + BLOCK, n_splats)):
            v_mean[:] = 0
            v_axes[:] = 0
            length = _rotation(quats[p, n], rotation)
            for cam in range(n_views):
                if radii[p, cam, n, 0] > 0:
                    _one_view_backward(
                        viewmats[p, cam], means[p, n], scales[p, n], rotation,
                        focals[p, cam], height, width, v_means2d[p, cam, n],
                        v_conics[p, cam, n], v_depths[p, cam, n], scratch, v_mean, v_axes,
                    )  # fmt: skip
            for j in range(3):
                v_means[p, n, j] = v_mean[j]
                along = 0.0
                for i in range(3):
                    along += rotation[i, j] * v_axes[i, j]
                    v_axes[i, j] *= scales[p, n, j]  # from here on the gradient of R
                v_scales[p, n, j] = along
            _quat_backward(quats[p, n], length, v_axes, v_quats[p, n])
