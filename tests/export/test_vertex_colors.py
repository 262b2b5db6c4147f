"""Splats to vertex colours, against a slow reference and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from headstudio.errors import HeadStudioError
from headstudio.export.coloring import FOOTPRINT, SAME_WAY, vertex_colors
from headstudio.export.subdivide import FineMesh
from headstudio.splats import PosedSplats

RED, GREEN = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])


def sheet(n: int = 6, height: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A square of n x n cells, normals up."""
    y, x = np.mgrid[0 : n + 1, 0 : n + 1]
    vertices = np.stack([x.ravel(), y.ravel(), np.full(x.size, height)], -1) / n
    a = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([a, a + 1, a + n + 2, a + n + 1], -1)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return torch.from_numpy(vertices).float(), torch.from_numpy(faces)


def mesh_of(vertices: torch.Tensor, faces: torch.Tensor) -> FineMesh:
    return FineMesh.of(faces.numpy(), len(vertices))


def on_faces(vertices, faces, color, lift=0.0, opacity=0.9) -> PosedSplats:
    """A round splat in the middle of every face."""
    means = vertices[faces].mean(1) + torch.tensor([0.0, 0.0, lift])
    n = len(faces)
    return PosedSplats(
        means[None],
        torch.tensor([1.0, 0, 0, 0]).expand(1, n, 4),
        torch.full((1, n, 3), 0.08),
        torch.full((n,), opacity),
        color.expand(n, 3),
    )


def together(*parts: PosedSplats) -> PosedSplats:
    dims = {"means": 1, "quats": 1, "scales": 1, "opacities": 0, "colors": 0}
    return PosedSplats(**{k: torch.cat([getattr(p, k) for p in parts], d) for k, d in dims.items()})


def reference(vertex, normal, edge, splats, candidates):
    """One vertex, splat by splat: an orthographic picture of one pixel."""
    side = np.linalg.svd(normal[None])[2][1:]
    found = []
    for i in candidates:
        rotation = Rotation.from_quat(splats.quats[0, i][[1, 2, 3, 0]].numpy()).as_matrix()
        covariance = rotation @ np.diag(splats.scales[0, i].numpy() ** 2) @ rotation.T
        offset = splats.means[0, i].numpy() - vertex
        flat = side @ covariance @ side.T
        wide = flat + np.eye(2) * (FOOTPRINT * edge) ** 2
        d = side @ offset
        share = np.sqrt(np.linalg.det(flat) / np.linalg.det(wide))
        share *= np.exp(-0.5 * d @ np.linalg.solve(wide, d))
        found.append((offset @ normal, min(0.99, float(splats.opacities[i]) * share), i))
    light, color = 1.0, np.zeros(3)
    for _, alpha, i in sorted(found, reverse=True):
        color += light * alpha * splats.colors[i].numpy()
        light *= 1 - alpha
    return color, 1 - light


def test_a_vertex_sees_what_the_reference_sees():
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    vertices = torch.tensor(ball.vertices, dtype=torch.float64)
    faces = torch.tensor(ball.faces, dtype=torch.int64)
    g = torch.Generator().manual_seed(1)
    n = 4000
    face = torch.randint(len(faces), (n,), generator=g)
    splats = PosedSplats(
        means=vertices[faces[face]].mean(1)[None]
        + 0.03 * torch.randn(1, n, 3, generator=g, dtype=torch.float64),
        quats=torch.nn.functional.normalize(torch.randn(1, n, 4, generator=g).double(), dim=-1),
        scales=0.03 * torch.rand(1, n, 3, generator=g).double() + 0.005,
        opacities=torch.rand(n, generator=g).double(),
        colors=torch.rand(n, 3, generator=g).double(),
    )
    colors, coverage = vertex_colors(vertices, mesh_of(vertices, faces), splats, face, rings=2)
    graph = ball.vertex_adjacency_graph
    for v in (0, 17, 100):
        near = [v, *graph[v]]
        around = [f for f, corners in enumerate(ball.faces) if set(corners) & set(near)]
        outward = ball.vertices[v] / np.linalg.norm(ball.vertices[v])
        around = [f for f in around if ball.face_normals[f] @ outward > SAME_WAY]
        candidates = [i for i in range(n) if int(face[i]) in around]
        edge = np.mean([np.linalg.norm(ball.vertices[v] - ball.vertices[w]) for w in graph[v]])
        normal = ball.vertices[v] / np.linalg.norm(ball.vertices[v])
        color, covered = reference(ball.vertices[v], normal, edge, splats, candidates)
        assert float(coverage[v]) == pytest.approx(covered, abs=2e-3)
        assert covered > 0.5
        # The vertices around it pull a little at what is covered well.
        assert np.allclose(colors[v], color / covered, atol=0.02)


