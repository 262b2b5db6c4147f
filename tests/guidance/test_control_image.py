"""What of the face a camera sees: on a sphere in closed form, and on the open head."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import trimesh

from headstudio.flame import FlameParams, HeadModel, LandmarkEmbedding
from headstudio.guidance import CONTROL_LANDMARKS, control_image, landmark_visibility
from headstudio.guidance._mediapipe_topology import LEFT_EYE, LIPS, PUPILS, RIGHT_EYE
from headstudio.paths import find_asset
from headstudio.render import Cameras, _mesh_cpu, _mesh_torch


def sphere_head(keep=None) -> SimpleNamespace:
    """A ball of radius 0.75 with the control landmarks scattered over it.

    Args:
        keep: which triangles remain, by their centroids [F, 3] -> [F] bool; None keeps all.
    """
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.75)
    vertices = torch.tensor(ball.vertices, dtype=torch.float32)
    faces = torch.tensor(ball.faces, dtype=torch.int64)
    if keep is not None:
        faces = faces[keep(vertices[faces].mean(dim=1))]
    generator = torch.Generator().manual_seed(1)
    n = len(CONTROL_LANDMARKS)
    embedding = LandmarkEmbedding(
        torch.tensor(CONTROL_LANDMARKS),
        torch.randint(len(faces), (n,), generator=generator),
        torch.full((n, 3), 1 / 3),
    )
    points = vertices[faces[embedding.face]].mean(dim=1)[None]
    return SimpleNamespace(
        faces=faces,
        lbs_weights=torch.zeros(len(vertices), 5),
        landmarks=embedding,
        vertices=vertices[None],
        points=points,
        landmark_points=lambda v: v[:, faces[embedding.face]].mean(dim=2),
    )


AZIMUTHS, ELEVATIONS = torch.tensor([0.0, 70, 200, -40]), torch.tensor([0.0, 30, -20, 80])
CAMERAS = Cameras.orbit(AZIMUTHS, ELEVATIONS, 2.5, 40.0, 64, 64)


def test_on_a_sphere_the_near_side_is_seen() -> None:
    head = sphere_head()
    seen = landmark_visibility(head, head.vertices, head.points, CAMERAS, facing_cosine=-1.0)[0]
    # A point p of a sphere of radius r is seen from c if p·c > r²; in between lies the slack.
    height = (head.points @ CAMERAS.positions[0].T)[0].T / 0.75**2
    clear = (height - 1).abs() > 0.15
    assert torch.equal(seen[clear], (height > 1)[clear])
    assert seen.any(dim=1).all()
    assert not seen.all(dim=1).any()


def test_a_shell_hides_nothing_yet_faces_away() -> None:
    """Seen from behind, a mask has nothing before its landmarks: only their normals tell."""
    mask = sphere_head(keep=lambda centroid: centroid[:, 0] > 0.5)
    front = Cameras.orbit(0.0, 0.0, 2.5, 40.0, 64, 64)
    back = Cameras.orbit(180.0, 0.0, 2.5, 40.0, 64, 64)
    assert landmark_visibility(mask, mask.vertices, mask.points, front).all()
    assert not landmark_visibility(mask, mask.vertices, mask.points, back).any()
    unfaced = landmark_visibility(mask, mask.vertices, mask.points, back, facing_cosine=-1.0)
    assert unfaced.all()
    image, weight = control_image(mask, mask.vertices, back)
    assert not image.any()
    assert not weight.any()


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(find_asset("flame/open_head.npz"))


def posed(head: HeadModel, **actions: float) -> torch.Tensor:
    """World vertices [1, V, 3] with the named facial actions."""
    params = FlameParams.zeros(1)
    expression = params.expression.clone()
    for name, amount in actions.items():
        expression[:, head.expression_names.index(name)] = amount
    return head.world_frame().to_world(head(params.replace(expression=expression)))


def numbers(*groups) -> torch.Tensor:
    """Positions, among the sorted control landmarks, of those in contour groups."""
    wanted = {i for group in groups for chain in group.chains for i in chain}
    return torch.tensor([i in wanted for i in CONTROL_LANDMARKS])


def seen_by_number(head: HeadModel, vertices: torch.Tensor, cameras: Cameras) -> torch.Tensor:
    """[C, 130] in ascending order of MediaPipe's numbers."""
    seen = landmark_visibility(head, vertices, head.landmark_points(vertices), cameras)[0]
    return seen[:, head.landmarks.mediapipe_index.argsort()]


