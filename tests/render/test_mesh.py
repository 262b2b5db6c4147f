"""Meshes: against closed forms, brute force, and the two implementations against each other."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import trimesh

from headstudio.errors import HeadStudioError
from headstudio.render import Cameras, _mesh_cpu, _mesh_torch
from headstudio.render.mesh import (
    point_visibility,
    rasterize_mesh,
    shade_mesh,
    vertex_normals,
)


def tensors(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32)[None]
    return vertices, torch.tensor(np.asarray(mesh.faces), dtype=torch.int64)


def ball(radius: float = 0.7, subdivisions: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return tensors(trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius))


def test_a_ball_covers_its_outline_and_has_its_depth() -> None:
    vertices, faces = ball()
    cameras = Cameras.orbit(torch.tensor([0.0, 75.0]), 20.0, 2.0, 60.0, 101, 121)
    seen = rasterize_mesh(vertices, faces, cameras)
    focal = float(cameras.focal()[0, 0])
    rows, cols = torch.meshgrid(torch.arange(101) - 50.0, torch.arange(121) - 60.0, indexing="ij")
    ray = torch.stack([cols / focal, rows / focal, torch.ones_like(rows)], dim=-1)
    squared = (ray**2).sum(-1)
    root = 4.0 - squared * (4.0 - 0.7**2)  # of |t ray - (0, 0, 2)| = 0.7
    distance = (2.0 - root.clamp(min=0).sqrt()) / squared
    inner, outer = root > 0.02, root < -0.02
    for c in range(2):
        assert (seen.face_id[0, c][inner] >= 0).all()
        assert (seen.face_id[0, c][outer] == -1).all()
        assert (seen.depth[0, c][outer] == 0).all()
        deep = root > 0.3
        torch.testing.assert_close(seen.depth[0, c][deep], distance[deep], atol=4e-3, rtol=0)


def test_barycentrics_give_back_the_point_of_the_pixel() -> None:
    """The interpolated position, projected, is the pixel: only so if perspective is corrected."""
    vertices = torch.tensor([[[1.0, -1, -1], [1.0, 1, -1], [-4.0, 0, 2.5]]])
    faces = torch.tensor([[0, 1, 2]])
    cameras = Cameras.orbit(0.0, 30.0, 3.0, 70.0, 40, 50)
    seen = rasterize_mesh(vertices, faces, cameras)
    found = seen.face_id[0, 0] == 0
    assert 100 < int(found.sum()) < 1900
    points = seen.interpolate(vertices, faces)[0, 0][found]
    pixels, depth = cameras.project(points[None])
    rows, cols = torch.nonzero(found).T
    expected = torch.stack([cols, rows], dim=-1) + 0.5
    torch.testing.assert_close(pixels[0, 0], expected, atol=1e-2, rtol=0)
    torch.testing.assert_close(depth[0, 0], seen.depth[0, 0][found], atol=1e-4, rtol=1e-4)


def test_no_pixel_falls_between_faces() -> None:
    grid = torch.linspace(-2, 2, 33)
    y, z = torch.meshgrid(grid, grid, indexing="ij")
    vertices = torch.stack([torch.zeros_like(y), y, z], dim=-1).reshape(1, -1, 3)
    corner = torch.arange(33 * 33).reshape(33, 33)
    a, b, c, d = (x.reshape(-1) for x in
                  (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))  # fmt: skip
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)])
    # 64 px over 2 units: pixel centres fall exactly on edges of the 1/8 grid.
    cameras = Cameras.orbit(0.0, 0.0, 1.0, 90.0, 64, 64)
    assert (rasterize_mesh(vertices, faces, cameras).face_id >= 0).all()


def test_torch_and_numba_see_the_same_faces() -> None:
    mesh = trimesh.creation.torus(0.6, 0.25)
    vertices, faces = tensors(mesh)
    both = torch.cat([vertices, vertices * torch.tensor([1.0, 0.7, 1.3])])
    cameras = Cameras.orbit(torch.tensor([10.0, 100.0]), 35.0, 1.6, 60.0, 60, 75).expand(2)
    pixels, depths = (x.flatten(0, 1) for x in cameras.project(both))
    one = _mesh_cpu.nearest_faces(pixels, depths, faces, cameras)
    two = _mesh_torch.nearest_faces(pixels, depths, faces, cameras)
    assert (one >= 0).float().mean() > 0.1
    assert (one == two).float().mean() > 0.9999


def test_faces_that_reach_behind_the_camera_and_empty_meshes() -> None:
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 60.0, 16, 16)
    behind = torch.tensor([[[3.0, 0, 0], [0.0, 1, 0], [0.0, -1, -1]]])
    assert (rasterize_mesh(behind, torch.tensor([[0, 1, 2]]), cameras).face_id == -1).all()
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    assert (rasterize_mesh(behind, nothing, cameras).face_id == -1).all()
    assert (shade_mesh(behind, nothing, cameras, background=0.25) == 0.25).all()


def test_shading_of_a_ball_is_the_cosine() -> None:
    vertices, faces = ball()
    cameras = Cameras.orbit(0.0, 0.0, 4.0, 24.0, 81, 81)
    lit = shade_mesh(vertices, faces, cameras, light=torch.tensor([0.0, 1.0, 0.0]), ambient=0.2)
    # The light is on +y, which azimuth 0 sees on the right.
    assert lit[0, 0, 40, 60, 0] > lit[0, 0, 40, 40, 0] + 0.2
    assert float(lit[0, 0, 40, 22, 0]) == pytest.approx(0.8 * 0.2, abs=0.02)
    head = shade_mesh(vertices, faces, cameras)
    assert float(head[0, 0, 40, 40, 0]) == pytest.approx(0.8, abs=0.01)
    assert (head[0, 0, 0, 0] == 1).all()
    colors = torch.zeros(len(faces), 3)
    colors[:, 2] = 1
    blue = shade_mesh(vertices, faces, cameras, face_colors=colors, background=torch.zeros(3))
    assert blue[..., :2].abs().max() == 0
    assert blue[..., 2].max() > 0.95
    with pytest.raises(HeadStudioError, match=r"'sun'.*'headlight'"):
        shade_mesh(vertices, faces, cameras, light="sun")


def test_normals_of_a_ball_point_outwards() -> None:
    vertices, faces = ball(1.0, 3)
    lone = torch.cat([vertices, torch.zeros(1, 1, 3)], dim=1)  # a vertex of no face
    normals = vertex_normals(lone, faces)
    torch.testing.assert_close(normals[:, :-1], vertices, atol=0.02, rtol=0)
    assert (normals[:, -1] == 0).all()


def test_points_of_a_ball_are_visible_on_the_near_side() -> None:
    vertices, faces = ball()
    g = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(1, 400, 3, generator=g), dim=-1)
    distance = 2.0
    cameras = Cameras.orbit(
        torch.tensor([0.0, 120.0]), torch.tensor([0.0, 40.0]), distance, 50.0, 8, 8
    )
    visible = point_visibility(0.7 * normals, vertices, faces, cameras)
    # The horizon: the normal is at a right angle to the ray from the camera.
    towards = torch.nn.functional.normalize(cameras.positions[0], dim=-1)
    height = torch.einsum("cd,ld->cl", towards, normals[0]) - 0.7 / distance
    clear = height.abs() > 0.08
    assert torch.equal(visible[0][clear], height[clear] > 0)


def test_visibility_equals_brute_force_and_torch() -> None:
    """Against trimesh's ray casting on a shape that hides parts of itself, in two poses."""
    mesh = trimesh.creation.torus(0.6, 0.25)
    vertices, faces = tensors(mesh)
    both = torch.cat([vertices, vertices * torch.tensor([1.0, 0.7, 1.3])])
    cameras = Cameras.orbit(torch.tensor([10.0, 100.0]), 25.0, 2.0, 60.0, 8, 8).expand(2)
    g = torch.Generator().manual_seed(1)
    face = torch.randint(len(faces), (60,), generator=g)
    points = both[:, faces[face]].mean(2)
    visible = point_visibility(points, both, faces, cameras, tolerance=1e-2)
    assert 0.2 < float(visible.float().mean()) < 0.8
    for p in range(2):
        for c in range(2):
            hidden = _hidden(cameras.positions[p, c], points[p], both[p][faces], 1e-2)
            assert torch.equal(visible[p, c], ~hidden)

    origins = cameras.positions[:, :, None]
    rays = (points[:, None] - origins).flatten(0, 1)
    limit = 1 - 1e-2 / rays.norm(dim=-1)
    cones = _mesh_torch.cones((both[:, None] - origins).flatten(0, 1), faces)
    by_torch = _mesh_torch.any_hit(rays, limit, cones)
    assert torch.equal(by_torch, _mesh_cpu.any_hit(rays, limit, cones))


