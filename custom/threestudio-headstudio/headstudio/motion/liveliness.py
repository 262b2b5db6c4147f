"""What a living face does without being asked: it blinks, sways a little, and glances.

Everything is drawn in seconds from a seed, so that it is the same at any frame rate.
"""

from __future__ import annotations

import numpy as np

from headstudio.motion.arkit import GAZE_PITCH, GAZE_YAW

#: A blink's three parts in seconds. Lids close in 75 to 100 ms and open in twice that and more
#: (Evinger, Manning & Sibony, Invest. Ophthalmol. Vis. Sci. 1991).
CLOSING, CLOSED, OPENING = 0.085, 0.04, 0.19
_BLINK = CLOSING + CLOSED + OPENING
#: Between blinks: 17 a minute at rest (Bentivoglio et al., Movement Disorders 1997), never less
#: than a second.
_MEAN_INTERVAL, _LEAST_INTERVAL = 3.5, 1.0
_DOUBLE = 0.12  # share of blinks followed at once by another
#: Amplitude of the head's sway in degrees: nodding, turning, tilting.
_SWAY_DEG = np.array([1.3, 2.0, 0.9])
_SWAY_HERTZ = (0.09, 0.45)
#: Spread of the glances in degrees, down and to the left, and the mean time between them.
_GLANCE_DEG = np.array([0.6, 1.2])
_GLANCE_INTERVAL, _SACCADE = 1.1, 0.045
_EDGE = 0.5  # seconds at both ends within which sway and glances come and go


def blinks(t: np.ndarray, total: float, seed: int) -> np.ndarray:
    """How far the lids are closed by blinks, 0..1.

    Args:
        t: seconds [T], within [0, total].
        total: seconds; no blink is cut off by the end.
        seed: of the moments.
    """
    rng = _stream(seed, 0)
    closed = np.zeros(len(t))
    at = rng.uniform(0.5, 2.0)
    while at + _BLINK < total:
        closed = np.maximum(closed, _lid(t - at))
        if rng.random() < _DOUBLE:
            at += _BLINK + 0.06
        else:
            at += _LEAST_INTERVAL + rng.exponential(_MEAN_INTERVAL - _LEAST_INTERVAL)
    return closed


def _lid(since: np.ndarray) -> np.ndarray:
    closing = np.clip(since / CLOSING, 0, 1)
    opening = np.clip((since - CLOSING - CLOSED) / OPENING, 0, 1)
    return _ease(closing) - _ease(opening)


def sway(t: np.ndarray, total: float, seed: int) -> np.ndarray:
    """Small rotations of the head [T, 3] in radians, zero at both ends."""
    rng = _stream(seed, 1)
    hertz = rng.uniform(*_SWAY_HERTZ, size=(3, 3))  # three waves for each axis
    phase = rng.uniform(0, 2 * np.pi, size=(3, 3))
    waves = np.sin(2 * np.pi * hertz * t[:, None, None] + phase).mean(-1)
    return np.radians(_SWAY_DEG) * waves * _inside(t, total)[:, None]


def glances(t: np.ndarray, total: float, seed: int) -> np.ndarray:
    """Where the eyes wander [T, 2], radians down and to the left: held, then quickly changed."""
    rng = _stream(seed, 2)
    gaze = np.zeros((len(t), 2))
    at, held = 0.0, np.zeros(2)
    while True:
        at += 0.25 + rng.exponential(_GLANCE_INTERVAL - 0.25)
        if at >= total:
            return gaze * _inside(t, total)[:, None]
        target = rng.normal(0.0, np.radians(_GLANCE_DEG))
        moved = _ease(np.clip((t - at) / _SACCADE, 0, 1))
        gaze += (target - held) * moved[:, None]
        held = target


def look_by(curves: dict[str, np.ndarray], angles: np.ndarray) -> None:
    """Turn both eyes further, in place.

    Args:
        curves: of all ARKit actions, by name.
        angles: [T, 2] radians, down and to the subject's left.
    """
    down, left = angles[:, 0] / GAZE_PITCH, angles[:, 1] / GAZE_YAW
    for side, outward in (("Left", left), ("Right", -left)):
        for action, value in (
            (f"eyeLookDown{side}", down),
            (f"eyeLookUp{side}", -down),
            (f"eyeLookOut{side}", outward),
            (f"eyeLookIn{side}", -outward),
        ):
            curves[action] = curves[action] + np.clip(value, 0, None)


def _stream(seed: int, number: int) -> np.random.Generator:
    """Independent numbers for each kind of movement."""
    return np.random.default_rng([seed, number])


def _inside(t: np.ndarray, total: float) -> np.ndarray:
    """1 but for the ends, where it falls to 0."""
    edge = min(_EDGE, total / 2)
    return _ease(np.clip(np.minimum(t, total - t) / edge, 0, 1))


def _ease(u: np.ndarray) -> np.ndarray:
    return u * u * (3 - 2 * u)
