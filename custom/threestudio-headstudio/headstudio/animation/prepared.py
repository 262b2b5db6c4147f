"""What of posing an avatar need be done only once, because its identity does not change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.flame import POSE_NAMES, FlameParams, HeadModel
from headstudio.render.grouped import GroupedSplats
from headstudio.render.reference import quats_to_rotations
from headstudio.splats import Avatar, Splats

N_POSE = 3 * len(POSE_NAMES)


@dataclass
class PreparedHead:
    """A head of one identity, cut down to the V vertices and F triangles that carry splats.

    Everything is in FLAME's frame. E is the number of expression coefficients up to the last that
    moves anything. The V vertices are followed by the five joints wherever both move alike.
    """

    n_expression: int  # E
    rest: Tensor  # [(V + 5) * 3] with the identity, less what the correctives add where none turns
    directions: Tensor  # [E, (V + 5) * 3]; or [E + 36, ...], then those of the joints' rotations
    weights: Tensor  # [V, 5]
    corners: Tensor  # [3, F] int64 into the V vertices
    to_world: Tensor  # [3, 4]: world = to_world[:, :3] @ flame + to_world[:, 3]
    siblings: tuple[tuple[int, int], ...]  # (parent, end): joints up to end share this parent
    identity: Tensor  # [3, 3]
    turns: Tensor  # [3, 9]: axis @ turns is the matrix of the cross product with it
    bottom: Tensor  # [4]: 0, 0, 0, 1
    name: str  # of the head model
    n_coefficients: int  # expression coefficients that it has, E of them and some that move nothing

    @property
    def corrected(self) -> bool:
        """Whether the head has pose correctives; where all of them are zero they are left out."""
        return len(self.directions) > self.n_expression

    @property
    def n_inputs(self) -> int:
        """Columns of what `pack` makes."""
        return self.n_expression + N_POSE + 3

    def pack(self, params: FlameParams) -> Tensor:
        """What moves, in one tensor ``[P, n_inputs]`` on the device of the parameters.

        Raises:
            HeadStudioError: expression coefficients the head model does not have.
        """
        size, wanted, given = params.batch_size, self.n_expression, params.expression.shape[1]
        if given > self.n_coefficients:
            raise HeadStudioError(
                f"got {given} expression coefficients; head model {self.name!r} has "
                f"{self.n_coefficients}."
            )
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
    joints = head.J_regressor @ template
    joint_directions = torch.einsum("jv,evk->ejk", head.J_regressor, directions)
    rows = [torch.cat([directions[:, vertices], joint_directions], dim=1).flatten(1)]
    rest = torch.cat([template[vertices], joints]).flatten()
    correctives = head.posedirs.unflatten(1, (-1, 3))[:, vertices].flatten(1)
    identity = torch.eye(3).to(rest)
    if bool(correctives.any()):
        rows.append(F.pad(correctives, (0, joints.numel())))
        rest = rest - identity.flatten().repeat(len(joints) - 1) @ rows[-1]
    frame = head.world_frame(avatar.extent)
    turn = frame.rotation * frame.scale
    prepared = PreparedHead(
        n_expression=len(directions),
        rest=rest,
        directions=torch.cat(rows),
        weights=head.lbs_weights[vertices],
        corners=corners.T.contiguous(),
        to_world=torch.cat([turn, -(turn @ frame.center)[:, None]], dim=1),
        siblings=_siblings(head.parents.tolist()),
        identity=identity,
        turns=torch.linalg.cross(identity[:, :, None], identity.expand(3, 3, 3), dim=1).flatten(1),
        bottom=torch.tensor([0.0, 0, 0, 1]).to(rest),
        name=head.name,
        n_coefficients=head.n_expression,
    )
    return prepared, grouped(splats, group)


@torch.no_grad()
def grouped(splats: Splats, group: Tensor) -> GroupedSplats:
    """Those of the splats that can be seen, moved by the maps of ``group`` ``[N]`` int64."""
    return GroupedSplats(
        means=splats.means,
        axes=quats_to_rotations(splats.quats) * splats.scales.exp()[:, None, :],
        opacities=splats.opacities.sigmoid(),
        colors=splats.rgb(),
        group=group,
    ).visible()


def _siblings(parents: list[int]) -> tuple[tuple[int, int], ...]:
    """Neighbours of one parent together, as one operation turns them: (parent, end of them).

    The root's parent does not count. A parent comes before its children, in another such group.
    """
    ends = [i for i in range(1, len(parents)) if parents[i] != parents[i - 1]]
    return tuple((parents[end - 1], end) for end in [*ends, len(parents)])
