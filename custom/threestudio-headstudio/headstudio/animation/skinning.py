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
_TINY_ANGLE = 1e-10


@torch.no_grad()
def world_vertices(head: PreparedHead, packed: Tensor) -> Tensor:
    """Posed vertices ``[P, V, 3]`` in the world, by linear blend skinning.

    Args:
        head: as `prepare` makes it.
        packed: ``[P, n_inputs]``, of `PreparedHead.pack`.
    """
    size, n = packed.shape[0], head.n_expression
    features, pose, translation = packed.split([n, N_POSE, 3], dim=1)
    rotations = rotation_matrices(pose.view(size, -1, 3), head.turns, head.identity)
    if head.corrected:
        features = torch.cat([features, rotations[:, 1:].flatten(1)], dim=1)
    rest = torch.addmm(head.rest, features, head.directions).view(size, -1, 3)
    vertices, joints = rest.split([len(head.weights), rotations.shape[1]], dim=1)
    maps = _joint_maps(head, rotations, joints, translation)
    blended = (head.weights @ maps.flatten(2)).view(size, -1, 3, 4)
    return (blended[..., :3] * vertices[:, :, None]).sum(-1) + blended[..., 3]


def rotation_matrices(axis_angle: Tensor, turns: Tensor, identity: Tensor) -> Tensor:
    """Rodrigues' formula: ``[..., 3]`` radians to ``[..., 3, 3]``.

    Args:
        axis_angle: turns by its length around itself.
        turns: ``[3, 9]``, see `PreparedHead`; a constant, as is ``identity`` ``[3, 3]``.
    """
    cross = (axis_angle @ turns).unflatten(-1, (3, 3))
    angle = torch.linalg.vector_norm(axis_angle, dim=-1)[..., None, None].clamp_min(_TINY_ANGLE)
    # (1 - cos a) / a² as a sine: the difference cancels in float32 for small angles.
    half = torch.sin(0.5 * angle) / angle
    turned = torch.addcmul(identity, torch.sin(angle) / angle, cross)
    return turned.addcmul_(half * half, cross @ cross, value=2)


def _joint_maps(
    head: PreparedHead, rotations: Tensor, joints: Tensor, translation: Tensor
) -> Tensor:
    """Where each joint takes the vertices at rest: ``[P, J, 3, 4]``, into the world.

    What a joint does is to turn everything about where it is at rest; then its parent does.

    Args:
        head: as `prepare` makes it.
        rotations: ``[P, J, 3, 3]``.
        joints: ``[P, J, 3]``, at rest.
        translation: ``[P, 3]``.
    """
    size, n = joints.shape[:2]
    shift = joints - (rotations @ joints[..., None]).squeeze(-1)
    shift[:, 0] += translation
    own = torch.cat([rotations, shift[..., None]], -1)
    own = torch.cat([own, head.bottom.expand(size, n, 1, 4)], -2)
    maps: list[Tensor] = []
    for parent, end in head.siblings:
        above = maps[parent] if maps else head.to_world.expand(size, 3, 4)
        maps += (above[:, None] @ own[:, len(maps) : end]).unbind(1)
    return torch.stack(maps, 1)


@torch.no_grad()
def triangle_maps(vertices: Tensor, corners: Tensor) -> Tensor:
    """The map from each triangle's coordinates to those of the vertices, ``[P, F, 3, 4]``.

    ``[k x, k y, k z | T]`` with the frame of `headstudio.splats.triangle_frames`. A triangle
    without an area maps all to its centroid, or to a line, of a length that cannot be seen.

    In memory the columns lie apart. PyTorch picks rows of 16 adjoining bytes, and multiples, with
    a block of threads for each, of which all but a few idle: for 100 000 splats that took several
    times as long as picking numbers one by one.

    Args:
        vertices: ``[P, V, 3]``.
        corners: ``[3, F]`` int64.
    """
    shape = (vertices.shape[0], *corners.shape, 3)
    corner = vertices.index_select(1, corners.reshape(-1)).view(shape)  # [P, 3, F, 3]
    along, across = (corner[:, 1:] - corner[:, :1]).unbind(1)
    normal = torch.linalg.cross(along, across)
    doubled = torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    size = (0.5 * doubled).clamp_min(MIN_AREA).sqrt()
    x = along * (size / torch.linalg.vector_norm(along, dim=-1, keepdim=True).clamp_min(_TINY))
    z = normal / doubled.clamp_min(_TINY)
    columns = [x, torch.linalg.cross(z, x), size * z, corner.mean(1)]
    return torch.stack(columns, 1).permute(0, 2, 3, 1)
