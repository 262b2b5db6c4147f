"""ARKit's 52 actions on any head.

On the open head they are expression dimensions. FLAME's expression space was learned from scans and
names nothing, so there they are fitted: each action moves the open head's landmarks, the same
landmarks of the other head are to move alike, scaled by the size of the face, and expression,
jaw and eyes are sought that do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadArrays, HeadModel, LandmarkEmbedding
from headstudio.motion.arkit import ARKIT_NAMES
from headstudio.paths import find_asset

OPEN_HEAD = "flame/open_head.npz"

LANDMARK_SIGMA = 0.001
"""Metres by which a landmark may miss: what one standard deviation of the priors weighs."""
JOINT_SIGMAS = {"jaw_pose": (0.3, 0.1, 0.1), "leye_pose": (0.4,) * 3, "reye_pose": (0.4,) * 3}
"""Radians a joint turns as readily as an expression coefficient leaves 0 by 1. A jaw opens more
than it shifts."""
ITERATIONS = 8
SEEN = 0.0003
"""Metres that an action must move some landmark by; less, and it cannot be fitted."""


@dataclass(frozen=True)
class Actions:
    """What each of `ARKIT_NAMES` is on a head, at full strength; strengths scale and add.

    All on the CPU. Where the actions are the head's own, the residuals are 0.
    """

    expression: Tensor  # [52, n_expression]
    jaw_pose: Tensor  # [52, 3] axis-angle, radians
    leye_pose: Tensor  # [52, 3]
    reye_pose: Tensor  # [52, 3]
    target: Tensor  # [52] metres that the action is to move the landmark it moves most
    residual: Tensor  # [52] metres, root mean square over the landmarks of what is left to move
    explained: Tensor  # [52] the part of the squared movement that is reached, at most 1
    own: bool  # whether they are the head's own dimensions

    @property
    def seen(self) -> Tensor:
        """[52] bool: whether any landmark shows the action."""
        return self.target >= SEEN

    def pose(self, weights: Tensor) -> FlameParams:
        """Parameters for strengths [T, 52] in the order of `ARKIT_NAMES`."""
        weights = weights.to(self.expression)
        return FlameParams.zeros(1, n_expression=self.expression.shape[1]).replace(
            expression=weights @ self.expression,
            jaw_pose=weights @ self.jaw_pose,
            leye_pose=weights @ self.leye_pose,
            reye_pose=weights @ self.reye_pose,
        )


def arkit_actions(head: HeadModel, cache: Path | None = None) -> Actions:
    """The 52 actions on a head: its own, or fitted once and kept in the user's cache folder.

    Args:
        head: any head with landmarks.
        cache: another folder for the fits.

    Raises:
        HeadStudioError: a head without landmarks, or the open head's file is missing.
    """
    if names_actions(head):
        return _own(head)
    from headstudio.motion.action_cache import cached

    return cached(head, open_head(), cache)


def names_actions(head: HeadModel) -> bool:
    """Whether all of `ARKIT_NAMES` are expression dimensions of a head."""
    return set(ARKIT_NAMES) <= set(head.expression_names)


@lru_cache(maxsize=1)
def open_head() -> HeadModel:
    """The head whose actions are the pattern for others'."""
    return HeadModel.load(find_asset(OPEN_HEAD))


def _own(head: HeadModel) -> Actions:
    count = len(ARKIT_NAMES)
    expression = torch.zeros(count, head.n_expression)
    for row, name in enumerate(ARKIT_NAMES):
        expression[row, head.expression_names.index(name)] = 1
    still = torch.zeros(count, 3)
    moved = landmark_movements(head, head.landmarks.mediapipe_index.tolist())
    target = moved.norm(dim=-1).amax(-1).float().cpu()
    nothing = torch.zeros(count)
    return Actions(expression, still, still, still, target, nothing, nothing + 1, own=True)


