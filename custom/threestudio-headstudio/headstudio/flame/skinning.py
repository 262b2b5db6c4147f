"""Linear blend skinning, as FLAME does it: offsets, five joints in a chain, weights."""

from __future__ import annotations

import torch
from smplx.lbs import batch_rodrigues, blend_shapes, vertices2joints
from torch import Tensor


def skin(
    expression: Tensor,  # [P, E]
    pose: Tensor,  # [P, 3 J] axis-angle, radians
    identity: Tensor,  # [1 or P, V, 3]
    expression_directions: Tensor,  # [V, 3, E]
    posedirs: Tensor,  # [9 (J - 1), 3 V]
    J_regressor: Tensor,  # [J, V]
    parents: tuple[int, ...],  # J; -1 for the root
    weights: Tensor,  # [V, J]
) -> tuple[Tensor, Tensor]:
    """Posed vertices ``[P, V, 3]`` and joints ``[P, J, 3]``; differentiable.

    ``smplx.lbs.lbs`` gives the same, but looks parents up in a tensor: on a GPU the host then waits
    for all that was launched before, once for each joint.
    """
    size = len(pose)
    shaped = identity + blend_shapes(expression, expression_directions)
    joints = vertices2joints(J_regressor, shaped)
    rotations = batch_rodrigues(pose.reshape(-1, 3)).view(size, -1, 3, 3)
    identity_matrix = torch.eye(3, dtype=pose.dtype, device=pose.device)
    corrections = (rotations[:, 1:] - identity_matrix).flatten(1) @ posedirs
    rest = shaped + corrections.view(size, -1, 3)
    turned, placed = _chain(rotations, joints, parents)
    shift = placed - (turned @ joints[..., None]).squeeze(-1)
    maps = torch.cat([turned, shift[..., None]], dim=-1)  # [P, J, 3, 4]
    blended = (weights @ maps.flatten(2)).view(size, -1, 3, 4)
    vertices = (blended[..., :3] @ rest[..., None]).squeeze(-1) + blended[..., 3]
    return vertices, placed


def _chain(rotations: Tensor, joints: Tensor, parents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Rotation ``[P, J, 3, 3]`` and place ``[P, J, 3]`` of each joint in the posed skeleton.

    Args:
        rotations: ``[P, J, 3, 3]``, each relative to the parent's.
        joints: ``[P, J, 3]`` at rest.
        parents: of each joint; a parent comes before its children.
    """
    turned, placed = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        bone = (joints[:, joint] - joints[:, parent])[..., None]
        placed.append((turned[parent] @ bone).squeeze(-1) + placed[parent])
        turned.append(turned[parent] @ rotations[:, joint])
    return torch.stack(turned, dim=1), torch.stack(placed, dim=1)
