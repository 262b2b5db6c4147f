"""Where splats start: spread evenly over a mesh, or one on every triangle."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.splats.parameters import Splats
from headstudio.splats.rig import TriangleFrames, triangle_frames, unpose


def sample_surface(
    vertices: Tensor,
    faces: Tensor,
    n: int,
    generator: torch.Generator | None = None,
    face_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Points distributed uniformly by area over a mesh.

    The area, laid end to end triangle by triangle, is cut into n equal parts and one point is
    drawn in each (stratified sampling): every place is as likely as any other, but without the
    holes and clumps of independent draws. Drawn on the CPU in float64, so that a seed means the
    same points on every device.

    Args:
        vertices: ``[V, 3]``.
        faces: ``[F, 3]``, integer.
        n: number of points.
        generator: a CPU generator; None draws from torch's global one.
        face_weights: ``[F]``, non-negative density of points on each triangle relative to others;
            None is uniform.

    Returns:
        points ``[n, 3]`` and the triangle of each, ``[n]`` int64 in ascending order, on the device
        and in the dtype of ``vertices``.
    """
    if n < 1:
        raise HeadStudioError(f"{n} splats were asked for; at least 1 is needed.")
    corners = vertices.detach().cpu().double()[faces.cpu()]
    weights = 0.5 * torch.linalg.vector_norm(
        torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=-1
    )
    if face_weights is not None:
        weights = weights * _checked_weights(face_weights, faces.shape[0])
    cumulative = weights.cumsum(0)
    if not (torch.isfinite(cumulative[-1]) and cumulative[-1] > 0):
        raise HeadStudioError(
            "splats cannot be spread over this mesh: its (weighted) area is "
            f"{cumulative[-1].item()}; a positive, finite one is needed."
        )
    random = torch.rand(3, n, generator=generator, dtype=torch.float64)
    position = (torch.arange(n) + random[0]) * (cumulative[-1] / n)
    face = torch.searchsorted(cumulative, position, right=True)
    # Rounding may step past the end; a triangle of weight zero there must not be hit either.
    face = face.clamp_max(int(weights.nonzero()[-1]))
    root = random[1].sqrt()
    barycentric = torch.stack([1 - root, root * (1 - random[2]), root * random[2]], dim=-1)
    points = (barycentric[:, :, None] * corners[face]).sum(1)
    return points.to(vertices), face.to(vertices.device)


def initialise_uniform(
    vertices: Tensor,
    faces: Tensor,
    n: int,
    generator: torch.Generator | None = None,
    opacity: float = 0.1,
    rgb: float | Tensor = 0.5,
    face_weights: Tensor | None = None,
) -> Splats:
    """Super-dense initialisation: n splats spread uniformly over the neutral mesh.

    Each is isotropic, as large as the mean distance to its three nearest neighbours, and bound to
    the triangle it fell on.

    Args:
        vertices: ``[V, 3]``, world.
        faces: ``[F, 3]``, integer.
        n: number of splats.
        generator, face_weights: see `sample_surface`.
        opacity: of every splat, in (0, 1).
        rgb: the grey of every splat, or the colour on each triangle ``[F, 3]``, in [0, 1].
    """
    points, face = sample_surface(vertices, faces, n, generator, face_weights)
    frames = triangle_frames(vertices.detach()[None], faces)
    return _isotropic_splats(points, face, frames, opacity, rgb)


def initialise_per_triangle(
    vertices: Tensor, faces: Tensor, opacity: float = 0.1, rgb: float | Tensor = 0.5
) -> Splats:
    """The ablation of `initialise_uniform`: one splat on every triangle, at its centroid.

    Args:
        vertices: ``[V, 3]``, world.
        faces: ``[F, 3]``, integer.
        opacity, rgb: see `initialise_uniform`.
    """
    frames = triangle_frames(vertices.detach()[None], faces)
    face = torch.arange(faces.shape[0], device=vertices.device)
    return _isotropic_splats(frames.origin[0], face, frames, opacity, rgb)


def neighbour_distance(points: Tensor, k: int = 3) -> Tensor:
    """Mean distance of each point to its k nearest neighbours, all points finite.

    Args:
        points: ``[N, 3]``.

    Returns:
        ``[N]``, at least a hundredth of the average over all points, so that coinciding points do
        not give splats of no size. Where there is no other point: 1.
    """
    k = min(k, points.shape[0] - 1)
    if k < 1:
        return points.new_ones(points.shape[0])
    array = points.detach().cpu().double().numpy()
    distance = cKDTree(array).query(array, k=k + 1)[0][:, 1:].mean(1)
    floor = max(0.01 * distance.mean(), np.finfo(np.float32).tiny)
    return torch.from_numpy(np.maximum(distance, floor)).to(points)


def _isotropic_splats(
    points: Tensor, face: Tensor, frames: TriangleFrames, opacity: float, rgb: float | Tensor
) -> Splats:
    if not 0.0 < opacity < 1.0:
        raise HeadStudioError(
            f"an initial opacity of {opacity} was given; 0 < opacity < 1 is needed."
        )
    n = points.shape[0]
    identity = points.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4)
    splats = unpose(
        points,
        identity,
        neighbour_distance(points)[:, None].expand(n, 3),
        face,
        frames,
        points.new_full((n,), opacity),
        rgb[face].to(points) if isinstance(rgb, Tensor) else points.new_full((n, 3), rgb),
    )
    # A ball has no orientation; that of its triangle keeps the parameters plain.
    splats.quats = identity.clone()
    return splats


def _checked_weights(face_weights: Tensor, n_faces: int) -> Tensor:
    weights = face_weights.detach().cpu().double()
    if tuple(weights.shape) != (n_faces,):
        raise HeadStudioError(
            f"face_weights has shape {tuple(weights.shape)}; the mesh needs ({n_faces},)."
        )
    if not torch.isfinite(weights).all() or (weights < 0).any():
        raise HeadStudioError("face_weights must be finite and not negative.")
    return weights