def _hidden(
    origin: torch.Tensor, points: torch.Tensor, triangles: torch.Tensor, tolerance: float
) -> torch.Tensor:
    """Möller and Trumbore's test of every point against every triangle, in float64."""
    origin, points, triangles = origin.double(), points.double(), triangles.double()
    rays = (points - origin)[:, None]
    a, b, c = triangles.unbind(1)
    normal = torch.linalg.cross(rays, (c - a)[None])
    determinant = ((b - a) * normal).sum(-1)
    u = ((origin - a) * normal).sum(-1) / determinant
    across = torch.linalg.cross(origin - a, b - a)
    v = (rays * across).sum(-1) / determinant
    t = ((c - a) * across).sum(-1) / determinant
    before = (t > 0) & (t < 1 - tolerance / rays.norm(dim=-1))
    return ((u >= 0) & (v >= 0) & (u + v <= 1) & before).any(-1)


def test_a_point_behind_the_camera_is_not_visible() -> None:
    vertices, faces = ball(0.1, 1)
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 50.0, 8, 8)
    points = torch.tensor([[[3.0, 0, 0], [1.0, 0, 0]]])
    assert point_visibility(points, vertices, faces, cameras).tolist() == [[[False, True]]]


def test_bad_meshes_are_named() -> None:
    vertices, faces = ball(0.5, 1)
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 50.0, 8, 8)
    with pytest.raises(HeadStudioError, match=r"vertices have shape .* expected \[P, V, 3\]"):
        rasterize_mesh(vertices[0], faces, cameras)
    with pytest.raises(HeadStudioError, match=r"torch.int32, expected \[F, 3\] int64"):
        rasterize_mesh(vertices, faces.int(), cameras)
    with pytest.raises(HeadStudioError, match=r"points have shape \[4, 3\], expected \[1, L, 3\]"):
        point_visibility(torch.zeros(4, 3), vertices, faces, cameras)
    for wrong in (-1, 42):
        faces_of_nothing = torch.cat([faces, torch.tensor([[0, 1, wrong]])])
        for use in (rasterize_mesh, shade_mesh, partial(point_visibility, vertices)):
            with pytest.raises(HeadStudioError, match=r"faces have indices .* expected 0 to 41"):
                use(vertices, faces_of_nothing, cameras)
    assert math.isfinite(float(shade_mesh(vertices, faces, cameras).sum()))
