"""The head in ``load/flame/open_head.npz``: lids shut, the mouth opens, nothing tears."""

from __future__ import annotations

import pytest
import torch

from headstudio.flame import FlameParams, HeadModel
from headstudio.paths import find_asset
from headstudio.render import Cameras
from headstudio.render.mesh import rasterize_mesh

VIEWS = Cameras.orbit(torch.tensor([0.0, -35, 35, 0, 0]), torch.tensor([0.0, 0, 0, 25, -20]),
                      3.0, 28.0, 256, 256)  # fmt: skip
FACES: dict[str, dict[str, float]] = {
    "rest": {},
    "blink": {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    "half a blink": {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5},
    "smile": {"mouthSmileLeft": 1, "mouthSmileRight": 1, "eyeSquintLeft": 1, "eyeSquintRight": 1},
    "surprise": {"eyeWideLeft": 1, "eyeWideRight": 1, "browInnerUp": 1, "mouthFunnel": 1},
    "kiss": {"mouthPucker": 1, "browDownLeft": 1, "browDownRight": 1},
    "looks left": {},
    "looks up": {},
    "mouth open": {},
}


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(find_asset("flame/open_head.npz"))


def face_params(head: HeadModel, name: str) -> FlameParams:
    params = FlameParams.zeros(1, head.n_shape, head.n_expression)
    for action, amount in FACES[name].items():
        params.expression[0, head.expression_names.index(action)] = amount
    params.jaw_pose[0, 0] = 0.35 if name == "mouth open" else 0.0
    for eye in (params.leye_pose, params.reye_pose):
        eye[0, 1] = 0.35 if name == "looks left" else 0.0
        eye[0, 0] = -0.25 if name == "looks up" else 0.0
    return params


def seen(head: HeadModel, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles seen by VIEWS [5, 256, 256], -1 where there is none, and whether from behind."""
    vertices = head.world_frame().to_world(head(face_params(head, name)))
    face = rasterize_mesh(vertices, head.faces, VIEWS).face_id[0]
    a, b, c = vertices[0][head.faces].unbind(1)
    toward = VIEWS.positions[0][:, None] - (a + b + c) / 3  # [5, F, 3]
    behind = (torch.linalg.cross(b - a, c - a) * toward).sum(-1) < 0
    rows = torch.arange(len(face))[:, None, None]
    return face, behind[rows, face.clamp(min=0)] & (face >= 0)


def pixels_of(head: HeadModel, face: torch.Tensor, *regions: str) -> torch.Tensor:
    """How many pixels of each view show these regions: [5]."""
    return (head.region_mask(*regions)[face.clamp(min=0)] & (face >= 0)).flatten(1).sum(1)


@pytest.mark.parametrize("name", FACES)
def test_no_surface_is_seen_from_behind(head: HeadModel, name: str) -> None:
    """A torn surface shows the inside of the head. A gap beside an eyeball is not found by this:
    the walls of the eye's socket face outwards too."""
    face, behind = seen(head, name)
    neck = head.region_mask("neck")[face.clamp(min=0)]  # its open end may show its inside
    holes = (behind & ~neck).flatten(1).sum(1)
    assert holes.max() <= 0.0005 * (face[0] >= 0).sum(), holes


def test_lids_shut_over_the_eyeballs(head: HeadModel) -> None:
    eyeball = ("eye_white", "iris", "pupil")
    rest, half, shut = (
        pixels_of(head, seen(head, name)[0], *eyeball) for name in ("rest", "half a blink", "blink")
    )
    assert (rest > 150).all()
    assert (half < 0.75 * rest).all()
    assert (half > 0.2 * rest).all()
    assert (shut < 0.02 * rest).all()


def test_the_jaw_shows_the_inside_of_the_mouth(head: HeadModel) -> None:
    inside = ("mouth_interior", "teeth", "tongue", "gums")
    inside = tuple(name for name in inside if name in head.region_names)
    shut, opened = (
        pixels_of(head, seen(head, name)[0], *inside) for name in ("rest", "mouth open")
    )
    assert shut[0] < 40
    assert opened[0] > 400


def test_both_sides_are_alike(head: HeadModel) -> None:
    """Mirrored, the neutral head is itself to a millimetre."""
    v = head.neutral()
    mirrored = v * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.cdist(mirrored, v).amin(1).max() < 1e-3
