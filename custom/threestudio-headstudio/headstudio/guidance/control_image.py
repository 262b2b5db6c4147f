"""The posed head and its cameras -> what the ControlNet is shown, and whether it should be."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.flame import HeadModel
from headstudio.guidance._mediapipe_topology import FACE_OVAL, LEFT_EYE, LIPS, PUPILS, RIGHT_EYE
from headstudio.guidance.drawing import draw_control
from headstudio.on_device import constant
from headstudio.render.cameras import Cameras
from headstudio.render.mesh import point_visibility, vertex_normals

# How far before a landmark a part of the head may lie without hiding it, as a fraction of the
# head's longest extent (5 mm of 25 cm).
SLACK = 0.02
# Lips and lids that meet cover each other's rims; a shut eye's corner lies 8 mm behind its folds.
OPENING_SLACK = 0.04
# FLAME's joints; the eyeballs' vertices are theirs.
LEFT_EYE_JOINT, RIGHT_EYE_JOINT = 3, 4
# Pupils lie behind closed lids by little more than a lid's thickness.
PUPIL_SLACK = 0.004
# Cosine between a landmark's normal and the direction to the camera below which it faces away.
# Below zero, because the profile of lips and brows is still the face's outline.
FACING_COSINE = -0.25


@torch.no_grad()
def control_image(
    head: HeadModel,
    vertices: Tensor,  # [P, V, 3]
    cameras: Cameras,
    *,
    height: int | None = None,
    width: int | None = None,
    thickness: int | None = None,
) -> tuple[Tensor, Tensor]:  # [P, C, height, width, 3], [P, C]
    """Draw the landmarks that the cameras see of a posed head.

    Args:
        head: whose landmarks and faces these are.
        vertices: of the posed head in the world.
        cameras: C views of each of P poses, or one set for all.
        height: of the control image; by default that of the cameras' pictures. A picture of other
            proportions is the stretched one.
        width: likewise.
        thickness: of lines, px; by default 2 at 512 px, and in proportion.

    Returns:
        RGB in [0, 1] on black, and a weight: 1 where anything is drawn, 0 where nothing is.
    """
    height = cameras.height if height is None else height
    width = cameras.width if width is None else width
    vertices = vertices.float()
    points = head.landmark_points(vertices)
    visible = landmark_visibility(head, vertices, points, cameras)  # [P, C, L]
    cameras = cameras.expand(len(visible))
    pixels, _ = cameras.project(points)  # [P, C, L, 2]
    pixels = pixels * constant((width / cameras.width, height / cameras.height), pixels)
    image = draw_control(
        pixels.flatten(0, 1),
        visible.flatten(0, 1),
        head.landmarks.mediapipe_index,
        height,
        width,
        thickness,
    ).unflatten(0, visible.shape[:2])
    return image, (image.flatten(2).amax(dim=-1) > 0).to(image.dtype)


@torch.no_grad()
def landmark_visibility(
    head: HeadModel,
    vertices: Tensor,  # [P, V, 3]
    points: Tensor,  # [P, L, 3]
    cameras: Cameras,
    *,
    slack: float = SLACK,
    opening_slack: float = OPENING_SLACK,
    pupil_slack: float = PUPIL_SLACK,
    facing_cosine: float = FACING_COSINE,
) -> Tensor:  # [P, C, L] bool
    """Which landmarks are seen: those that face the camera and that the head does not hide; the
    face's outline only beside one of its features.

    A landmark on the rim of a lid or a lip has a normal that points up or down; what faces the
    camera or does not is the eye or the mouth as a whole. The landmarks of the mouth share a mean
    normal; those of an eye face as they lie from the eyeball's centre, since rims of shut lids
    turn inwards.

    Args:
        head: whose landmarks and faces these are.
        vertices: of the posed head in the world.
        points: its landmarks.
        cameras: C views of each of P poses, or one set for all.
        slack: see :data:`SLACK`.
        opening_slack: see :data:`OPENING_SLACK`.
        pupil_slack: see :data:`PUPIL_SLACK`.
        facing_cosine: see :data:`FACING_COSINE`; -1 asks for no facing.
    """
    embedding = head.landmarks
    index = tuple(embedding.mediapipe_index.tolist())
    sharing, is_pupil = _sharing(index, vertices.device)

    corners = vertex_normals(vertices, head.faces)[:, head.faces[embedding.face]]
    normals = F.normalize((corners * embedding.barycentric[..., None]).sum(dim=-2), dim=-1)
    # Written out as in Cameras.project: a matrix product may run in TF32.
    normals = F.normalize((sharing[..., None] * normals[:, None]).sum(dim=-2), dim=-1)
    normals = _eyes_outward(head.lbs_weights, vertices, points, index, sharing, normals)
    poses = max(len(vertices), cameras.poses)
    toward = cameras.expand(poses).positions[:, :, None] - points[:, None]  # [P, C, L, 3]
    facing = (F.normalize(toward, dim=-1) * normals[:, None]).sum(dim=-1) > facing_cosine

    extent = (vertices.amax(dim=1) - vertices.amin(dim=1)).amax()
    tolerance = torch.where(sharing.sum(1) > 1, opening_slack, slack)
    tolerance = extent * torch.where(is_pupil, pupil_slack, tolerance)  # [L]
    seen = facing & point_visibility(points, vertices, head.faces, cameras, tolerance)
    # The corner of a jaw can be seen from behind; without features it is no outline of a face.
    features = ~_of_oval(index, vertices.device)
    return seen & (features | (seen & features).any(dim=-1, keepdim=True))


def _eyes_outward(
    lbs_weights: Tensor,  # [V, 5]
    vertices: Tensor,  # [P, V, 3]
    points: Tensor,  # [P, L, 3]
    index: tuple[int, ...],
    sharing: Tensor,  # [L, L]
    normals: Tensor,  # [P, L, 3]
) -> Tensor:  # [P, L, 3]
    """The normals, with those of an eye (what shares with a pupil) pointing from the eyeball's
    centre to the middle of the eye's landmarks, where the head has eyeballs."""
    for pupil, joint in zip(PUPILS, (RIGHT_EYE_JOINT, LEFT_EYE_JOINT), strict=True):
        if pupil.landmark not in index:
            continue
        weight = lbs_weights[:, joint]
        shared = sharing[index.index(pupil.landmark)]
        # Written as sums, since a matrix product may run in TF32.
        centre = (weight[:, None] * vertices).sum(1) / weight.sum().clamp(min=1e-12)
        middle = (shared[:, None] * points).sum(1) / shared.sum()
        outward = F.normalize(middle - centre, dim=-1)[:, None]
        normals = torch.where(shared[:, None] * weight.sum() > 0, outward, normals)
    return normals


@lru_cache(maxsize=16)
def _of_oval(mediapipe_index: tuple[int, ...], device: torch.device) -> Tensor:
    """Which landmarks are the face's outline: bool [L]."""
    oval = {index for chain in FACE_OVAL.chains for index in chain}
    return torch.tensor([index in oval for index in mediapipe_index], device=device)


@lru_cache(maxsize=16)
def _sharing(mediapipe_index: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Which landmarks share a normal (row l sums over those that l shares with), and the pupils.

    Returns:
        float32 [L, L] and bool [L].
    """
    right_pupil, left_pupil = (pupil.landmark for pupil in PUPILS)
    openings = [
        {index for chain in group.chains for index in chain} | extra
        for group, extra in ((RIGHT_EYE, {right_pupil}), (LEFT_EYE, {left_pupil}), (LIPS, set()))
    ]
    label = torch.arange(len(mediapipe_index)) + len(openings)
    for number, opening in enumerate(openings):
        label[[index in opening for index in mediapipe_index]] = number
    is_pupil = torch.tensor([index in (right_pupil, left_pupil) for index in mediapipe_index])
    return (label[:, None] == label).float().to(device), is_pupil.to(device)
