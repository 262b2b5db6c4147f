"""Where two schedules cross."""

from __future__ import annotations

import pytest

from headstudio.plugin._schedules import first_step_above


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [
        (0.02, 0.98, None),
        (0.9, 0.5, 0),
        (0.5, 0.5, None),
        ([40, 0.7, 0.02, 110], [0, 0.98, 0.25, 220], None),
        ([40, 0.7, 0.02, 110], 0.5, 0),
        (0.5, [10, 0.9, 0.4, 20], 20),
        ([10, 0.2, 0.6, 20, 0.1, 30], [0, 0.9, 0.5, 30], None),
        ([10, 0.2, 0.8, 20, 0.1, 30], [0, 0.9, 0.5, 30], 20),
        ([0.2, 0.8, 20], [0, 0.9, 0.5, 30], 20),  # from step 0
        ([0, 0.2, 0.8, 20.0], [0, 0.9, 0.5, 30], None),  # epochs and steps
        ("much", 0.5, None),
        ([0, 0.5], 0.4, None),
    ],
)
def test_first_step_above(low, high, step):
    assert first_step_above(low, high) == step
