"""Triangle meshes through the same cameras: which face each pixel shows, shading, visibility.

For pictures of the driving head and for asking what hides what; nothing here is differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.render import _mesh_torch
from headstudio.render.cameras import Cameras

HEADLIGHT = "headlight"


@dataclass
class MeshOutput:
    """What each pixel's centre sees.

    Attributes:
        face_id: nearest face ``[P, C, H, W]`` int64, -1 where there is none.
        depth: its distance along the viewing axis ``[P, C, H, W]``, 0 where there is none.
        barycentric: where on the face ``[P, C, H, W, 3]``, perspective-correct; 0 where none.
    """

    face_id: Tensor
    depth: Tensor
    barycentric: Tensor

    def interpolate(self, attribute: Tensor, faces: Tensor) -> Tensor:
        """Vertex attributes ``[P, V, K]`` at the pixels ``[P, C, H, W, K]``, 0 where no face is."""
        if faces.shape[0] == 0:
            return attribute.new_zeros(*self.face_id.shape, attribute.shape[-1])
        poses = torch.arange(attribute.shape[0], device=attribute.device)[:, None, None, None, None]
        corners = attribute[poses, faces[self.face_id.clamp(min=0)]]
        return (corners * self.barycentric[..., None]).sum(-2)


@torch.no_grad()
def rasterize_mesh(vertices: Tensor, faces: Tensor, cameras: Cameras) -> MeshOutput:
    """Find the nearest face behind every pixel's centre.

    Faces are seen from both sides. Of two at the same depth the one with the smaller index is
    taken. A face that reaches nearer than ``cameras.near`` is left out as a whole.

    Args:
        vertices: ``[P, V, 3]`` in the world.
        faces: ``[F, 3]`` indices of vertices.
        cameras: of the same P poses, or one set for all.

    On the CPU this is a numba kernel, elsewhere PyTorch operations only.

    Raises:
        HeadStudioError: shapes or types other than these, numbers of poses that neither agree nor
            are 1, or (on the CPU, where it can be told without waiting) faces of vertices that
            there are not.
    """
    vertices, cameras = _checked(vertices, faces, cameras)
    pixels, depths = cameras.project(vertices)
    pixels, depths = pixels.flatten(0, 1), depths.flatten(0, 1)
    if faces.shape[0] == 0:
        size = (pixels.shape[0], cameras.height, cameras.width)
        face_id = torch.full(size, -1, dtype=torch.int64, device=vertices.device)
    elif vertices.device.type == "cpu":
        from headstudio.render import _mesh_cpu

        face_id = _mesh_cpu.nearest_faces(pixels, depths, faces, cameras)
    else:
        face_id = _mesh_torch.nearest_faces(pixels, depths, faces, cameras)
    depth, barycentric = _mesh_torch.locate(pixels, depths, faces, face_id)
    shape = (cameras.poses, cameras.views)
    return MeshOutput(*(x.unflatten(0, shape) for x in (face_id, depth, barycentric)))


@torch.no_grad()
def shade_mesh(
    vertices: Tensor,
    faces: Tensor,
    cameras: Cameras,
    face_colors: Tensor | None = None,
    light: str | Tensor = HEADLIGHT,
    background: float | Tensor = 1.0,
    ambient: float = 0.25,
    supersample: int = 2,
) -> Tensor:
    """Plain matt pictures of a mesh with smooth normals.

    Args:
        vertices: ``[P, V, 3]`` in the world.
        faces: ``[F, 3]``.
        cameras: of the same P poses, or one set for all.
        face_colors: ``[F, 3]`` RGB in 0..1; None is a light grey.
        light: "headlight", at the camera, or a direction ``[3]`` from the mesh to the light.
        background: a grey value or RGB ``[3]``.
        ambient: brightness, 0..1, of what faces away from the light.
        supersample: pixels per pixel and axis that are averaged.

    Returns:
        ``[P, C, H, W, 3]``, 0..1.
    """
    vertices, cameras = _checked(vertices, faces, cameras)
    fine = cameras.resized(cameras.height * supersample, cameras.width * supersample)
    seen = rasterize_mesh(vertices, faces, fine)
    # Only what shows a face is shaded: most of a picture is background.
    hit = seen.face_id >= 0
    pose, view, _, _ = hit.nonzero(as_tuple=True)
    face = seen.face_id[hit]
    weights = seen.barycentric[hit][..., None]  # [n, 3, 1]

    def at_pixels(attribute: Tensor) -> Tensor:
        return (attribute[pose[:, None], faces[face]] * weights).sum(1)

    normal = torch.nn.functional.normalize(at_pixels(vertex_normals(vertices, faces)), dim=-1)
    toward = cameras.positions[pose, view] - at_pixels(vertices)
    toward = torch.nn.functional.normalize(toward, dim=-1)
    # Both sides are lit alike: turn each normal to the viewer.
    normal = torch.where((normal * toward).sum(-1, keepdim=True) < 0, -normal, normal)
    if isinstance(light, str):
        if light != HEADLIGHT:
            raise HeadStudioError(f"light is {light!r}, expected 'headlight' or a direction [3].")
        direction = toward
    else:
        direction = torch.nn.functional.normalize(light.to(vertices), dim=-1)
    lit = (normal * direction).sum(-1, keepdim=True).clamp(min=0)

    if face_colors is None:
        face_colors = vertices.new_full((faces.shape[0], 3), 0.8)
    ground = torch.as_tensor(background, dtype=vertices.dtype, device=vertices.device)
    picture = ground.expand(*hit.shape, 3).clone()
    picture[hit] = face_colors.to(vertices)[face] * (ambient + (1 - ambient) * lit)
    size = (cameras.height, supersample, cameras.width, supersample)
    return picture.unflatten(3, size[2:]).unflatten(2, size[:2]).mean(dim=(3, 5))


@torch.no_grad()
def point_visibility(
    points: Tensor,
    vertices: Tensor,
    faces: Tensor,
    cameras: Cameras,
    tolerance: float | Tensor = 5e-3,
) -> Tensor:
    """Whether cameras see points past a mesh, by casting a ray to each.

    Args:
        points: ``[P, L, 3]`` in the world.
        vertices: ``[P, V, 3]``.
        faces: ``[F, 3]``.
        cameras: of the same P poses, or one set for all.
        tolerance: faces less than this before the point do not hide it (world units), so that a
            point on the mesh is not hidden by the faces it lies on. One for all points, or a
            tensor ``[L]`` on the device of the vertices with one for each.

    Returns:
        bool ``[P, C, L]``: in front of the camera and not hidden. A point outside the picture
        can be visible. No host synchronisation: cheap beside a training step.
    """
    vertices, cameras = _checked(vertices, faces, cameras)
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape[0] not in (1, cameras.poses):
        raise HeadStudioError(
            f"points have shape {list(points.shape)}, expected [{cameras.poses}, L, 3]."
        )
    origins = cameras.positions[:, :, None]
    rays = (points.to(vertices)[:, None] - origins).flatten(0, 1)
    limit = 1 - tolerance / rays.norm(dim=-1).clamp(min=1e-9)
    cones = _mesh_torch.cones((vertices[:, None] - origins).flatten(0, 1), faces)
    if vertices.device.type == "cpu":
        from headstudio.render import _mesh_cpu

        hidden = _mesh_cpu.any_hit(rays, limit, cones)
    else:
        hidden = _mesh_torch.any_hit(rays, limit, cones)
    forward = -cameras.c2w[..., None, :3, 2].flatten(0, 1)
    in_front = (rays * forward).sum(-1) > cameras.near
    return (in_front & ~hidden).unflatten(0, (cameras.poses, cameras.views))


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals ``[P, V, 3]``, the mean over the faces around a vertex weighted by area.

    Args:
        vertices: ``[P, V, 3]``.
        faces: ``[F, 3]`` indices of vertices; a vertex of none has the normal zero.
    """
    a, b, c = vertices[:, faces].unbind(2)
    face_normals = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(1, faces[:, corner], face_normals)
    return torch.nn.functional.normalize(normals, dim=-1)


