"""Where two settings that may be schedules for threestudio's ``C`` cross."""

from typing import Any

import numpy as np

from headstudio.settings import schedule_bends


def first_step_above(low: Any, high: Any) -> float | None:
    """The first step, of those where a schedule bends, at which ``low`` is above ``high``.

    Between bends both are straight, so if they cross at all, they are seen to at a bend.

    Args:
        low, high: numbers, or schedules ``[start_step, start, end, end_step, ...]``.

    Returns:
        The step (0 for two numbers), or None if there is none, or if it cannot be told: one of
        them is neither, or they count differently (a last step that is a float counts epochs).
    """
    scheduled = [value for value in (low, high) if not isinstance(value, (int, float))]
    bends = [
        ([0], [value]) if isinstance(value, (int, float)) else schedule_bends(value)
        for value in (low, high)
    ]
    if None in bends:
        return None
    (low_steps, low_values), (high_steps, high_values) = bends  # type: ignore[misc]
    if len({isinstance(value[-1], int) for value in scheduled}) > 1:
        return None
    for step in sorted({*low_steps, *high_steps}):
        if np.interp(step, low_steps, low_values) > np.interp(step, high_steps, high_values):
            return step
    return None