def landmark_movements(head: HeadModel, index: list[int]) -> Tensor:
    """By what each action, at full strength, moves chosen landmarks: [52, L, 3] metres.

    Args:
        head: one whose expression dimensions are the actions.
        index: MediaPipe's numbers of the landmarks.
    """
    poses = torch.zeros(len(ARKIT_NAMES) + 1, head.n_expression, device=head.v_template.device)
    for row, name in enumerate(ARKIT_NAMES):
        poses[row, head.expression_names.index(name)] = 1
    points = posed_landmarks(
        head, FlameParams.zeros(1).to(poses.device).replace(expression=poses), index
    )
    return points[:-1] - points[-1]


def fit(head: HeadModel, pattern: HeadModel) -> Actions:
    """Fit the actions of a head to those of another, by regularised least squares.

    Minimises |L(θ) - L(0) - s d|² / σ² + |θ / τ|² over expression, jaw and eyes θ by Gauss-Newton,
    where L are the landmarks both heads have, d an action's movement on the pattern, s the ratio of
    the faces' sizes, σ `LANDMARK_SIGMA`, and τ 1 for expression and `JOINT_SIGMAS` for joints: the
    most probable pose, if FLAME's coefficients are normally distributed, as FLAME defines them.

    Raises:
        HeadStudioError: heads that share too few landmarks.
    """
    index = common_landmarks(head, pattern)
    target = (landmark_movements(pattern, index) * size_ratio(head, pattern, index)).double().cpu()
    solver = _Solver(head, index)
    solutions = torch.stack([solver.solve(movement) for movement in target])
    params = solver.params(solutions)
    left = (solver.movement(solutions) - target).square().sum(-1)  # [52, L]
    whole = target.square().sum(-1)
    seen = whole.amax(-1).sqrt() >= SEEN
    explained = torch.where(seen, 1 - left.sum(-1) / whole.sum(-1).clamp(min=1e-20), 0)
    return Actions(
        expression=params.expression.float(),
        jaw_pose=params.jaw_pose.float(),
        leye_pose=params.leye_pose.float(),
        reye_pose=params.reye_pose.float(),
        target=whole.amax(-1).sqrt().float(),
        residual=left.mean(-1).sqrt().float(),
        explained=explained.float(),
        own=False,
    )


def common_landmarks(head: HeadModel, pattern: HeadModel) -> list[int]:
    """MediaPipe's numbers of the landmarks that both heads have.

    Raises:
        HeadStudioError: fewer than it takes to tell the actions apart.
    """
    ours = set(head.landmarks.mediapipe_index.tolist())
    index = [number for number in pattern.landmarks.mediapipe_index.tolist() if number in ours]
    if len(index) < 50:
        raise HeadStudioError(
            f"head models {head.name!r} and {pattern.name!r} share {len(index)} landmarks; at "
            "least 50 are needed. Embed them with `python tools/embed_landmarks.py <head file>`."
        )
    return index


def size_ratio(head: HeadModel, pattern: HeadModel, index: list[int]) -> float:
    """How much larger the face of ``head`` is: the ratio of the landmarks' spreads at rest."""
    spreads = []
    for model in (head, pattern):
        rest = FlameParams.zeros(1).to(model.v_template.device)
        points = posed_landmarks(model, rest, index)[0]
        spreads.append(float((points - points.mean(0)).square().sum(-1).mean().sqrt()))
    return spreads[0] / spreads[1]


def posed_landmarks(head: HeadModel, params: FlameParams, index: list[int]) -> Tensor:
    """Chosen landmarks [P, L, 3] of posed heads, metres, on the head's device.

    Args:
        head: one that has these landmarks.
        params: its poses.
        index: MediaPipe's numbers of the landmarks.
    """
    with torch.no_grad():
        return head.landmark_points(head(params))[:, _rows(head, index)]


def _rows(head: HeadModel, index: list[int]) -> Tensor:
    """Where landmarks, by MediaPipe's numbers, stand in a head's table."""
    place = {number: row for row, number in enumerate(head.landmarks.mediapipe_index.tolist())}
    return torch.tensor([place[number] for number in index], device=head.v_template.device)


