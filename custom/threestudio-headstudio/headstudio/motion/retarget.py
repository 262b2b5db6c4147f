"""A motion brought to a head's expression space."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion.actions import (
    LANDMARK_SIGMA,
    arkit_actions,
    common_landmarks,
    landmark_movements,
    names_actions,
    posed_landmarks,
    size_ratio,
)
from headstudio.motion.arkit import ARKIT_NAMES
from headstudio.motion.interpolate import pad_expression
from headstudio.motion.motion import FLAME_NAMES, Motion

_log = logging.getLogger(__name__)

_JOINTS = ("jaw_pose", "leye_pose", "reye_pose")


def for_head(motion: Motion, head: HeadModel, flame: HeadModel | None = None) -> Motion:
    """The motion with expression coefficients for this head.

    - Coefficients without names are taken to be the head's own, and get its names.
    - Coefficients named as the head's are reordered.
    - ARKit's actions on a head without names, such as FLAME, become the expression, jaw and eyes
      that are fitted to them (`headstudio.motion.arkit_actions`).
    - FLAME's coefficients (`FLAME_NAMES`, or some of them) fit any head without names. On a head
      with names they mean nothing: they are turned into its actions if ``flame`` is given and it
      has ARKit's, and stay at rest otherwise, with a warning. Rotations and translation are kept in
      any case.
    - Actions the head does not have stay at rest, with a warning; so do coefficients without names
      behind others with names.

    Args:
        motion: any.
        head: the one to be driven.
        flame: the FLAME model that FLAME's coefficients belong to.

    Raises:
        HeadStudioError: unnamed coefficients, or FLAME's, in use beyond those the head has; with
            ``flame``, heads that have no landmarks or share too few.
    """
    names, width = motion.expression_names, head.n_expression
    if names and set(names) <= set(FLAME_NAMES):
        if head.expression_names:
            return _from_flame(motion, head, flame)
        motion = replace(
            motion,
            params=motion.params.replace(expression=_columns(motion, FLAME_NAMES)),
            expression_names=[],
        )
    if not motion.expression_names or motion.expression_names == head.expression_names:
        return replace(
            motion,
            params=pad_expression(motion.params, width),
            expression_names=list(head.expression_names),
        )
    expression = motion.params.expression
    used = [name for i, name in enumerate(names) if bool((expression[:, i] != 0).any())]
    params = motion.params.replace(expression=expression.new_zeros(len(expression), width))
    fitted: list[str] = []
    if head.expression_names:
        own = _columns(motion, head.expression_names)
        params.expression[:, : own.shape[1]] = own
    elif set(used) & set(ARKIT_NAMES):
        try:
            params = _add(params, arkit_actions(head).pose(_columns(motion, ARKIT_NAMES)))
            fitted = [name for name in used if name in ARKIT_NAMES]
        except HeadStudioError as error:
            _log.warning("ARKit's actions cannot be fitted to head model %r: %s", head.name, error)
    lost = [name for name in used if name not in head.expression_names and name not in fitted]
    if lost:
        _log.warning(
            "motion %r moves %s, which head model %r does not have; these stay at rest.",
            motion.name,
            ", ".join(lost),
            head.name,
        )
    return replace(motion, params=params, expression_names=list(head.expression_names))


def _from_flame(motion: Motion, head: HeadModel, flame: HeadModel | None) -> Motion:
    """FLAME's coefficients on a head that names its own."""
    expression = _columns(motion, FLAME_NAMES)
    names = list(head.expression_names)
    zeros = expression.new_zeros(len(expression), head.n_expression)
    rest = replace(motion, params=motion.params.replace(expression=zeros), expression_names=names)
    if not bool((expression != 0).any()):
        return rest
    if flame is None:
        _log.warning(
            "motion %r has FLAME's expression coefficients, whose meaning only a FLAME model tells;"
            " on head model %r they stay at rest, and jaw, neck and eyes move. Give the FLAME file "
            "(--flame) to turn them into the head's actions.",
            motion.name,
            head.name,
        )
        return rest
    if not names_actions(head):
        _log.warning(
            "motion %r has FLAME's expression coefficients, which are turned into ARKit's actions; "
            "head model %r does not name all of these, so that its expression stays at rest, and "
            "jaw, neck and eyes move.",
            motion.name,
            head.name,
        )
        return rest
    weights = actions_of(expression, flame, head)
    named = Motion(
        motion.params.replace(expression=weights), motion.fps, motion.name, list(ARKIT_NAMES)
    )
    return for_head(named, head)


def actions_of(expression: Tensor, flame: HeadModel, head: HeadModel) -> Tensor:
    """The strengths [T, 52] of a head's ARKit actions that move its landmarks as FLAME's do.

    Least squares over strengths of 0 and more, with the prior of `headstudio.motion.actions`. What
    jaw and eyes do as joints is not counted twice: their actions stay 0.

    Args:
        expression: FLAME's coefficients [T, n].
        flame: the model they belong to.
        head: one whose expression dimensions are ARKit's actions.

    Raises:
        HeadStudioError: heads that share too few landmarks.
    """
    index = common_landmarks(head, flame)
    free = [i for i, name in enumerate(ARKIT_NAMES) if not name.startswith(("eyeLook", "jawOpen"))]
    basis = landmark_movements(head, index)[free].double().cpu().reshape(len(free), -1).numpy()
    rest = FlameParams.zeros(1).to(flame.v_template.device)
    posed = rest.replace(expression=expression.to(flame.v_template))
    moved = posed_landmarks(flame, posed, index) - posed_landmarks(flame, rest, index)
    movement = moved.cpu().double() / size_ratio(flame, head, index)
    # The normal equations' Cholesky factor: 42 by 42 in place of 390 by 42 for every frame.
    normal = basis @ basis.T + LANDMARK_SIGMA**2 * np.eye(len(free))
    factor = np.linalg.cholesky(normal)
    right = np.linalg.solve(factor, basis @ movement.reshape(len(movement), -1).T.numpy())
    weights = torch.zeros(len(movement), len(ARKIT_NAMES))
    solved = np.stack([nnls(factor.T, column)[0] for column in right.T])
    weights[:, free] = torch.from_numpy(solved).float().clamp(max=1.5)
    return weights


def _columns(motion: Motion, names: Sequence[str]) -> Tensor:
    """Coefficients [T, len(names)] of these names; those that the motion does not name are 0."""
    expression = motion.params.expression
    columns = expression.new_zeros(len(expression), len(names))
    for place, name in enumerate(motion.expression_names):
        if name in names:
            columns[:, names.index(name)] = expression[:, place]
    nameless = expression[:, len(motion.expression_names) :]
    if bool((nameless != 0).any()):
        _log.warning(
            "motion %r names %d of its expression coefficients and uses more; these stay at rest.",
            motion.name,
            len(motion.expression_names),
        )
    return columns


def _add(params: FlameParams, change: FlameParams) -> FlameParams:
    """Expression and joints of a motion and of its fitted actions, added.

    Rotation vectors are added, not composed: what both turn is one joint about nearly one axis.
    """
    sums = {
        name: getattr(params, name) + getattr(change, name).to(params.device) for name in _JOINTS
    }
    return params.replace(expression=change.expression.to(params.expression), **sums)
