"""Where splats start."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh

from headstudio.errors import HeadStudioError
from headstudio.splats import (
    initialise_per_triangle,
    initialise_uniform,
    neighbour_distance,
    pose_splats,
    sample_surface,
    triangle_frames,
)


def sphere():
    mesh = trimesh.creation.icosphere(subdivisions=3)
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces, dtype=torch.int64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_points_are_spread_by_area() -> None:
    # One large triangle of area 8 and one of area 2.
    vertices = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [-2, 0, 0], [0, -2, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 3, 4]])
    points, face = sample_surface(vertices, faces, 10_000, seeded())
    assert (face == 0).sum() == pytest.approx(8000, abs=1)
    for index, centroid in enumerate([[4 / 3, 4 / 3, 0], [-2 / 3, -2 / 3, 0]]):
        torch.testing.assert_close(
            points[face == index].mean(0), torch.tensor(centroid), atol=0.05, rtol=0
        )
    # Uniform within a triangle: half the area of the large one lies below x + y = 4 / sqrt 2.
    inner = points[face == 0, :2].sum(-1) < 4 / math.sqrt(2)
    assert inner.float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_every_triangle_of_average_size_gets_its_share() -> None:
    vertices, faces = sphere()
    _, face = sample_surface(vertices, faces, 4 * len(faces), seeded())
    counts = torch.bincount(face, minlength=len(faces))
    expected = 4 * len(faces) * triangle_frames(vertices[None], faces).area[0]
    expected = expected / triangle_frames(vertices[None], faces).area.sum()
    assert (counts - expected).abs().max() < 2  # independent draws would miss by up to 8 or so


def test_weights_choose_the_density() -> None:
    vertices, faces = sphere()
    weights = torch.ones(len(faces))
    weights[:100] = 0
    weights[-1] = 0  # a triangle of weight zero at the very end must not be hit by rounding
    weights[100:200] = 5
    _, face = sample_surface(vertices, faces, 20_000, seeded(), weights)
    counts = torch.bincount(face, minlength=len(faces)).double()
    assert counts[:100].sum() == 0
    assert counts[-1] == 0
    assert counts[100:200].mean() / counts[200:-1].mean() == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(3), "needs"),
        (-torch.ones(1280), "negative"),
        (torch.zeros(1280), "area"),
        (torch.full((1280,), float("nan")), "finite"),
    ],
)
def test_bad_weights_are_refused(weights, message) -> None:
    with pytest.raises(HeadStudioError, match=message):
        sample_surface(*sphere(), 10, seeded(), weights)


def test_a_mesh_without_area_and_a_count_of_zero_are_refused() -> None:
    vertices, faces = sphere()
    with pytest.raises(HeadStudioError, match="area"):
        sample_surface(torch.zeros_like(vertices), faces, 10)
    with pytest.raises(HeadStudioError, match="at least 1"):
        sample_surface(vertices, faces, 0)


def test_size_is_the_mean_distance_to_three_neighbours() -> None:
    vertices, faces = sphere()
    splats = initialise_uniform(vertices, faces, 500, seeded(), opacity=0.3, rgb=0.25)
    posed = pose_splats(splats, triangle_frames(vertices[None], faces))
    distances = torch.cdist(posed.means[0].double(), posed.means[0].double())
    expected = distances.sort(dim=-1).values[:, 1:4].mean(-1).float()
    torch.testing.assert_close(
        posed.scales[0], expected[:, None].expand(-1, 3), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(posed.opacities, torch.full((500,), 0.3))
    torch.testing.assert_close(posed.colors, torch.full((500, 3), 0.25))


def test_coinciding_points_keep_a_size() -> None:
    points = torch.cat([torch.zeros(10, 3), torch.eye(3)])
    distance = neighbour_distance(points)
    assert (distance[:10] > 1e-3).all()
    assert neighbour_distance(torch.zeros(1, 3)).tolist() == [1.0]
    torch.testing.assert_close(
        neighbour_distance(torch.tensor([[0.0, 0, 0], [3, 4, 0]])), torch.tensor([5.0, 5.0])
    )


def test_one_splat_per_triangle() -> None:
    vertices, faces = sphere()
    splats = initialise_per_triangle(vertices, faces)
    assert splats.face.tolist() == list(range(len(faces)))
    assert splats.means.abs().max() < 1e-5
    posed = pose_splats(splats, triangle_frames(vertices[None], faces))
    torch.testing.assert_close(posed.means[0], vertices[faces].mean(1))


def test_a_seed_is_an_initialisation() -> None:
    vertices, faces = sphere()
    first = initialise_uniform(vertices, faces, 3000, seeded(5))
    second = initialise_uniform(vertices, faces, 3000, seeded(5))
    other = initialise_uniform(vertices, faces, 3000, seeded(6))
    for name, value in first.parameters().items():
        assert torch.equal(value, second.parameters()[name])
    assert torch.equal(first.face, second.face)
    assert not torch.equal(first.means, other.means)