def _checked(vertices: Tensor, faces: Tensor, cameras: Cameras) -> tuple[Tensor, Cameras]:
    """Contiguous float32 vertices of all poses, and cameras of all poses."""
    if vertices.ndim != 3 or vertices.shape[-1] != 3:
        raise HeadStudioError(
            f"vertices have shape {list(vertices.shape)}, expected [P, V, 3]. "
            "For a single pose give vertices[None]."
        )
    if faces.ndim != 2 or faces.shape[-1] != 3 or faces.dtype != torch.int64:
        raise HeadStudioError(
            f"faces have shape {list(faces.shape)} and type {faces.dtype}, expected [F, 3] int64."
        )
    if faces.device.type == "cpu" and faces.numel():  # kernels do not check what they read
        low, high = (int(x) for x in faces.aminmax())
        if low < 0 or high >= vertices.shape[1]:
            raise HeadStudioError(
                f"faces have indices from {low} to {high}; expected 0 to {vertices.shape[1] - 1}, "
                f"of one of the {vertices.shape[1]} vertices."
            )
    poses = max(vertices.shape[0], cameras.poses)
    if vertices.shape[0] not in (1, poses):
        raise HeadStudioError(
            f"vertices have {vertices.shape[0]} poses and the cameras {cameras.poses}; "
            "the two must be equal, or one of them 1."
        )
    return vertices.float().expand(poses, -1, -1), cameras.expand(poses)
