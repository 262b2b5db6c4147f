"""Tensor helpers, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from threestudio.utils.ops import (
    SpecifyGradient,
    chunk_batch,
    dot,
    get_activation,
    get_mvp_matrix,
    get_projection_matrix,
    get_ray_directions,
    get_rays,
    perpendicular_component,
    reflect,
    scale_tensor,
)

RAMP = torch.linspace(-2, 2, 9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, RAMP),
        ("none", RAMP),
        ("exp", RAMP.exp()),
        ("shifted_exp", (RAMP - 1).exp()),
        ("trunc_exp", RAMP.exp()),
        ("shifted_trunc_exp", (RAMP - 1).exp()),
        ("sigmoid", 1 / (1 + (-RAMP).exp())),
        ("tanh", RAMP.tanh()),
        ("shifted_softplus", (1 + (RAMP - 1).exp()).log()),
        ("scale_-11_01", RAMP / 2 + 0.5),
        ("relu", RAMP.clamp(min=0)),
    ],
)
def test_activations(name: str | None, expected: torch.Tensor) -> None:
    torch.testing.assert_close(get_activation(name)(RAMP), expected)


def test_srgb() -> None:
    linear = torch.tensor([-1.0, 0.0, 0.001, 0.2140, 1.0, 2.0])
    expected = torch.tensor([0.0, 0.0, 0.01292, 0.5, 1.0, 1.0])
    torch.testing.assert_close(get_activation("lin2srgb")(linear), expected, atol=1e-4, rtol=0)


def test_an_unknown_activation_is_an_error() -> None:
    with pytest.raises(ValueError, match="sigmoidal"):
        get_activation("sigmoidal")


def test_the_gradient_of_trunc_exp_stops_growing() -> None:
    x = torch.tensor([1.0, 20.0], requires_grad=True)
    get_activation("trunc_exp")(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([math.exp(1), math.exp(15)]))


def test_a_gradient_can_be_specified() -> None:
    x, gradient = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    (2 * SpecifyGradient.apply(x, gradient)).sum().backward()
    torch.testing.assert_close(x.grad, 2 * gradient)


def test_vectors() -> None:
    n = F.normalize(torch.randn(5, 3), dim=-1)
    x = torch.randn(5, 3)
    torch.testing.assert_close(dot(x, n), (x * n).sum(-1, keepdim=True))
    mirrored = reflect(x, n)
    torch.testing.assert_close(dot(mirrored, n), dot(x, n))
    torch.testing.assert_close(mirrored.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(scale_tensor(RAMP, (-2, 2), (0, 1)), torch.linspace(0, 1, 9))
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    product = (perpendicular_component(a, b) * b).sum((1, 2, 3))
    torch.testing.assert_close(product, torch.zeros(2), atol=1e-4, rtol=0)


def test_chunks_give_what_the_whole_gives() -> None:
    x, y = torch.randn(7, 3), torch.randn(7, 1)

    def work(a: torch.Tensor, b: torch.Tensor, factor: float) -> dict:
        return {"sum": (a + b) * factor, "nothing": None}

    whole = work(x, y, 2.0)
    for size in (0, 2, 7, 100):
        parts = chunk_batch(work, size, x, b=y, factor=2.0)
        torch.testing.assert_close(parts["sum"], whole["sum"])
        assert parts["nothing"] is None
    torch.testing.assert_close(chunk_batch(torch.exp, 3, x), x.exp())
    torch.testing.assert_close(chunk_batch(lambda a: (a, a + 1), 3, x)[1], x + 1)


def test_ray_directions() -> None:
    directions = get_ray_directions(H=2, W=4, focal=2.0)
    assert directions.shape == (2, 4, 3)
    torch.testing.assert_close(directions[0, 0], torch.tensor([-0.75, 0.25, -1.0]))
    torch.testing.assert_close(directions[1, 3], torch.tensor([0.75, -0.25, -1.0]))
    given = get_ray_directions(2, 4, (2.0, 4.0), principal=(1.0, 1.0), use_pixel_centers=False)
    torch.testing.assert_close(given[1, 3], torch.tensor([1.0, 0.0, -1.0]))


def test_rays_of_a_batch_are_those_of_each_camera() -> None:
    rotation = torch.linalg.qr(torch.randn(3, 3, 3)).Q
    c2w = torch.eye(4).repeat(3, 1, 1)
    c2w[:, :3, :3], c2w[:, :3, 3] = rotation, torch.randn(3, 3)
    directions = get_ray_directions(H=4, W=5, focal=3.0)
    origins, rays = get_rays(directions, c2w, keepdim=True)
    assert origins.shape == rays.shape == (3, 4, 5, 3)
    torch.testing.assert_close(rays[1, 2, 3], F.normalize(rotation[1] @ directions[2, 3], dim=0))
    torch.testing.assert_close(origins[2, 0, 4], c2w[2, :3, 3])
    flat_origins, flat = get_rays(directions, c2w[1], normalize=False)
    assert flat.shape == flat_origins.shape == (20, 3)
    torch.testing.assert_close(F.normalize(flat, dim=-1), rays[1].reshape(-1, 3))
    batched = directions.repeat(3, 1, 1, 1)
    torch.testing.assert_close(get_rays(batched, c2w, keepdim=True)[1], rays)
    _, listed = get_rays(directions.reshape(-1, 3)[:3], c2w, keepdim=True)
    torch.testing.assert_close(listed[2], rays[2].reshape(-1, 3)[2])


def test_projection_of_points_on_the_edges_of_the_view() -> None:
    fovy = torch.tensor([math.radians(60)])
    projection = get_projection_matrix(fovy, aspect_wh=2.0, near=0.1, far=10.0)
    assert projection.shape == (1, 4, 4)
    edge = math.tan(math.radians(30))
    for depth, ndc_depth in ((0.1, -1.0), (10.0, 1.0)):
        corner = torch.tensor([2 * edge * depth, edge * depth, -depth, 1.0])
        clip = projection[0] @ corner
        # The y axis is turned over: up in the world is down in the picture.
        torch.testing.assert_close(clip[:3] / clip[3], torch.tensor([1.0, -1.0, ndc_depth]))


def test_mvp_is_projection_after_the_inverse_pose() -> None:
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[:, :3, :3] = torch.linalg.qr(torch.randn(2, 3, 3)).Q
    c2w[:, :3, 3] = torch.randn(2, 3)
    projection = get_projection_matrix(torch.tensor([0.7, 0.9]), 1.0, 0.1, 100.0)
    expected = projection @ torch.linalg.inv(c2w)
    torch.testing.assert_close(get_mvp_matrix(c2w, projection), expected, atol=1e-4, rtol=1e-4)
