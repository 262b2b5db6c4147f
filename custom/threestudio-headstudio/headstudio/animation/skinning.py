"""From packed parameters to the affine map of every triangle, with nothing that need not be.

What ``HeadModel`` and ``triangle_frames`` do, for one identity. PyTorch operations only, on any
device; none of them waits for the GPU or brings a constant from the host, so that all can be
captured in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstudio.animation.prepared import N_POSE, PreparedHead
from headstudio.splats.rig import MIN_AREA

_TINY = 1e-20


@torch.no_grad()
def world_vertices(head: PreparedHead, packed: Tensor) -> Tensor:
    """Posed vertices ``[P, V, 3]`` in the world, by linear blend skinning.

    Args:
        head: as `prepare` makes it.
        packed: ``[P, n_inputs]``, of `PreparedHead.pack`.
    """
    size, n = packed.shape[0], head.n_expression
    expression, pose, translation = packed.split([n, N_POSE, 3], dim=1)
    rotations = rotation_matrices(pose.view(size, -1, 3), head.identity)  # [P, 5, 3, 3]
    offsets = expression @ head.directions
    if head.correctives is not None:
        offsets = offsets + (rotations[:, 1:] - head.identity).flatten(1) @ head.correctives
    rest = head.template + offsets.view(size, -1, 3)
    joints = head.joints + (expression @ head.joint_directions).view(size, -1, 3)
    maps = _to_world(head, _joint_maps(head.parents, rotations, joints, translation))
    blended = (head.weights @ maps.flatten(2)).view(size, -1, 3, 4)
    return (blended[..., :3] * rest[:, :, None]).sum(-1) + blended[..., 3]


def rotation_matrices(axis_angle: Tensor, identity: Tensor) -> Tensor:
    """Rodrigues' formula: ``[..., 3]`` radians to ``[..., 3, 3]``."""
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]
    angle = squared.clamp_min(_TINY).sqrt()
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    # (1 - cos a) / a² as a sine: the difference cancels in float32 for small angles.
    half = torch.sin(0.5 * angle) / angle
    return identity + torch.sin(angle) / angle * cross + 2 * half * half * (cross @ cross)


def _joint_maps(
    parents: tuple[int, ...], rotations: Tensor, joints: Tensor, translation: Tensor
) -> Tensor:
    """Where each joint takes the vertices at rest: ``[P, J, 3, 4]``, FLAME's frame."""
    turned, placed = [rotations[:, 0]], [joints[:, 0] + translation]
    for i, parent in enumerate(parents[1:], start=1):
        turned.append(turned[parent] @ rotations[:, i])
        bone = (joints[:, i] - joints[:, parent])[..., None]
        placed.append((turned[parent] @ bone).squeeze(-1) + placed[parent])
    linear = torch.stack(turned, 1)
    shift = torch.stack(placed, 1) - (linear @ joints[..., None]).squeeze(-1)
    return torch.cat([linear, shift[..., None]], -1)


def _to_world(head: PreparedHead, maps: Tensor) -> Tensor:
    """FLAME's frame to the world after each map ``[P, J, 3, 4]``."""
    turn, shift = head.to_world[:, :3], head.to_world[:, 3:]
    world = turn @ maps
    return torch.cat([world[..., :3], world[..., 3:] + shift], -1)


@torch.no_grad()
def triangle_maps(vertices: Tensor, corners: Tensor) -> Tensor:
    """The map from each triangle's coordinates to those of the vertices, ``[P, F, 3, 4]``.

    ``[k x, k y, k z | T]`` with the frame of `headstudio.splats.triangle_frames`. A triangle
    without an area maps all to its centroid, or to a line, of a length that cannot be seen.

    Args:
        vertices: ``[P, V, 3]``.
        corners: ``[3, F]`` int64.
    """
    a, b, c = (vertices.index_select(1, corner) for corner in corners.unbind(0))
    along = b - a
    normal = torch.linalg.cross(along, c - a)
    doubled = torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    size = (0.5 * doubled).clamp_min(MIN_AREA).sqrt()
    x = along / torch.linalg.vector_norm(along, dim=-1, keepdim=True).clamp_min(_TINY)
    z = normal / doubled.clamp_min(_TINY)
    y = torch.linalg.cross(z, x)
    return torch.stack([size * x, size * y, size * z, (a + b + c) / 3], dim=-1)
