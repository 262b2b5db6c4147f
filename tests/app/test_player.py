"""An avatar file opened for playing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.paths import find_asset
from headstudio.render import Cameras, render_splats
from headstudio.splats import (
    initialise_uniform,
    pose_splats,
    save_avatar,
    triangle_frames,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file of 3000 splats on the open head with a shape of its own."""
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    frame = head.world_frame(1.5)
    g = torch.Generator().manual_seed(0)
    splats = initialise_uniform(frame.to_world(head.neutral()), head.faces, 3000, g, opacity=0.9)
    splats.colors = torch.randn(3000, 3, generator=g)
    shape = torch.zeros(head.n_shape)
    shape[:5] = torch.tensor([1.5, -1.0, 0.5, 1.0, -2.0])
    path = tmp_path_factory.mktemp("avatar") / "avatar.ply"
    save_avatar(path, splats, head, shape, frame, "a person of many colours")
    return path, head, frame, splats, shape


def open_mouth(head):
    params = FlameParams.zeros(1, head.n_shape, head.n_expression)
    params.jaw_pose[0, 0] = 0.3
    return params


def test_a_player_poses_its_avatar_with_the_avatars_own_identity(saved):
    path, head, frame, splats, shape = saved
    player = Player.open(path)
    camera = Cameras.orbit(20.0, 5.0, 2.4, 40.0, 64, 64)
    params = open_mouth(head)
    vertices = frame.to_world(head(params.replace(shape=shape[None])))
    posed = pose_splats(splats, triangle_frames(vertices, head.faces))
    expected = render_splats(posed, camera).rgb
    assert torch.allclose(player.render(params, camera).rgb, expected, atol=2e-3)
    mean = player.vertices(params, own_shape=False)
    assert torch.allclose(mean, frame.to_world(head(params)), atol=1e-6)
    assert not torch.allclose(mean, vertices, atol=1e-3)


def test_another_head_model_is_refused(saved, tmp_path):
    path = saved[0]
    with np.load(find_asset(DEFAULT_HEAD)) as arrays:
        other = {key: arrays[key] for key in arrays.files}
    other["v_template"] = other["v_template"] * 1.01
    np.savez(tmp_path / "other.npz", **other)
    with pytest.raises(HeadStudioError, match="rides on the head model"):
        Player.open(path, tmp_path / "other.npz")
