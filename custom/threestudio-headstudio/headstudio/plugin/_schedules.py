"""Where two settings that may be schedules for threestudio's ``C`` cross."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def first_step_above(low: Any, high: Any) -> float | None:
    """The first step, of those where a schedule bends, at which ``low`` is above ``high``.

    Between bends both are straight, so if they cross at all, they are seen to at a bend.

    Args:
        low, high: numbers, or schedules ``[start_step, start, end, end_step, ...]``.

    Returns:
        The step (0 for two numbers), or None if there is none, or if it cannot be told: one of
        them is neither, or they count differently (a last step that is a float counts epochs).
    """
    bends = [_bends(value) for value in (low, high)]
    if any(bend is None for bend in bends):
        return None
    (low_steps, low_values), (high_steps, high_values) = bends  # type: ignore[misc]
    scheduled = [value for value in (low, high) if not isinstance(value, (int, float))]
    if len({isinstance(value[-1], int) for value in scheduled}) > 1:
        return None
    for step in sorted({*low_steps, *high_steps}):
        if np.interp(step, low_steps, low_values) > np.interp(step, high_steps, high_values):
            return step
    return None


def _bends(value: Any) -> tuple[list[float], list[float]] | None:
    """Steps and values of a schedule, as ``headstudio.settings`` reads one; a number's is one."""
    if isinstance(value, (int, float)):
        return [0], [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    points = [0, *value] if len(value) == 3 else list(value)
    if len(points) < 4 or not all(isinstance(point, (int, float)) for point in points):
        return None
    return [points[0], *points[3::2]], [points[1], *points[2::2]]
