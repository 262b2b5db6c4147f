"""Mesh operations in PyTorch, for any device. ``I`` counts pictures, poses times cameras."""

from __future__ import annotations

import torch
from torch import Tensor

from headstudio.render.cameras import Cameras

CHUNK = 1 << 22
"""Elements of an intermediate tensor; bounds memory at a few hundred MB."""


def edge_functions(corners: Tensor, at: Tensor) -> Tensor:
    """Twice the signed areas ``[..., 3]`` opposite to each corner of triangles ``[..., 3, 2]``.

    In float64, in which the sign for the edge that two faces share is exact enough that no pixel
    falls between them.
    """
    x, y = (corners.double() - at.double()[..., None, :]).unbind(-1)
    ax, bx, cx = x.unbind(-1)
    ay, by, cy = y.unbind(-1)
    return torch.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx], dim=-1)


def _depth(edges: Tensor, corner_depths: Tensor) -> tuple[Tensor, Tensor]:
    """Depth ``[...]`` and perspective-correct barycentrics ``[..., 3]`` of points in triangles."""
    area = edges.sum(-1, keepdim=True)
    inverse = edges / torch.where(area == 0, 1.0, area) / corner_depths.double()
    total = inverse.sum(-1)
    depth = 1 / torch.where(total == 0, 1.0, total)
    return depth, inverse * depth[..., None]


def locate(
    pixels: Tensor,  # [I, V, 2]
    depths: Tensor,  # [I, V]
    faces: Tensor,  # [F, 3]
    face_id: Tensor,  # [I, H, W]
) -> tuple[Tensor, Tensor]:
    """Depth ``[I, H, W]`` and barycentrics ``[I, H, W, 3]`` of each pixel on its face."""
    found = face_id >= 0
    if faces.shape[0] == 0:
        return depths.new_zeros(face_id.shape), depths.new_zeros(*face_id.shape, 3)
    # Only the pixels of faces, a fifth of most pictures. Counting them makes a GPU wait, which
    # costs less than the rest would.
    image, row, col = found.nonzero(as_tuple=True)
    corners = faces[face_id[found]]
    at = torch.stack([col, row], dim=-1) + 0.5
    edges = edge_functions(pixels[image[:, None], corners], at)
    z, weights = _depth(edges, depths[image[:, None], corners])
    depth = depths.new_zeros(face_id.shape)
    barycentric = depths.new_zeros(*face_id.shape, 3)
    depth[found] = z.to(depth.dtype)
    barycentric[found] = weights.to(depth.dtype)
    return depth, barycentric


def nearest_faces(pixels: Tensor, depths: Tensor, faces: Tensor, cameras: Cameras) -> Tensor:
    """Nearest face ``[I, H, W]`` at each pixel's centre, -1 where there is none.

    Faces are grouped by the size of their boxes; every pixel of a box is tested at once. Depth
    (as the bits of a positive float) and face share one integer, so that a minimum over the
    pixel is both the depth test and its tie-break, in whatever order it is taken.
    """
    images, height, width = pixels.shape[0], cameras.height, cameras.width
    empty = torch.iinfo(torch.int64).max
    buffer = torch.full((images * height * width,), empty, device=pixels.device)
    corners, corner_depths = pixels[:, faces], depths[:, faces]
    size = pixels.new_tensor([width, height])
    low = (corners.amin(2) - 0.5).ceil().clamp(min=0)
    high = torch.minimum((corners.amax(2) - 0.5).floor(), size - 1)
    side = (high - low + 1).amax(-1)
    drawn = (high >= low).all(-1) & (corner_depths.amin(-1) >= cameras.near)
    group = torch.where(drawn, torch.log2(side.clamp(min=1)).ceil(), -1.0).long()
    for level in range(int(group.max()) + 1):
        box = 1 << level
        offsets = torch.arange(box * box, device=pixels.device)
        offsets = torch.stack([offsets % box, offsets // box], dim=-1)
        for part in torch.nonzero(group == level).split(max(1, CHUNK // (box * box))):
            image, face = part[:, :1], part[:, 1:]
            at = low[image, face] + offsets
            edges = edge_functions(corners[image, face], at + 0.5)
            depth, _ = _depth(edges, corner_depths[image, face])
            inside = (edges >= 0).all(-1) | (edges <= 0).all(-1)
            inside &= (at <= high[image, face]).all(-1) & (edges.sum(-1) != 0)
            inside &= (depth > 0) & (depth <= cameras.far)
            bits = depth.float().view(torch.int32).long()
            x, y = at.long().unbind(-1)
            target = (image * height + y) * width + x
            key = (bits << 32) | face
            buffer.scatter_reduce_(0, target[inside], key[inside], "amin")
    face_id = torch.where(buffer < empty, buffer & 0xFFFFFFFF, -1)
    return face_id.unflatten(0, (images, height, width))


def cones(corners: Tensor, faces: Tensor) -> Tensor:
    """What is needed of each face to cast rays from the origin at it.

    A ray r passes through the triangle (a, b, c) seen from the origin if r·(b×c), r·(c×a) and
    r·(a×b) have the same sign, and meets it at t = a·(b×c) / (their sum). The cross product of a
    shared edge is exactly the negative in the other face, so no ray slips through between.

    Args:
        corners: vertices relative to the origin of the rays ``[I, V, 3]``.
        faces: ``[F, 3]``.

    Returns:
        ``[I, 10, F]``: the three cross products and a·(b×c).
    """
    a, b, c = corners[:, faces].unbind(2)
    bc = torch.linalg.cross(b, c)
    ca = torch.linalg.cross(c, a)
    ab = torch.linalg.cross(a, b)
    volume = (a * bc).sum(-1, keepdim=True)
    return torch.cat([bc, ca, ab, volume], dim=-1).transpose(1, 2).contiguous()


def any_hit(
    rays: Tensor,  # [I, L, 3]
    limit: Tensor,  # [I, L]
    cones: Tensor,  # [I, 10, F]
) -> Tensor:
    """Whether a face is met at 0 < t < limit, bool ``[I, L]``."""
    hidden = torch.zeros(rays.shape[:2], dtype=torch.bool, device=rays.device)
    x, y, z = (component[..., None] for component in rays.unbind(-1))
    per_face = max(1, rays.shape[0] * rays.shape[1])
    for part in cones.split(max(1, CHUNK // per_face), dim=-1):
        c = part[:, :, None]  # [I, 10, 1, f]
        # Sums written out: a matrix product may run in TF32, too coarse for a sign.
        u = x * c[:, 0] + y * c[:, 1] + z * c[:, 2]
        v = x * c[:, 3] + y * c[:, 4] + z * c[:, 5]
        w = x * c[:, 6] + y * c[:, 7] + z * c[:, 8]
        inside = ((u >= 0) & (v >= 0) & (w >= 0)) | ((u <= 0) & (v <= 0) & (w <= 0))
        total = u + v + w
        t = c[:, 9] / total.masked_fill(total == 0, float("inf"))
        hidden |= (inside & (t > 0) & (t < limit[..., None])).any(-1)
    return hidden
