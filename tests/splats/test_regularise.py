"""The mesh regularisers against a loop over splats."""

from __future__ import annotations

import pytest
import torch
import trimesh

from headstudio.splats import (
    Splats,
    pose_splats,
    position_regulariser,
    scale_regulariser,
    triangle_frames,
)


def setup(scale=1.0, n=60):
    mesh = trimesh.creation.icosphere(subdivisions=1)
    g = torch.Generator().manual_seed(0)
    vertices = torch.tensor(mesh.vertices)[None] + 0.2 * torch.randn(2, 42, 3, generator=g).double()
    faces = torch.tensor(mesh.faces, dtype=torch.int64)
    splats = Splats(
        means=scale * torch.randn(n, 3, generator=g, dtype=torch.float64),
        quats=torch.randn(n, 4, generator=g, dtype=torch.float64),
        scales=torch.randn(n, 3, generator=g, dtype=torch.float64) + torch.tensor(scale).log(),
        opacities=torch.zeros(n, dtype=torch.float64),
        colors=torch.zeros(n, 3, dtype=torch.float64),
        face=torch.randint(len(faces), (n,), generator=g),
    )
    return splats, vertices * 3, faces


def by_hand(splats, vertices, faces, threshold, adaptive):
    """Position and scale losses, one splat at a time."""
    position, scale = [], []
    frames = triangle_frames(vertices, faces)
    posed = pose_splats(splats, frames)
    for p in range(len(vertices)):
        for i in range(splats.n):
            corners = vertices[p, faces[splats.face[i]]]
            centroid = corners.mean(0)
            limit = threshold * (corners - centroid).norm(dim=-1).max()
            edges = corners[1:] - corners[0]
            area = 0.5 * torch.linalg.cross(edges[0], edges[1]).norm() if adaptive else 1.0
            d = (posed.means[p, i] - centroid).norm()
            if d > limit:
                position.append((0.5 * d**2 if d < 1 else d - 0.5) / area)
            scale += [s / area for s in posed.scales[p, i] if s > limit]
    assert 0 < len(position) < 2 * splats.n
    assert 0 < len(scale) < 6 * splats.n
    return torch.stack(position).mean(), torch.stack(scale).mean()


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 1.2])
def test_both_losses_follow_their_equations(adaptive, threshold) -> None:
    splats, vertices, faces = setup()
    frames = triangle_frames(vertices, faces)
    posed = pose_splats(splats, frames)
    expected = by_hand(splats, vertices, faces, threshold, adaptive)
    for function, value in zip((position_regulariser, scale_regulariser), expected, strict=True):
        torch.testing.assert_close(function(posed, splats.face, frames, threshold, adaptive), value)


@pytest.mark.parametrize("function", [position_regulariser, scale_regulariser])
@pytest.mark.parametrize("adaptive", [False, True])
def test_splats_within_the_threshold_cost_nothing(function, adaptive) -> None:
    splats, vertices, faces = setup(scale=1e-3)
    splats.means.requires_grad_()
    splats.scales.requires_grad_()
    splats.means.data[0] = 0  # exactly on the centroid, where a norm has no gradient
    frames = triangle_frames(vertices, faces)
    loss = function(pose_splats(splats, frames), splats.face, frames, 0.5, adaptive)
    loss.backward()
    assert loss.item() == 0
    for parameter in (splats.means, splats.scales):
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("adaptive", [False, True])
def test_gradients_by_finite_differences(adaptive) -> None:
    splats, vertices, faces = setup(n=12)

    def losses(means, scales):
        local = Splats(means, splats.quats, scales, splats.opacities, splats.colors, splats.face)
        frames = triangle_frames(vertices, faces)
        posed = pose_splats(local, frames)
        return (
            position_regulariser(posed, splats.face, frames, 0.5, adaptive),
            scale_regulariser(posed, splats.face, frames, 0.5, adaptive),
        )

    inputs = (splats.means.requires_grad_(), splats.scales.requires_grad_())
    assert torch.autograd.gradcheck(losses, inputs)


def test_area_is_a_weight_and_not_a_way_out() -> None:
    splats, vertices, faces = setup()
    splats.means = splats.means * 3
    vertices.requires_grad_()
    frames = triangle_frames(vertices, faces)
    posed = pose_splats(splats, frames.detach())  # leaves the weights as the only way to the mesh
    scale_regulariser(posed, splats.face, frames, 0.5, True).requires_grad_().backward()
    assert vertices.grad is None