def test_the_open_head_from_all_around(head: HeadModel) -> None:
    around = Cameras.orbit(torch.tensor([0.0, 90, 180, 270]), 0.0, 3.0, 35.0, 128, 128)
    vertices = posed(head)
    seen = seen_by_number(head, vertices, around)
    eyes_and_lips = numbers(LEFT_EYE, RIGHT_EYE, LIPS)
    assert seen[0, eyes_and_lips].float().mean() > 0.9
    assert not seen[2].any()  # from behind
    left, right = numbers(LEFT_EYE), numbers(RIGHT_EYE)
    assert seen[1, left].float().mean() > 0.4  # azimuth 90 is the subject's left
    assert not seen[1, right].any()
    assert seen[3, right].float().mean() > 0.4
    assert not seen[3, left].any()

    image, weight = control_image(head, vertices, around)
    assert image.shape == (1, 4, 128, 128, 3)
    assert weight.tolist() == [[1, 1, 0, 1]]
    assert not image[0, 2].any()


def test_closed_lids_hide_the_pupils_and_stay_drawn(head: HeadModel) -> None:
    front = Cameras.orbit(0.0, 0.0, 3.0, 35.0, 512, 512)
    pupils = torch.tensor([i in {p.landmark for p in PUPILS} for i in CONTROL_LANDMARKS])
    rest = seen_by_number(head, posed(head), front)[0]
    shut = seen_by_number(head, posed(head, eyeBlinkLeft=1, eyeBlinkRight=1), front)[0]
    assert rest[pupils].all()
    assert not shut[pupils].any()
    assert shut[numbers(LEFT_EYE, RIGHT_EYE)].float().mean() > 0.85


def test_poses_and_views_of_a_batch_are_independent(head: HeadModel) -> None:
    poses = torch.cat([posed(head), posed(head, jawOpen=1.0)])
    views = Cameras.orbit(torch.tensor([0.0, 40, -70]), 10.0, 3.0, 35.0, 96, 96)
    together, weight = control_image(head, poses, views)
    assert together.shape == (2, 3, 96, 96, 3)
    assert weight.shape == (2, 3)
    assert not torch.equal(together[0, 0], together[1, 0])  # the mouth is open
    for p in range(2):
        alone, _ = control_image(head, poses[p : p + 1], views)
        assert torch.equal(together[p], alone[0])


def test_the_size_is_free_of_the_cameras(head: HeadModel) -> None:
    vertices = posed(head)
    view = Cameras.orbit(20.0, 0.0, 3.0, 35.0, 64, 64)
    large, _ = control_image(head, vertices, view, height=256, width=256)
    same, _ = control_image(head, vertices, view.resized(256, 256))
    assert torch.equal(large, same)
    wide = Cameras.orbit(20.0, 0.0, 3.0, 35.0, 64, 128)  # more to the sides, then squeezed
    squeezed, _ = control_image(head, vertices, wide, height=64, width=64)
    columns = squeezed[0, 0].amax(dim=(0, 2)).nonzero().flatten()
    reference = control_image(head, vertices, view)[0][0, 0].amax(dim=(0, 2)).nonzero().flatten()
    assert (columns[-1] - columns[0]) / (reference[-1] - reference[0]) == pytest.approx(
        0.5, abs=0.1
    )


def test_both_ways_to_cast_rays_see_the_same_landmarks(
    head: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU casts rays in numba, other devices in PyTorch."""
    vertices = torch.cat([posed(head), posed(head, jawOpen=0.7, eyeBlinkLeft=1.0)])
    views = Cameras.orbit(
        torch.arange(12) * 30.0 + 5, torch.linspace(-30, 60, 12), 3.0, 35.0, 128, 128
    )
    points = head.landmark_points(vertices)
    by_numba = landmark_visibility(head, vertices, points, views)
    monkeypatch.setattr(_mesh_cpu, "any_hit", _mesh_torch.any_hit)
    assert torch.equal(landmark_visibility(head, vertices, points, views), by_numba)
    assert 0.2 < by_numba.float().mean() < 0.8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_makes_no_difference(head: HeadModel) -> None:
    views = Cameras.orbit(torch.tensor([0.0, 60, 180]), 10.0, 3.0, 35.0, 128, 128)
    vertices = posed(head)
    here, weight = control_image(head, vertices, views)
    try:
        there, other = control_image(head.cuda(), vertices.cuda(), views.to("cuda"))
    finally:
        head.cpu()
    assert torch.equal(other.cpu(), weight)
    # A projected landmark on a pixel's border may be rounded to either side.
    assert (there.cpu() != here).any(dim=-1).float().mean() < 1e-3
