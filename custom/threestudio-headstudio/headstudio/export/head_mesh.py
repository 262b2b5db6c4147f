"""An avatar's head as a glTF mesh: coloured by its splats, with named actions and a skeleton."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.export.coloring import vertex_colors
from headstudio.export.gltf import Joint, SkinnedMesh, Track, quaternions_xyzw, write_glb
from headstudio.export.subdivide import FineMesh
from headstudio.flame import POSE_NAMES, FlameParams, HeadModel
from headstudio.motion import ARKIT_NAMES, Motion, for_head
from headstudio.motion.interpolate import pad_expression
from headstudio.render.mesh import vertex_normals
from headstudio.splats import Avatar, pose_splats, triangle_frames

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
MAX_SUBDIVISIONS = 2
_STILL = 1e-7
"""Metres; an action that moves no vertex this far is none of the head's."""
_log = logging.getLogger(__name__)


@dataclass
class Targets:
    """K morph targets, and how they are driven by a head's expression coefficients."""

    names: list[str]
    displacements: Tensor  # [K, V, 3], FLAME's frame, metres, for weight 1
    column: list[int]  # K: the coefficient that is the target's weight, -1 = none

    def weights(self, expression: Tensor) -> np.ndarray:
        """Weights ``[T, K]`` for coefficients ``[T, n]``."""
        padded = torch.nn.functional.pad(expression.cpu(), (0, 1))  # column -1 is zero
        return padded[:, self.column].numpy()


def export_glb(
    path: str | Path,
    avatar: Avatar,
    head: HeadModel,
    pose: FlameParams | None = None,
    motion: Motion | None = None,
    subdivisions: int = 1,
) -> None:
    """Write the head, at once or not at all. FLAME's frame: metres, y up, the face along +z.

    Vertices have colours sampled from the splats in linear RGB, as glTF wants them, and a material
    that shows them unlit. Morph targets are the head's actions under their names; skinning has
    FLAME's five joints. What FLAME does, glTF then does as well, but for two things: pose
    correctives (``posedirs``; the open head has none), and joints that follow the expression by
    hundredths of a millimetre.

    Args:
        path: of the file.
        avatar: as `load_avatar` gives it.
        head: the model it rides on.
        pose: of one row, in which the head stands as long as nothing moves it; None is at rest.
            It is set by weights and joints, so that it can be changed by whoever opens the file.
            The expression may have fewer columns than the head, the rest being zero.
        motion: becomes the file's animation, in which nothing is left of the pose.
        subdivisions: how often triangles are cut in four, for colours of four times the detail.

    Raises:
        HeadStudioError: several poses, coefficients the head does not have, subdivisions that
            make no sense, or a motion the head cannot play.
    """
    if not 0 <= subdivisions <= MAX_SUBDIVISIONS:
        raise HeadStudioError(
            f"{subdivisions} subdivisions were asked for; expected 0 to {MAX_SUBDIVISIONS}."
        )
    if pose is not None and pose.batch_size != 1:
        raise HeadStudioError(f"a mesh stands in one pose; {pose.batch_size} were given.")
    motion = None if motion is None else for_head(motion, head)
    now = FlameParams.zeros(1, 0, 0) if pose is None else pose.to("cpu")
    now = pad_expression(now, head.n_expression)
    moving = [now.expression] if motion is None else [now.expression, motion.params.expression]
    targets = find_targets(head, avatar.shape, torch.cat(moving))
    mesh = _skinned_mesh(avatar, head, targets, now, subdivisions)
    write_glb(path, mesh, None if motion is None else _track(motion, targets, now))


def find_targets(head: HeadModel, shape: Tensor, used: Tensor) -> Targets:
    """The morph targets of a head.

    First its named actions. A head without names gets ARKit's 52, as `for_head` maps them to it
    (those that it maps to nothing are left out). Then ``expression_<i>`` for coefficients without a
    name that are in use.

    Args:
        head: on any device.
        shape: ``[n_shape]``, the identity.
        used: coefficients ``[T, n]`` that the targets must be able to show.
    """
    named = list(head.expression_names)
    directions = head.shapedirs[..., head.n_shape :].cpu().permute(2, 0, 1)  # [n, V, 3]
    columns = list(range(len(named)))
    columns += [i for i in range(len(named), used.shape[1]) if torch.any(used[:, i] != 0)]
    names = [named[i] if i < len(named) else f"expression_{i:03d}" for i in columns]
    displacements = directions[columns]
    if not named:
        actions, moved = _fitted_actions(head, shape)
        names, columns = actions + names, [-1] * len(actions) + columns
        displacements = torch.cat([moved, displacements])
    return Targets(names, displacements, columns)


