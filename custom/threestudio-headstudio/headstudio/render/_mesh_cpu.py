"""Mesh operations as numba kernels; the same answers as ``_mesh_torch``, faster on a CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from headstudio.render._jit import Array, helper, kernel, run
from headstudio.render.cameras import Cameras

BAND = 16
"""Rows of a picture that one thread fills at a time."""


@helper()
def _draw_face(
    corners: Array,  # [3, 3] f64: x and y in px, depth
    face: int,
    box: Array,  # [4]: left, right, top, bottom; the second of each is one past the last
    far: float,
    nearest: Array,  # [H, W] f32
    ids: Array,  # [H, W] i64
) -> None:
    """Depth-test one triangle in a box of pixels of a picture."""
    ax, ay, za = corners[0]
    bx, by, zb = corners[1]
    cx, cy, zc = corners[2]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0:
        return
    for row in range(box[2], box[3]):
        y = row + 0.5
        for col in range(box[0], box[1]):
            x = col + 0.5
            u = (bx - x) * (cy - y) - (by - y) * (cx - x)
            v = (cx - x) * (ay - y) - (cy - y) * (ax - x)
            w = (ax - x) * (by - y) - (ay - y) * (bx - x)
            if (u >= 0 and v >= 0 and w >= 0) or (u <= 0 and v <= 0 and w <= 0):
                depth = np.float32(area / (u / za + v / zb + w / zc))
                if 0 < depth < nearest[row, col] and depth <= far:
                    nearest[row, col] = depth
                    ids[row, col] = face


@kernel()
def _draw(
    pixels: Array,  # [I, V, 2] f32
    depths: Array,  # [I, V] f32
    faces: Array,  # [F, 3] i64
    near: float,
    far: float,
    nearest: Array,  # [I, H, W] f32, infinity
    ids: Array,  # out [I, H, W] i64, -1
) -> None:
    """Draw every picture, band by band."""
    n_images, height, width = ids.shape
    n_bands = (height + BAND - 1) // BAND
    for job in numba.prange(n_images * n_bands):
        image, first = job // n_bands, (job % n_bands) * BAND
        # float64, so that no pixel falls between two faces.
        corners, box = np.empty((3, 3)), np.empty(4, np.int64)
        for face in range(faces.shape[0]):
            for k in range(3):
                corners[k, 1] = pixels[image, faces[face, k], 1]
            box[2] = max(first, math.ceil(corners[:, 1].min() - 0.5))
            box[3] = min(first + BAND, height, math.floor(corners[:, 1].max() - 0.5) + 1)
            if box[2] >= box[3]:
                continue
            for k in range(3):
                corners[k, 0] = pixels[image, faces[face, k], 0]
                corners[k, 2] = depths[image, faces[face, k]]
            box[0] = max(0, math.ceil(corners[:, 0].min() - 0.5))
            box[1] = min(width, math.floor(corners[:, 0].max() - 0.5) + 1)
            if corners[:, 2].min() >= near:
                _draw_face(corners, face, box, far, nearest[image], ids[image])


def nearest_faces(pixels: Tensor, depths: Tensor, faces: Tensor, cameras: Cameras) -> Tensor:
    """As ``_mesh_torch.nearest_faces``."""
    size = (pixels.shape[0], cameras.height, cameras.width)
    nearest, ids = torch.full(size, float("inf")), torch.full(size, -1)
    arrays = (x.contiguous().numpy() for x in (pixels, depths, faces))
    run(_draw, *arrays, cameras.near, cameras.far, nearest.numpy(), ids.numpy(), chunk=1)
    return ids


@kernel()
def _cast(rays: Array, limit: Array, cones: Array, hidden: Array) -> None:
    """``hidden`` [I, L]; the others as in ``_mesh_torch.any_hit``."""
    for job in numba.prange(hidden.size):
        image, point = job // hidden.shape[1], job % hidden.shape[1]
        x, y, z = rays[image, point, 0], rays[image, point, 1], rays[image, point, 2]
        cone = cones[image]
        for face in range(cone.shape[1]):
            u = x * cone[0, face] + y * cone[1, face] + z * cone[2, face]
            v = x * cone[3, face] + y * cone[4, face] + z * cone[5, face]
            if (u > 0 and v < 0) or (u < 0 and v > 0):
                continue
            w = x * cone[6, face] + y * cone[7, face] + z * cone[8, face]
            if (u >= 0 and v >= 0 and w >= 0) or (u <= 0 and v <= 0 and w <= 0):
                total = u + v + w
                if total != 0 and 0 < cone[9, face] / total < limit[image, point]:
                    hidden[image, point] = True
                    break


def any_hit(rays: Tensor, limit: Tensor, cones: Tensor) -> Tensor:
    """As ``_mesh_torch.any_hit``."""
    hidden = torch.zeros(rays.shape[:2], dtype=torch.bool)
    arrays = (x.contiguous().numpy() for x in (rays, limit, cones))
    run(_cast, *arrays, hidden.numpy(), chunk=8)
    return hidden
