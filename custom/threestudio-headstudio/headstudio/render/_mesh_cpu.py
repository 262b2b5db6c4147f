"""Mesh operations as numba kernels; the same answers as ``_mesh_torch``, faster on a CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from headstudio.render._jit import kernel, run
from headstudio.render.cameras import Cameras

BAND = 16
"""Rows of a picture that one thread fills at a time."""


@kernel()
def _draw_face(
    ax, ay, bx, by, cx, cy, za, zb, zc, face, left, right, top, bottom, far, nearest, ids
):
    """Depth-test one triangle in columns [left, right) and rows [top, bottom) of a picture."""
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    for row in range(top, bottom):
        y = row + 0.5
        for col in range(left, right):
            x = col + 0.5
            u = (bx - x) * (cy - y) - (by - y) * (cx - x)
            v = (cx - x) * (ay - y) - (cy - y) * (ax - x)
            w = (ax - x) * (by - y) - (ay - y) * (bx - x)
            if (u >= 0 and v >= 0 and w >= 0) or (u <= 0 and v <= 0 and w <= 0):
                depth = np.float32(area / (u / za + v / zb + w / zc))
                if 0 < depth < nearest[row, col] and depth <= far:
                    nearest[row, col] = depth
                    ids[row, col] = face


@kernel(parallel=True)
def _draw(pixels, depths, faces, near, far, nearest, ids):
    """Fill ``ids`` [I, H, W] band by band; ``nearest`` [I, H, W] starts at infinity."""
    n_images, height, width = ids.shape
    n_bands = (height + BAND - 1) // BAND
    for job in numba.prange(n_images * n_bands):
        image, first = job // n_bands, (job % n_bands) * BAND
        for face in range(faces.shape[0]):
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            # float64 from here on, so that no pixel falls between two faces.
            ay, by, cy = (
                float(pixels[image, a, 1]), float(pixels[image, b, 1]), float(pixels[image, c, 1])
            )  # fmt: skip
            top = max(first, math.ceil(min(ay, by, cy) - 0.5))
            bottom = min(first + BAND, height, math.floor(max(ay, by, cy) - 0.5) + 1)
            if top >= bottom:
                continue
            ax, bx, cx = (
                float(pixels[image, a, 0]), float(pixels[image, b, 0]), float(pixels[image, c, 0])
            )  # fmt: skip
            left = max(0, math.ceil(min(ax, bx, cx) - 0.5))
            right = min(width, math.floor(max(ax, bx, cx) - 0.5) + 1)
            za, zb, zc = depths[image, a], depths[image, b], depths[image, c]
            flat = (bx - ax) * (cy - ay) == (by - ay) * (cx - ax)
            if left < right and min(za, zb, zc) >= near and not flat:
                _draw_face(
                    ax, ay, bx, by, cx, cy, float(za), float(zb), float(zc), face,
                    left, right, top, bottom, far, nearest[image], ids[image],
                )  # fmt: skip


def nearest_faces(pixels: Tensor, depths: Tensor, faces: Tensor, cameras: Cameras) -> Tensor:
    """As ``_mesh_torch.nearest_faces``."""
    size = (pixels.shape[0], cameras.height, cameras.width)
    nearest, ids = torch.full(size, float("inf")), torch.full(size, -1)
    arrays = (x.contiguous().numpy() for x in (pixels, depths, faces))
    run(_draw, *arrays, cameras.near, cameras.far, nearest.numpy(), ids.numpy(), chunk=1)
    return ids


@kernel(parallel=True)
def _cast(rays, limit, cones, hidden):
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
