"""The renderer: one batched call, over the host's background."""

from __future__ import annotations

import pytest
import torch

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.plugin.renderer import view_directions
from headstudio.render import Cameras, render_splats
from threestudio.utils.ops import get_ray_directions, get_rays


def test_views_are_those_of_single_renders(make_geometry, make_renderer, batch):
    geometry = make_geometry(initial_opacity=0.7)
    color = (0.2, 0.5, 0.9)
    out = make_renderer(geometry, color)(**batch)
    assert out["comp_rgb"].shape == (3, 24, 24, 3)
    assert out["opacity"].shape == out["depth"].shape == (3, 24, 24, 1)
    assert 0.05 < out["opacity"].mean() < 0.95
    for view in range(3):
        flame = {name: v if len(v) == 1 else v[[view]] for name, v in batch["flame"].items()}
        camera = Cameras(batch["c2w"][None, [view]], batch["fovy"][None, [view]], 24, 24)
        alone = render_splats(geometry.pose(flame).splats, camera, background=torch.tensor(color))
        assert torch.allclose(out["comp_rgb"][view], alone.rgb[0, 0], atol=1e-5)
        assert torch.allclose(out["depth"][view], alone.depth[0, 0], atol=1e-4)


def test_a_shared_pose_is_seen_by_all_cameras(make_geometry, make_renderer, batch):
    renderer = make_renderer(make_geometry())
    one = {name: value[:1] for name, value in batch["flame"].items()}
    three = {name: value[:1].expand(3, -1) for name, value in batch["flame"].items()}
    shared = renderer(**{**batch, "flame": one})
    repeated = renderer(**{**batch, "flame": three})
    assert shared["means2d"].shape == (1, 3, 300, 2)
    assert repeated["means2d"].shape == (3, 1, 300, 2)
    assert torch.allclose(shared["comp_rgb"], repeated["comp_rgb"], atol=1e-6)
    with pytest.raises(HeadStudioError, match="2 poses were given for 3 views"):
        renderer(**{**batch, "flame": {"jaw_pose": torch.zeros(2, 3)}})


def test_gradients_reach_splats_and_a_learned_background(make_geometry, batch):
    geometry = make_geometry()
    background = threestudio.find("solid-color-background")({"learned": True})
    renderer = threestudio.find("gsplat-renderer")(
        {}, geometry=geometry, material=threestudio.find("no-material")({}), background=background
    )
    out = renderer(**batch)
    out["comp_rgb"].square().sum().backward()
    assert background.env_color.grad.abs().min() > 0
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert getattr(geometry.splats, name).grad is not None, name
    assert out["means2d"].grad.abs().max() > 0


def test_directions_run_through_the_pixels(batch):
    directions = view_directions(batch["c2w"], batch["fovy"], 25, 25)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(3, 25, 25), atol=1e-5)
    focal = 12.5 / (batch["fovy"] / 2).tan()
    camera = get_ray_directions(H=25, W=25, focal=1.0).repeat(3, 1, 1, 1)
    camera[..., :2] /= focal[:, None, None, None]
    expected = get_rays(camera, batch["c2w"], keepdim=True, normalize=True)[1]
    assert torch.allclose(directions, expected, atol=1e-5)
    forward = -batch["c2w"][:, :3, 2]
    assert torch.allclose(directions[:, 12, 12], forward, atol=1e-5)
    # The upper edge is half a pixel beyond the first row: half the field of view away.
    up = batch["c2w"][:, :3, 1]
    slope = (directions[:, 0, 12] * up).sum(-1) / (directions[:, 0, 12] * forward).sum(-1)
    assert torch.allclose(slope, (batch["fovy"] / 2).tan() * 24 / 25, atol=1e-5)


def test_mistakes_are_explained(make_geometry, make_renderer):
    with pytest.raises(HeadStudioError, match=r"renderer\.backend is 'cuda'"):
        make_renderer(make_geometry(), backend="cuda")
    with pytest.raises(HeadStudioError, match="not Linear"):
        make_renderer(torch.nn.Linear(1, 1))