def _landmark_model(head: HeadModel, index: list[int]) -> HeadModel:
    """A head of the landmarks' triangles alone, on the CPU: a tenth of the vertices, and the same
    landmarks in every pose.

    Five more vertices stand where the joints are, so that the joints, too, move with the expression
    as they do in the whole head.
    """
    rows = _rows(head, index)
    corners = head.faces[head.landmarks.face[rows]]  # [L, 3]
    kept = torch.unique(corners)
    regressor = head.J_regressor
    n_joints = len(regressor)
    directions = torch.einsum("jv,vck->jck", regressor, head.shapedirs)
    posedirs = head.posedirs.T.reshape(len(head.v_template), 3, -1)[kept]
    weights = head.lbs_weights[kept]
    one_joint_each = torch.eye(n_joints, device=weights.device)

    def joined(*parts: Tensor, dim: int = 0) -> np.ndarray:
        return torch.cat(parts, dim).cpu().numpy()

    return HeadModel(
        HeadArrays(
            faces=torch.searchsorted(kept, corners).cpu().numpy(),
            v_template=joined(head.v_template[kept], regressor @ head.v_template),
            shapedirs=joined(head.shapedirs[kept], directions),
            posedirs=joined(posedirs, posedirs.new_zeros(n_joints, *posedirs.shape[1:])),
            weights=joined(weights, one_joint_each),
            J_regressor=joined(weights.new_zeros(n_joints, len(kept)), one_joint_each, dim=1),
            name=head.name,
            n_shape=head.n_shape,
            landmarks=LandmarkEmbedding(
                torch.tensor(index),
                torch.arange(len(index)),
                head.landmarks.barycentric[rows].cpu(),
            ),
        )
    ).double()


class _Solver:
    """Gauss-Newton for one head, with derivatives by differences."""

    step = 1e-4
    """Radians, or standard deviations: the landmarks are linear in the expression and nearly so in
    the joints, and are computed in double precision."""

    def __init__(self, head: HeadModel, index: list[int]) -> None:
        self.head, self.index, self.n = _landmark_model(head, index), index, head.n_expression
        sigmas = [1.0] * self.n + [s for joint in JOINT_SIGMAS.values() for s in joint]
        self.sigmas = torch.tensor(sigmas, dtype=torch.float64)
        self.rest = self._points(torch.zeros(1, len(self.sigmas), dtype=torch.float64))[0]

    def params(self, theta: Tensor) -> FlameParams:
        """The pose that solutions [P, n + 9] stand for."""
        parts = theta.split([self.n, 3, 3, 3], dim=1)
        names = ("expression", *JOINT_SIGMAS)
        return FlameParams.zeros(1, n_expression=self.n, dtype=theta.dtype).replace(
            **dict(zip(names, parts, strict=True))
        )

    def movement(self, theta: Tensor) -> Tensor:
        """Where the landmarks go, [P, L, 3] metres."""
        return self._points(theta) - self.rest

    def solve(self, target: Tensor) -> Tensor:
        """The most probable solution [n + 9] for a movement [L, 3]."""
        theta = torch.zeros(len(self.sigmas), dtype=torch.float64)
        if float(target.norm(dim=-1).max()) < SEEN:
            return theta
        weight = torch.diag((LANDMARK_SIGMA / self.sigmas).square())
        offsets = torch.eye(len(theta), dtype=torch.float64) * self.step
        for _ in range(ITERATIONS):
            moved = self.movement(torch.cat([theta[None], theta + offsets]))
            derivative = ((moved[1:] - moved[0]) / self.step).reshape(len(theta), -1).T
            left = (target - moved[0]).reshape(-1)
            normal = derivative.T @ derivative + weight
            change = torch.linalg.solve(normal, derivative.T @ left - weight @ theta)
            theta = theta + change
            if float((change / self.sigmas).abs().max()) < 1e-4:
                break
        return theta

    def _points(self, theta: Tensor) -> Tensor:
        return posed_landmarks(self.head, self.params(theta), self.index)


def as_numpy(actions: Actions) -> dict[str, np.ndarray]:
    """The fields that are tensors, by name."""
    return {
        name: value.numpy() for name, value in vars(actions).items() if isinstance(value, Tensor)
    }
