"""Unit quaternions (w, x, y, z), batched and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from headstudio.on_device import constant


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Quaternion of a rotation matrix.

    The symmetric matrix ``4 q q^T`` is linear in the entries of the rotation. Each of its rows is
    the quaternion times ``4 q_i``; the row with the largest ``|q_i|`` (at least 1/2) is
    normalised. No square root of a number near zero is ever taken, so the gradient is bounded for
    every rotation, half turns included. The sign is arbitrary.

    Args:
        rotation: ``[..., 3, 3]``, orthonormal with determinant 1.

    Returns:
        ``[..., 4]``, wxyz, unit length.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotation.unbind(-2))
    rows = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], dim=-1),
            torch.stack([zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx], dim=-1),
            torch.stack([xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy], dim=-1),
            torch.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    largest = rows.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    row = rows.gather(-2, index).squeeze(-2)
    return row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)


def quaternion_product(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product: the rotation ``right`` followed by ``left``.

    Args:
        left, right: ``[..., 4]``, wxyz, broadcast against each other.

    Returns:
        ``[..., 4]``.
    """
    a, b, c, d = left.unbind(-1)
    w, x, y, z = right.unbind(-1)
    return torch.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        dim=-1,
    )


def quaternion_conjugate(quaternion: Tensor) -> Tensor:
    """Inverse rotation of unit quaternions ``[..., 4]``, wxyz."""
    return quaternion * constant((1.0, -1.0, -1.0, -1.0), quaternion)
