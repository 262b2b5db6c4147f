"""What of posing an avatar need be done only once, because its identity does not change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.flame import POSE_NAMES, FlameParams, HeadModel
from headstudio.render.grouped import GroupedSplats
from headstudio.splats import Avatar

N_POSE = 3 * len(POSE_NAMES)


@dataclass
class PreparedHead:
    """A head of one identity, cut down to the V vertices and F triangles that carry splats.

    Everything is in FLAME's frame. E is the number of expression coefficients up to the last that
    moves anything.
    """

    template: Tensor  # [V, 3] with the identity
    directions: Tensor  # [E, V * 3]
    correctives: Tensor | None  # [36, V * 3], None where they are all zero
    joints: Tensor  # [5, 3] with the identity
    joint_directions: Tensor  # [E, 5 * 3]
    weights: Tensor  # [V, 5]
    corners: Tensor  # [3, F] int64 into the V vertices
    to_world: Tensor  # [3, 4]: world = to_world[:, :3] @ flame + to_world[:, 3]
    identity: Tensor  # [3, 3]
    parents: tuple[int, ...]

    @property
    def n_expression(self) -> int:
        """E."""
        return len(self.directions)

    @property
    def n_inputs(self) -> int:
        """Columns of what `pack` makes."""
        return self.n_expression + N_POSE + 3

    def pack(self, params: FlameParams) -> Tensor:
        """What moves, in one tensor ``[P, n_inputs]`` on the device of the parameters."""
        size, wanted = params.batch_size, self.n_expression
        parts = [params.expression[:, :wanted]]
        if parts[0].shape[1] < wanted:
            parts[0] = F.pad(parts[0], (0, wanted - parts[0].shape[1]))
        parts += [getattr(params, name) for name in (*POSE_NAMES, "translation")]
        if size > 1:
            parts = [part.expand(size, -1) for part in parts]
        return torch.cat(parts, dim=1).float()


@torch.no_grad()
def prepare(avatar: Avatar, head: HeadModel) -> tuple[PreparedHead, GroupedSplats]:
    """Take apart what is fixed; on the head's device, in float32."""
    splats = avatar.splats.detach()
    used, group = torch.unique(splats.face, return_inverse=True)
    faces = head.faces[used]
    vertices, corners = torch.unique(faces, return_inverse=True)

    n = head.n_shape
    directions = head.shapedirs[..., n:].permute(2, 0, 1)  # [100, V, 3]
    moving = torch.nonzero(directions.flatten(1).abs().amax(1) > 0)
    directions = directions[: int(moving.max()) + 1 if len(moving) else 0]
    shape = avatar.shape.to(head.v_template)
    template = head.v_template + head.shapedirs[..., : len(shape)] @ shape
    correctives = head.posedirs.unflatten(1, (-1, 3))[:, vertices].flatten(1)
    frame = head.world_frame(avatar.extent)
    turn = frame.rotation * frame.scale
    prepared = PreparedHead(
        template=template[vertices],
        directions=directions[:, vertices].flatten(1).contiguous(),
        correctives=correctives.contiguous() if bool(correctives.any()) else None,
        joints=head.J_regressor @ template,
        joint_directions=torch.einsum("jv,evk->ejk", head.J_regressor, directions).flatten(1),
        weights=head.lbs_weights[vertices],
        corners=corners.T.contiguous(),
        to_world=torch.cat([turn, -(turn @ frame.center)[:, None]], dim=1),
        identity=torch.eye(3, device=turn.device),
        parents=tuple(head.parents.tolist()),
    )
    local = GroupedSplats(
        means=splats.means,
        axes=_rotations(splats.quats) * splats.scales.exp()[:, None, :],
        opacities=splats.opacities.sigmoid(),
        colors=splats.rgb(),
        group=group,
    )
    return prepared, local.visible()


def _rotations(quats: Tensor) -> Tensor:
    """Rotation matrices ``[N, 3, 3]`` of quaternions wxyz of any length ``[N, 4]``."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
