"""The fast path against the one that everything else uses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from headstudio.animation import FastPlayer
from headstudio.animation.skinning import rotation_matrices, triangle_maps, world_vertices
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.motion import for_head, load_motion
from headstudio.paths import find_asset
from headstudio.render import Cameras
from headstudio.render.grouped import place
from headstudio.splats import triangle_frames


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(max(float(((one - other) ** 2).mean()), 1e-20))


def own(player, params: FlameParams) -> torch.Tensor:
    with torch.no_grad():
        return player.vertices(params)


def test_the_pictures_are_the_players(player, poses):
    fast = FastPlayer(player.avatar, player.head)
    cameras = Cameras.orbit(torch.tensor([0.0, 140.0]), 10.0, 2.4, 40.0, 96, 64)
    background = torch.tensor([0.2, 0.9, 0.4])
    expected = player.render(poses, cameras, background=background)
    pictures = fast.render(poses, cameras, background)
    assert pictures.rgb.shape == (6, 2, 96, 64, 3)
    assert pictures.alpha.shape == (6, 2, 96, 64, 1)
    assert psnr(pictures.rgb, expected.rgb) > 60
    assert psnr(pictures.alpha, expected.alpha) > 60
    assert psnr(pictures.rgb[1:], expected.rgb[:1]) < 30  # they do move


def test_a_motion_plays_frame_by_frame(player):
    talk = for_head(load_motion(find_asset("motion/talk.npz")), player.head)
    fast = FastPlayer(player.avatar, player.head)
    cameras = Cameras.orbit(20.0, 5.0, 2.5, 40.0, 128, 128)
    for frame in (0, 60, 130):
        params = talk.params[frame]
        assert psnr(fast.render(params, cameras).rgb, player.render(params, cameras).rgb) > 60


def test_one_pose_for_several_cameras_and_one_camera_for_several_poses(player, poses):
    fast = FastPlayer(player.avatar, player.head)
    one = Cameras.orbit(20.0, 5.0, 2.5, 40.0, 32, 32)
    three = Cameras(one.c2w.expand(3, -1, -1, -1), one.fovy.expand(3, -1), 32, 32)
    alone = fast.render(poses[2], one).rgb
    assert torch.equal(fast.render(poses[2], three).rgb, alone.expand(3, -1, -1, -1, -1))
    assert torch.allclose(fast.render(poses, one).rgb[2], alone[0], atol=1e-4)
    with pytest.raises(HeadStudioError, match="cameras are for 3 poses"):
        fast.render(poses, three)


@pytest.mark.parametrize("which", ["player", "corrected"])
def test_vertices_are_the_head_models(which, poses, request):
    player = request.getfixturevalue(which)
    fast = FastPlayer(player.avatar, player.head)
    expected = own(player, poses)
    faces = player.avatar.splats.face.unique()
    used = player.head.faces[faces].unique()
    vertices = world_vertices(fast.head, fast.head.pack(poses))
    assert torch.allclose(vertices, expected[:, used], atol=2e-6)
    assert fast.head.corrected == (which == "corrected")


def test_coefficients_that_are_left_out_are_zero(player, poses):
    fast = FastPlayer(player.avatar, player.head)
    few = poses.replace(expression=poses.expression[:, :7])
    zeros = torch.zeros_like(poses.expression[:, 7:])
    padded = poses.replace(expression=torch.cat([few.expression, zeros], 1))
    assert torch.equal(fast.head.pack(few), fast.head.pack(padded))


def test_coefficients_that_the_head_has_not_are_refused_as_the_player_refuses_them(player, poses):
    fast = FastPlayer(player.avatar, player.head)
    cameras = Cameras.orbit(20.0, 5.0, 2.5, 40.0, 8, 8)
    many = poses.replace(expression=F.pad(poses.expression, (0, 5), value=1.0))
    for render in (player.render, fast.render):
        with pytest.raises(HeadStudioError, match=r"105 expression coefficients; .* 100"):
            render(many, cameras)


def test_small_and_large_rotations(player):
    head = FastPlayer(player.avatar, player.head).head
    vectors = torch.tensor(
        [[0.0, 0, 0], [1e-8, 0, 0], [1e-4, -2e-4, 0], [0.5, 0.2, -0.9], [0, 3.14159, 0], [5, 0, 1]]
    )
    expected = Rotation.from_rotvec(vectors.double().numpy()).as_matrix()
    matrices = rotation_matrices(vectors, head.turns, head.identity)
    assert torch.allclose(matrices.double(), torch.from_numpy(expected), atol=2e-6)


def test_maps_are_the_frames_of_the_triangles(player, poses):
    vertices = own(player, poses)
    faces = player.head.faces
    frames = triangle_frames(vertices, faces)
    maps = triangle_maps(vertices, faces.T)
    assert torch.allclose(maps[..., 3], frames.origin, atol=1e-6)
    linear = frames.scale[..., None, None] * frames.rotation
    assert torch.allclose(maps[..., :3], linear, atol=1e-6)


def test_what_is_picked_for_the_splats_does_not_adjoin(player, poses):
    """On a GPU, rows of 16 adjoining bytes are picked many times more slowly."""
    maps = triangle_maps(own(player, poses[:1]), player.head.faces.T)
    assert not maps[0, 0].is_contiguous()


def test_triangles_without_an_area_hide_their_splats_and_harm_nothing():
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]]])
    corners = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 1], [2, 0, 1, 3]])  # line, point, edge, fine
    maps = triangle_maps(vertices, corners)
    assert torch.isfinite(maps).all()
    assert maps[0, :3, :, :3].abs().max() < 1e-5
    assert maps[0, 3, :, :3].det() == pytest.approx(0.5**1.5)


def test_splats_are_placed_where_the_rig_puts_them(player, poses):
    fast = FastPlayer(player.avatar, player.head)
    with torch.no_grad():
        posed = player.pose(own(player, poses))
    kept = posed.opacities >= 1 / 255
    order = player.avatar.splats.face[kept].argsort(stable=True)
    means, covariances = place(fast.splats, fast.maps(fast.head.pack(poses)))
    assert torch.allclose(means, posed.means[:, kept][:, order], atol=5e-6)
    rotation = torch.from_numpy(
        Rotation.from_quat(
            posed.quats[:, kept][:, order].flatten(0, 1)[:, [1, 2, 3, 0]]
        ).as_matrix()
    ).unflatten(0, means.shape[:2])
    axes = rotation * posed.scales[:, kept][:, order][..., None, :].double()
    expected = axes @ axes.mT
    upper = torch.triu_indices(3, 3)
    size = expected.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    error = (covariances - expected[..., upper[0], upper[1]]).abs() / size
    assert error.max() < 1e-4
    assert torch.allclose(fast.splats.colors, posed.colors[kept][order])