@torch.no_grad()
def _fitted_actions(head: HeadModel, shape: Tensor) -> tuple[list[str], Tensor]:
    """ARKit's actions on a head that has not got them: names, and what they do ``[K, V, 3]``."""
    n = len(ARKIT_NAMES)
    params = FlameParams.zeros(n, head.n_shape, n).replace(expression=torch.eye(n))
    motion = Motion(params, 30.0, "ARKit's actions", list(ARKIT_NAMES))
    try:
        actions = for_head(motion, head).params.to(head.faces.device)
    except HeadStudioError as error:
        _log.warning("the mesh goes without ARKit's actions: %s", error)
        return [], head.v_template.new_zeros(0, *head.v_template.shape).cpu()
    actions = actions.replace(shape=shape[None].to(head.faces.device))
    still = FlameParams.zeros(1, device=shape.device).replace(shape=actions.shape)
    moved = (head(actions.expand()) - head(still)).cpu()
    moves = moved.abs().amax((1, 2)) > _STILL
    kept = [name for name, move in zip(ARKIT_NAMES, moves.tolist(), strict=True) if move]
    return kept, moved[moves]


@torch.no_grad()
def _skinned_mesh(
    avatar: Avatar, head: HeadModel, targets: Targets, now: FlameParams, subdivisions: int
) -> SkinnedMesh:
    fine = FineMesh.of(head.faces.cpu().numpy(), len(head.v_template), subdivisions)
    device = head.faces.device
    rest = FlameParams.zeros(1, head.n_shape, head.n_expression, device=device)
    rest = rest.replace(shape=avatar.shape[None].to(device))
    vertices = head(rest)
    world = head.world_frame(avatar.extent).to_world(vertices)
    splats = pose_splats(avatar.splats, triangle_frames(world, head.faces))

    def refined(attribute: Tensor) -> np.ndarray:
        return np.asarray(fine.weights @ attribute.cpu().double().numpy())

    colors, _ = vertex_colors(torch.from_numpy(refined(world[0])), fine, splats, avatar.splats.face)
    positions = refined(vertices[0])
    normals = vertex_normals(torch.from_numpy(positions)[None], torch.from_numpy(fine.faces))[0]
    return SkinnedMesh(
        name="head",
        positions=positions,
        normals=_unit(normals.numpy()),
        colors=srgb_to_linear(colors.numpy()),
        faces=fine.faces,
        target_names=targets.names,
        targets=np.stack([refined(x) for x in targets.displacements]) if targets.names
        else np.zeros((0, *positions.shape)),
        weights=targets.weights(now.expression)[0],
        joints=_joints(head, rest, now),
        skin=refined(head.lbs_weights),
        extras={"prompt": avatar.prompt, "head_model": head.name},
    )  # fmt: skip


def _joints(head: HeadModel, rest: FlameParams, now: FlameParams) -> list[Joint]:
    places = head.joints(rest)[0].cpu().double().numpy()
    rotations = _rotations(now)
    joints = [
        Joint(name, int(parent), place, rotations[i][0])
        for i, (name, parent, place) in enumerate(
            zip(JOINT_NAMES, head.parents.tolist(), places, strict=True)
        )
    ]
    joints[0].offset = now.translation[0].double().numpy()
    return joints


def _rotations(params: FlameParams) -> dict[int, np.ndarray]:
    """Quaternions ``[T or 1, 4]`` of each joint."""
    return {
        i: quaternions_xyzw(getattr(params, name).cpu().double().numpy())
        for i, name in enumerate(POSE_NAMES)
    }


def _track(motion: Motion, targets: Targets, now: FlameParams) -> Track:
    """A motion as an animation of what it moves, or has at rest where the pose ``now`` has not."""
    full = motion.params.to("cpu").expand()

    def used(values: Tensor, still: Tensor) -> bool:
        # What has no channel stays as it is in the pose.
        return bool(torch.any(values != 0) or torch.any(still != 0))

    rotations = {
        i: quaternions
        for i, quaternions in _rotations(full).items()
        if used(getattr(full, POSE_NAMES[i]), getattr(now, POSE_NAMES[i]))
    }
    weights = targets.weights(full.expression)
    offset = full.translation.double().numpy()
    return Track(
        name=motion.name or "motion",
        seconds=np.arange(len(motion)) / motion.fps,
        weights=weights if np.any(weights) or np.any(targets.weights(now.expression)) else None,
        rotations=rotations,
        offsets={0: offset} if used(full.translation, now.translation) else {},
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    """At length 1; a vertex of no triangle, which has no normal, faces the front."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-6, vectors / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])


def srgb_to_linear(colors: np.ndarray) -> np.ndarray:
    """Colours as displayed, 0..1, to light (IEC 61966-2-1)."""
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