def test_the_outermost_splat_is_the_one_that_is_seen():
    vertices, faces = sheet()
    below = on_faces(vertices, faces, GREEN)
    above = on_faces(vertices, faces, RED, lift=0.05, opacity=0.99)
    face = torch.arange(len(faces)).repeat(2)
    colors, _ = vertex_colors(vertices, mesh_of(vertices, faces), together(below, above), face)
    inner = ((vertices[:, :2] > 0.2) & (vertices[:, :2] < 0.8)).all(1)
    assert (colors[inner, 0] > 0.75).all()
    assert (colors[inner, 1] < 0.25).all()


def test_lips_do_not_colour_the_teeth_behind_them():
    teeth, faces = sheet()
    lips, _ = sheet(height=0.05)
    vertices = torch.cat([teeth, lips])
    both = torch.cat([faces, faces + len(teeth)])
    splats = together(on_faces(teeth, faces, GREEN), on_faces(lips, faces, RED))
    colors, _ = vertex_colors(vertices, mesh_of(vertices, both), splats, torch.arange(len(both)))
    assert torch.allclose(colors[: len(teeth)], GREEN.expand(len(teeth), 3), atol=0.02)
    assert torch.allclose(colors[len(teeth) :], RED.expand(len(lips), 3), atol=0.02)


def test_what_no_splat_covers_takes_the_colour_around_it():
    vertices, faces = sheet(10)
    far, far_faces = sheet(3, height=-1.0)
    middle = vertices[faces].mean(1)[:, 0]
    color = torch.where(middle[:, None] < 0.4, RED, GREEN)
    splats = on_faces(vertices, faces, RED)
    splats.colors = color
    kept = (middle < 0.3) | (middle > 0.5)  # a strip of nothing
    bare = PosedSplats(
        splats.means[:, kept], splats.quats[:, kept], splats.scales[:, kept],
        splats.opacities[kept], splats.colors[kept],
    )  # fmt: skip
    colors, coverage = vertex_colors(
        everything := torch.cat([vertices, far]),
        mesh_of(everything, torch.cat([faces, far_faces + len(vertices)])),
        bare,
        torch.arange(len(faces))[kept],
    )
    assert torch.isfinite(colors).all()
    strip = (vertices[:, 0] - 0.4).abs() < 1e-6
    mixed = colors[: len(vertices)][strip]
    assert ((mixed[:, 0] > 0.2) & (mixed[:, 1] > 0.2) & (mixed[:, 2] < 0.01)).all()
    lonely = colors[len(vertices) :]  # a piece of the mesh that has no splats at all
    assert (coverage[len(vertices) :] == 0).all()
    assert torch.allclose(lonely.sum(1), torch.ones(len(lonely)), atol=1e-3)


def test_several_poses_are_refused():
    vertices, faces = sheet(1)
    one = on_faces(vertices, faces, RED)
    two = PosedSplats(
        one.means.repeat(2, 1, 1), one.quats.repeat(2, 1, 1), one.scales.repeat(2, 1, 1),
        one.opacities, one.colors,
    )  # fmt: skip
    with pytest.raises(HeadStudioError, match="in one pose; 2 were given"):
        vertex_colors(vertices, mesh_of(vertices, faces), two, torch.arange(2))


def test_a_finer_mesh_is_the_same_surface():
    ball = trimesh.creation.icosphere(subdivisions=1)
    fine = FineMesh.of(ball.faces, len(ball.vertices), 2)
    finer = trimesh.Trimesh(fine.weights @ ball.vertices, fine.faces, process=False)
    assert finer.is_watertight
    assert len(fine.faces) == 16 * len(ball.faces)
    assert finer.area == pytest.approx(ball.area)
    assert finer.volume == pytest.approx(ball.volume)
    assert np.array_equal((fine.weights @ ball.vertices)[: len(ball.vertices)], ball.vertices)
    # Every small triangle lies in the plane of its parent, and faces the same way.
    parent = np.repeat(np.arange(len(ball.faces)), 16)
    assert np.allclose(finer.face_normals, ball.face_normals[parent], atol=1e-6)
    assert np.allclose(np.bincount(parent, finer.area_faces), ball.area_faces)
