"""The rig: frames, posing, its inverse, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from headstudio.errors import HeadStudioError
from headstudio.splats import (
    PosedSplats,
    Splats,
    initialise_uniform,
    matrix_to_quaternion,
    pose_splats,
    quaternion_product,
    triangle_frames,
    unpose,
)


def sphere(dtype=torch.float32):
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.7)
    return torch.tensor(mesh.vertices, dtype=dtype), torch.tensor(mesh.faces, dtype=torch.int64)


def random_splats(n, n_faces, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Splats(
        means=torch.randn(n, 3, generator=g, dtype=dtype),
        quats=torch.randn(n, 4, generator=g, dtype=dtype),
        scales=0.5 * torch.randn(n, 3, generator=g, dtype=dtype),
        opacities=torch.randn(n, generator=g, dtype=dtype),
        colors=torch.rand(n, 3, generator=g, dtype=dtype),
        face=torch.randint(n_faces, (n,), generator=g),
    )


def to_matrix(quats):
    array = quats.detach().double().reshape(-1, 4).numpy()
    matrices = torch.tensor(Rotation.from_quat(array[:, [1, 2, 3, 0]]).as_matrix())
    return matrices.reshape(*quats.shape[:-1], 3, 3)


def random_rotation(seed):
    return torch.tensor(Rotation.random(random_state=seed).as_matrix())


def test_frames_of_one_triangle_by_hand() -> None:
    # A right triangle in the plane y = 1 with legs 3 along +z and 4 along +x.
    vertices = torch.tensor([[[0.0, 1, 0], [0, 1, 3], [4, 1, 0]]])
    frames = triangle_frames(vertices, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(frames.origin[0, 0], torch.tensor([4 / 3, 1, 1]))
    columns = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]).T  # x, y, z
    torch.testing.assert_close(frames.rotation[0, 0], columns)
    assert frames.area.item() == pytest.approx(6.0)
    assert frames.scale.item() == pytest.approx(math.sqrt(6.0))
    far_corner = torch.tensor([4 - 4 / 3, 0, -1.0])
    assert frames.radius.item() == pytest.approx(far_corner.norm().item())


def test_frames_are_right_handed_and_agree_with_their_quaternions() -> None:
    vertices, faces = sphere()
    frames = triangle_frames(vertices[None], faces)
    eye = torch.eye(3).expand(1, len(faces), 3, 3)
    torch.testing.assert_close(frames.rotation.mT @ frames.rotation, eye, atol=1e-5, rtol=0)
    assert (torch.linalg.det(frames.rotation) > 0.99).all()
    # z of an icosphere's triangles points outwards.
    assert (frames.rotation[..., 2] * frames.origin).sum(-1).min() > 0
    torch.testing.assert_close(to_matrix(frames.quat).float(), frames.rotation, atol=1e-5, rtol=0)


def test_posing_follows_the_equations_splat_by_splat() -> None:
    vertices, faces = sphere(torch.float64)
    moved = torch.stack([vertices, vertices @ random_rotation(1).T * 1.3 + 0.2])
    splats = random_splats(40, len(faces), torch.float64)
    posed = pose_splats(splats, triangle_frames(moved, faces))
    for p in range(2):
        for i in range(splats.n):
            a, b, c = moved[p, faces[splats.face[i]]]
            normal = torch.linalg.cross(b - a, c - a)
            k = (0.5 * normal.norm()).sqrt()
            x, z = (b - a) / (b - a).norm(), normal / normal.norm()
            rotation = torch.stack([x, torch.linalg.cross(z, x), z], dim=1)
            mean = (a + b + c) / 3 + k * rotation @ splats.means[i]
            torch.testing.assert_close(posed.means[p, i], mean)
            torch.testing.assert_close(
                to_matrix(posed.quats[p, i]), rotation @ to_matrix(splats.quats[i])
            )
            torch.testing.assert_close(posed.scales[p, i], k * splats.scales[i].exp())
    torch.testing.assert_close(posed.opacities, 1 / (1 + (-splats.opacities).exp()))


@pytest.mark.parametrize("seed", range(4))
def test_a_rigid_motion_of_the_mesh_moves_every_splat_by_it(seed) -> None:
    vertices, faces = sphere()
    splats = random_splats(5000, len(faces))
    rotation = random_rotation(seed).float()
    shift = torch.tensor([0.3, -0.2, 0.5])
    still = pose_splats(splats, triangle_frames(vertices[None], faces))
    moved = pose_splats(splats, triangle_frames((vertices @ rotation.T + shift)[None], faces))
    torch.testing.assert_close(moved.means, still.means @ rotation.T + shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        to_matrix(moved.quats), rotation.double() @ to_matrix(still.quats), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(moved.scales, still.scales, atol=1e-5, rtol=0)


def test_unposing_inverts_posing() -> None:
    vertices, faces = sphere()
    frames = triangle_frames(vertices[None], faces)
    splats = random_splats(5000, len(faces))
    splats.colors = splats.colors.abs()  # colours below zero are clamped and cannot come back
    posed = pose_splats(splats, frames)
    back = unpose(
        posed.means[0], posed.quats[0], posed.scales[0], splats.face, frames,
        posed.opacities, posed.colors,
    )  # fmt: skip
    torch.testing.assert_close(back.means, splats.means, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(back.scales, splats.scales, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.opacities, splats.opacities, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.colors, splats.colors, atol=1e-5, rtol=0)
    torch.testing.assert_close(to_matrix(back.quats), to_matrix(splats.quats), atol=1e-5, rtol=0)
    again = pose_splats(back, frames)
    for name in ("means", "scales", "opacities", "colors"):
        torch.testing.assert_close(getattr(again, name), getattr(posed, name), atol=1e-5, rtol=0)


def test_unposing_refuses_several_poses() -> None:
    vertices, faces = sphere()
    frames = triangle_frames(vertices.expand(2, -1, -1), faces)
    s = random_splats(3, len(faces))
    with pytest.raises(HeadStudioError, match="2 poses"):
        unpose(s.means, s.quats, s.scales.exp(), s.face, frames, s.opacities, s.colors)


def flatten(posed: PosedSplats):
    return posed.means, posed.quats, posed.scales, posed.opacities, posed.colors


def test_gradients_by_finite_differences() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=0)
    g = torch.Generator().manual_seed(3)
    vertices = torch.tensor(mesh.vertices) + 0.1 * torch.randn(2, 12, 3, generator=g).double()
    faces = torch.tensor(mesh.faces, dtype=torch.int64)
    splats = random_splats(9, len(faces), torch.float64)
    splats.face[:4] = 5  # several on one triangle: their gradients add up
    inputs = [vertices, *splats.parameters().values()]
    for tensor in inputs:
        tensor.requires_grad_()

    def pose(vertices, *parameters):
        local = Splats(*parameters, face=splats.face)
        return flatten(pose_splats(local, triangle_frames(vertices, faces)))

    assert torch.autograd.gradcheck(pose, inputs)


DEGENERATE = {
    "a point": [[1.0, 2, 3], [1, 2, 3], [1, 2, 3]],
    "first edge of no length": [[0.0, 0, 0], [0, 0, 0], [0, 1, 0]],
    "second edge of no length": [[0.0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "third edge of no length": [[0.0, 0, 0], [0, 1, 0], [0, 1, 0]],
    "collinear": [[0.0, 0, 0], [1, 1, 1], [3, 3, 3]],
    "almost collinear": [[0.0, 0, 0], [1, 0, 0], [0.5, 1e-9, 0]],
    "tiny": [[0.0, 0, 0], [1e-8, 0, 0], [0, 1e-8, 0]],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("corners", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_triangles_have_finite_frames_and_gradients(corners, dtype) -> None:
    vertices = torch.tensor([corners], dtype=dtype, requires_grad=True)
    frames = triangle_frames(vertices, torch.tensor([[0, 1, 2]]))
    rotation = frames.rotation[0, 0]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3, dtype=dtype), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotation) > 0.99
    assert frames.scale > 0
    posed = pose_splats(random_splats(3, 1, dtype), frames)
    sum((i + 1) * value.sum() for i, value in enumerate(flatten(posed))).backward()
    assert all(torch.isfinite(value).all() for value in flatten(posed))
    assert torch.isfinite(vertices.grad).all()


def test_a_small_triangle_is_not_taken_for_a_degenerate_one() -> None:
    # Edges of 2e-5, a hundredth of the smallest on a head, with float32 coordinates near 1.
    vertices = torch.tensor([[[0.5, 0.5, 0.5], [0.5 + 2e-5, 0.5, 0.5], [0.5, 0.5 + 2e-5, 0.5]]])
    frames = triangle_frames(vertices, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(frames.rotation[0, 0, :, 2], torch.tensor([0.0, 0, 1]))
    assert frames.scale.item() == pytest.approx(2e-5 / math.sqrt(2), rel=1e-2)


def test_vertices_without_a_pose_axis_are_refused() -> None:
    vertices, faces = sphere()
    with pytest.raises(HeadStudioError, match=r"expected \[P, V, 3\]"):
        triangle_frames(vertices, faces)


def half_turns():
    axes = torch.tensor(
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, -1], [1, 1, 1], [1, -2, 3]],
        dtype=torch.float64,
    )
    axes = axes / axes.norm(dim=-1, keepdim=True)
    return 2 * axes[:, :, None] * axes[:, None, :] - torch.eye(3, dtype=torch.float64)


def test_matrix_to_quaternion_at_every_branch() -> None:
    random = torch.tensor(Rotation.random(500, random_state=0).as_matrix())
    matrices = torch.cat([torch.eye(3, dtype=torch.float64)[None], half_turns(), random])
    matrices.requires_grad_()
    quats = matrix_to_quaternion(matrices)
    torch.testing.assert_close(to_matrix(quats), matrices.detach())
    torch.testing.assert_close(quats.norm(dim=-1), torch.ones(len(quats), dtype=torch.float64))
    weights = torch.tensor([1.0, -2, 3, -4], dtype=torch.float64)
    (quats * weights).sum().backward()
    # 4 q_i >= 2 is divided by, so no gradient can be larger than a few of the weights.
    assert matrices.grad.abs().max() < 10


def test_quaternion_product_composes_rotations() -> None:
    g = torch.Generator().manual_seed(0)
    left, right = torch.nn.functional.normalize(
        torch.randn(2, 50, 4, generator=g, dtype=torch.float64), dim=-1
    )
    torch.testing.assert_close(
        to_matrix(quaternion_product(left, right)), to_matrix(left) @ to_matrix(right)
    )


def test_uniform_splats_lie_on_their_triangles_at_rest() -> None:
    vertices, faces = sphere()
    splats = initialise_uniform(vertices, faces, 2000, torch.Generator().manual_seed(0))
    posed = pose_splats(splats, triangle_frames(vertices[None], faces))
    assert splats.means[:, 2].abs().max() < 1e-4  # in the plane of the triangle
    assert posed.means[0].norm(dim=-1).max() <= 0.7 + 1e-5
    assert posed.means[0].norm(dim=-1).min() > 0.68
