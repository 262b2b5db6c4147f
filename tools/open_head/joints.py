"""FLAME's five joints on the open head: where they are and what follows them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tools.open_head.cut import Cut
from tools.open_head.source import PARTS, Source

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
PARENTS = (-1, 0, 1, 1, 1)
# The bone whose head is the joint's place; eyes turn about the centre of their own ball instead.
JOINT_BONES = {"root": "neck01", "neck": "neck02", "jaw": "jaw"}
# How much of each neck bone's weight follows the head: the bend is spread over the whole neck.
NECK_FOLLOWS = {"neck01": 0.15, "neck02": 0.5, "neck03": 0.85}
NEAREST = 160


def skinning_weights(source: Source, cut: Cut) -> NDArray:
    """[V,5], rows summing to one."""
    jaw = source.weight_of("jaw", descendants=True)
    left, right = source.weight_of("eye.L"), source.weight_of("eye.R")
    head = source.weight_of("head", descendants=True) - jaw - left - right
    neck = head + sum(share * source.weight_of(b) for b, share in NECK_FOLLOWS.items())
    # Eye weights belong to the balls alone: a lid that turned with the ball would tear from it.
    ball = np.zeros((2, len(jaw)), dtype=bool)
    for side, name in enumerate(("eye_left", "eye_right")):
        ball[side, np.unique(source.faces[source.part == list(PARTS).index(name)])] = True
    neck = np.where(
        ball.any(axis=0), 0, neck + np.where(ball[0], 0, left) + np.where(ball[1], 0, right)
    )
    left, right = ball[0].astype(float), ball[1].astype(float)
    root = np.clip(1 - neck - jaw - left - right, 0, None)
    weights = cut.blend @ np.stack([root, neck, jaw, left, right], axis=1)
    return weights / weights.sum(axis=1, keepdims=True)


def joint_regressor(samples: NDArray, heads: NDArray, bones: list[str], balls: NDArray) -> NDArray:
    """[5,V], non-negative rows summing to one.

    Args:
        samples: vertices of people [n,V,3].
        heads: their bone heads [n,bones,3].
        bones: names of the bones.
        balls: [2,V] bool, the vertices of the left and the right eyeball.
    """
    regressor = np.zeros((len(JOINTS), samples.shape[1]))
    for side in range(2):
        regressor[3 + side] = balls[side] / balls[side].sum()
    for row, name in enumerate(JOINTS[:3]):
        target = heads[:, bones.index(JOINT_BONES[name])]
        distance = np.linalg.norm(samples.mean(axis=0) - target.mean(axis=0), axis=1)
        distance[balls.any(axis=0)] = np.inf
        near = np.argsort(distance)[:NEAREST]
        # Joints lie in the plane of symmetry and inside the neck, so a hull of both sides has them.
        system = samples[:, near].transpose(0, 2, 1).reshape(-1, NEAREST)
        one = 1e3 * np.ones((1, NEAREST))
        solution, _ = nnls(np.vstack([system, one]), np.append(target.reshape(-1), 1e3))
        regressor[row, near] = solution / solution.sum()
    return regressor
