"""Splats that ride on triangles: face frames, posing, and its inverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.on_device import constant
from headstudio.splats.parameters import Splats, rgb_to_sh, sh_to_rgb
from headstudio.splats.quaternions import (
    matrix_to_quaternion,
    quaternion_conjugate,
    quaternion_product,
)

MIN_AREA = 1e-12
"""Area, in squared units of the vertices, below which a triangle no longer shrinks its splats."""
_MIN_LENGTH = 1e-9
_MIN_SINE = 1e-6  # angle between two edges that float32 still tells from zero


@dataclass
class TriangleFrames:
    """A similarity transform per triangle and pose; P poses, F triangles."""

    origin: Tensor
    """``[P, F, 3]``, centroid."""
    rotation: Tensor
    """``[P, F, 3, 3]``, columns x, y, z; always orthonormal."""
    quat: Tensor
    """``[P, F, 4]``, wxyz, the same rotation."""
    scale: Tensor
    """``[P, F]``, ``sqrt(area)``, at least ``sqrt(MIN_AREA)``."""
    area: Tensor
    """``[P, F]``."""
    radius: Tensor
    """``[P, F]``, largest distance from a vertex to the centroid."""

    @property
    def n_poses(self) -> int:
        """P."""
        return self.origin.shape[0]

    @property
    def n_faces(self) -> int:
        """F."""
        return self.origin.shape[1]

    def detach(self) -> TriangleFrames:
        """The same values, cut from the graph."""
        return TriangleFrames(**{name: value.detach() for name, value in vars(self).items()})


@dataclass
class PosedSplats:
    """Splats in world space, ready to be rendered; P poses share opacities and colours."""

    means: Tensor
    """``[P, N, 3]``."""
    quats: Tensor
    """``[P, N, 4]``, wxyz, unit."""
    scales: Tensor
    """``[P, N, 3]``, standard deviations."""
    opacities: Tensor
    """``[N]``, in [0, 1]."""
    colors: Tensor
    """``[N, 3]``, rgb."""


def triangle_frames(vertices: Tensor, faces: Tensor) -> TriangleFrames:
    """Frame of every triangle a, b, c: ``T = (a+b+c)/3``, ``z = unit((b-a) x (c-a))``,
    ``x = unit(b-a)``, ``y = z x x``, ``k = sqrt(area)`` (HeadStudio, arXiv 2402.06149, sec. 3.2).

    A triangle without an area has no normal and one with a = b no x axis. Such a frame gets an
    arbitrary constant direction in its place: it stays orthonormal, and no gradient flows through
    the direction that does not exist.

    Args:
        vertices: ``[P, V, 3]``.
        faces: ``[F, 3]``, integer.

    Returns:
        Frames of P poses; values and gradients are finite for finite vertices.
    """
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise HeadStudioError(
            f"triangle_frames: vertices has shape {tuple(vertices.shape)}, expected [P, V, 3]."
        )
    corners = vertices[:, faces]
    a, b, c = corners.unbind(2)
    along, other = b - a, c - a
    origin = corners.mean(2)

    length = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
    usable = length > _MIN_LENGTH
    along_or_axis = torch.where(usable, along, constant((1.0, 0.0, 0.0), along))
    x = F.normalize(along_or_axis, dim=-1)

    normal = torch.linalg.cross(along, other)
    doubled_area = torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    smallest = _MIN_SINE * length * torch.linalg.vector_norm(other, dim=-1, keepdim=True)
    usable = usable & (doubled_area > smallest.detach()) & (doubled_area > _MIN_LENGTH**2)
    # Scaled to about one before it is normalised: the squares of 1e-12 are lost in float32.
    magnitude = torch.where(usable, doubled_area, 1.0).detach()
    z = F.normalize(torch.where(usable, normal / magnitude, _perpendicular(x.detach())), dim=-1)
    y = torch.linalg.cross(z, x)

    rotation = torch.stack([x, y, z], dim=-1)
    area = 0.5 * doubled_area.squeeze(-1)
    return TriangleFrames(
        origin=origin,
        rotation=rotation,
        quat=matrix_to_quaternion(rotation),
        scale=area.clamp_min(MIN_AREA).sqrt(),
        area=area,
        radius=torch.linalg.vector_norm(corners - origin[:, :, None], dim=-1).amax(-1),
    )


def _perpendicular(direction: Tensor) -> Tensor:
    """Some unit vector at a right angle to each unit vector ``[..., 3]``."""
    axis = F.one_hot(direction.abs().argmin(-1), 3).to(direction.dtype)
    return F.normalize(torch.linalg.cross(direction, axis), dim=-1)


def gather_faces(values: Tensor, face: Tensor) -> Tensor:
    """Values of the triangle each splat rides on.

    Args:
        values: ``[P, F, K]``.
        face: ``[N]`` int64.

    Returns:
        ``[P, N, K]``. The backward pass adds up over the splats of a triangle, in a fixed order.
    """
    n_poses, n_faces, width = values.shape
    # One row per triangle for all poses: embedding() has the fastest backward of all gathers.
    table = values.transpose(0, 1).reshape(n_faces, n_poses * width)
    return F.embedding(face, table).view(-1, n_poses, width).transpose(0, 1)


def pose_splats(splats: Splats, frames: TriangleFrames) -> PosedSplats:
    """Carry splats along with their triangles: ``mu = T + k R mu'``, ``q = quat(R) unit(q')``,
    ``s = k exp(s')``.

    Args:
        splats: N triangle-local splats; their ``face`` indexes the frames' triangles.
        frames: P poses, in world space.

    Returns:
        P poses of the N splats; differentiable in splats and frames.
    """
    local = _Local.of(frames, splats.face)
    offset = (local.rotation @ splats.means[None, :, :, None]).squeeze(-1)
    return PosedSplats(
        means=local.origin + local.scale * offset,
        quats=quaternion_product(local.quat, F.normalize(splats.quats, dim=-1)[None]),
        scales=local.scale * splats.scales.exp(),
        opacities=splats.opacities.sigmoid(),
        colors=sh_to_rgb(splats.colors),
    )


def unpose(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    face: Tensor,
    frames: TriangleFrames,
    opacities: Tensor,
    colors: Tensor,
) -> Splats:
    """The splats that `pose_splats` would put where these are.

    Args:
        means: ``[N, 3]``, world.
        quats: ``[N, 4]``, wxyz.
        scales: ``[N, 3]``, positive standard deviations.
        face: ``[N]`` int64, the triangle each is to ride on.
        frames: of exactly one pose.
        opacities: ``[N]`` in (0, 1); 0 and 1 become 1e-6 and 1 - 1e-6.
        colors: ``[N, 3]``, rgb.
    """
    means, quats, log_scales = unpose_geometry(means, quats, scales.log(), face, frames)
    return Splats(means, quats, log_scales, opacities.logit(eps=1e-6), rgb_to_sh(colors), face)


def unpose_geometry(
    means: Tensor, quats: Tensor, log_scales: Tensor, face: Tensor, frames: TriangleFrames
) -> tuple[Tensor, Tensor, Tensor]:
    """The triangle-local means, quaternions and log-scales of world-space ones.

    Args:
        means, quats, log_scales: ``[N, 3]``, ``[N, 4]``, ``[N, 3]``, world.
        face: ``[N]`` int64.
        frames: of exactly one pose.

    Raises:
        HeadStudioError: if ``frames`` holds more than one pose.
    """
    if frames.n_poses != 1:
        raise HeadStudioError(
            f"unpose: frames of {frames.n_poses} poses were given; give those of the one pose in "
            "which the splats lie."
        )
    local = _Local.of(frames, face)
    offset = (local.rotation[0].mT @ (means - local.origin[0])[:, :, None]).squeeze(-1)
    return (
        offset / local.scale[0],
        quaternion_product(quaternion_conjugate(local.quat[0]), F.normalize(quats, dim=-1)),
        log_scales - local.scale[0].log(),
    )


@dataclass
class _Local:
    """The frame of each splat's triangle: ``[P, N, ...]``, with ``scale [P, N, 1]``."""

    origin: Tensor
    rotation: Tensor
    quat: Tensor
    scale: Tensor

    @staticmethod
    def of(frames: TriangleFrames, face: Tensor) -> _Local:
        packed = torch.cat(
            [frames.origin, frames.rotation.flatten(2), frames.quat, frames.scale[..., None]], -1
        )
        origin, rotation, quat, scale = gather_faces(packed, face).split([3, 9, 4, 1], dim=-1)
        return _Local(origin, rotation.unflatten(-1, (3, 3)), quat, scale)
