"""The fast path on a GPU: in CUDA graphs and without, against the CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from headstudio.animation import FastPlayer, fast_player
from headstudio.app.player import Player
from headstudio.flame import HeadModel
from headstudio.render import Cameras

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def on_gpu(player: Player) -> Player:
    """A copy: modules move in place."""
    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.paths import find_asset
    from headstudio.splats import Avatar

    head = HeadModel.load(find_asset(DEFAULT_HEAD)).to("cuda")
    avatar = player.avatar
    return Player.of(
        Avatar(avatar.splats.to("cuda"), avatar.shape.to("cuda"), "", avatar.extent), head
    )


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(max(float(((one - other.to(one.device)) ** 2).mean()), 1e-20))


@pytest.mark.parametrize("capture", [True, False])
def test_the_pictures_are_the_players(player, on_gpu, poses, capture):
    fast = FastPlayer(on_gpu.avatar, on_gpu.head, capture=capture)
    cameras = Cameras.orbit(torch.tensor([0.0, 140.0]), 10.0, 2.4, 40.0, 100, 150)
    background = torch.tensor([0.2, 0.9, 0.4])
    expected = player.render(poses, cameras, background=background)
    pictures = fast.render(poses, cameras, background)
    assert pictures.rgb.is_cuda
    assert psnr(pictures.rgb, expected.rgb) > 50
    assert psnr(pictures.alpha, expected.alpha) > 50
    # gsplat through the usual door.
    usual = on_gpu.render(poses.to("cuda"), cameras, background=background.cuda()).rgb
    assert psnr(pictures.rgb, usual) > 60


def test_a_graph_follows_parameters_cameras_and_background(player, on_gpu, poses):
    fast = FastPlayer(on_gpu.avatar, on_gpu.head)
    kept = []
    for i, distance in enumerate((3.0, 2.4, 1.2)):  # nearer: many more tiles
        cameras = Cameras.orbit(30.0 * i, 10.0, distance, 40.0, 128, 128)
        ground = torch.tensor([0.3 * i, 0.5, 0.1])
        params = poses[i].to("cuda" if i == 1 else "cpu")
        picture = fast.render(params, cameras.to("cuda") if i == 1 else cameras, ground).rgb
        kept.append((picture, player.render(poses[i], cameras, background=ground).rgb))
    # Earlier pictures are the caller's: later ones do not write over them.
    for picture, expected in kept:
        assert psnr(picture, expected) > 50
    assert len(fast._captured) == 1


def test_more_pictures_than_are_captured_are_the_same(on_gpu, poses, monkeypatch):
    fast = FastPlayer(on_gpu.avatar, on_gpu.head)
    cameras = Cameras.orbit(20.0, 10.0, 2.4, 40.0, 64, 64)
    captured = fast.render(poses, cameras).rgb
    monkeypatch.setattr(fast_player, "MOST_CAPTURED", 5)
    assert psnr(captured, fast.render(poses, cameras).rgb) > 60
    assert len(fast._captured) == 1


def test_sizes_and_batches_have_graphs_of_their_own(player, on_gpu, poses):
    fast = FastPlayer(on_gpu.avatar, on_gpu.head)
    for rows, size in ((1, 64), (4, 64), (1, 96), (1, 64)):
        cameras = Cameras.orbit(20.0, 10.0, 2.4, 40.0, size, size)
        expected = player.render(poses[:rows], cameras).rgb
        assert psnr(fast.render(poses[:rows], cameras).rgb, expected) > 50
    assert len(fast._captured) == 3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_player_draws_on_its_own_gpu_whichever_is_current(player, on_gpu, poses):
    fast = FastPlayer(on_gpu.avatar, on_gpu.head)
    cameras = Cameras.orbit(20.0, 10.0, 2.4, 40.0, 64, 64)
    with torch.cuda.device(1 - fast.device.index):
        pictures = fast.render(poses[:1], cameras)
    assert pictures.rgb.device == fast.device
    assert psnr(pictures.rgb, player.render(poses[:1], cameras).rgb) > 50


@pytest.mark.parametrize("capture", [True, False])
def test_splats_that_are_all_too_faint_leave_the_background(on_gpu, poses, capture):
    faint = replace(
        on_gpu.avatar,
        splats=replace(
            on_gpu.avatar.splats, opacities=torch.full_like(on_gpu.avatar.splats.opacities, -20.0)
        ),
    )
    fast = FastPlayer(faint, on_gpu.head, capture=capture)
    background = torch.tensor([0.2, 0.9, 0.4])
    cameras = Cameras.orbit(0.0, 0.0, 2.4, 40.0, 32, 48)
    pictures = fast.render(poses[:2], cameras, background)
    assert pictures.rgb.shape == (2, 1, 32, 48, 3)
    assert torch.equal(pictures.rgb.cpu(), background.expand(2, 1, 32, 48, 3))
    assert not pictures.alpha.any()
