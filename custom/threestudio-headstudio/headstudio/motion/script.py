"""A motion from a timeline in words, with blinks and small movements of head and eyes on top."""

from __future__ import annotations

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.motion.arkit import ARKIT_NAMES
from headstudio.motion.expressions import MAX_SECONDS, Step, named_motion, parse_script
from headstudio.motion.liveliness import blinks, glances, look_by, sway
from headstudio.motion.motion import Motion, check_count, check_rate

TRANSITION = 0.35
"""Seconds from one face to the next: faces that people make on purpose take 0.3 to 0.5."""
HOLD_SECONDS = 4.0
"""How long a face without a duration is held."""
_FOLLOW = 0.8
"""How much of the head's small movements the eyes take back to keep looking where they looked."""


def script_motion(
    text: str,
    fps: float = 30.0,
    seconds: float | None = None,
    seed: int = 0,
    blinking: bool = True,
    sway_amount: float = 1.0,
) -> Motion:
    """A motion from words; see `headstudio.motion.expressions` for the grammar.

    A timeline, of one step too, begins at the neutral face. Each step eases into its face within
    `TRANSITION` seconds, or 60 % of its duration if that is less, and holds it. A single face is
    held from beginning to end. Blinks, sway and glances depend on ``seed`` alone, not on ``fps``,
    and are at rest in the first frame.

    Args:
        text: such as ``"smile 1s, surprised + nod 0.5s, neutral"``.
        fps: frames a second.
        seconds: how long a single face is held; `HOLD_SECONDS` if None. Not for timelines.
        seed: of what is added.
        blinking: whether to add blinks.
        sway_amount: how much the head sways and the eyes wander; 0 is not at all.

    Returns:
        A motion whose coefficients are named after ARKit's actions; bring it to a head with
        `headstudio.motion.for_head`.

    Raises:
        HeadStudioError: a text that is not understood, numbers that make no sense, or more frames
            than a motion may have.
    """
    check_rate(fps, "cannot make a motion of")
    if not sway_amount >= 0:
        raise HeadStudioError(f"sway_amount is {sway_amount}; expected 0 or more.")
    parsed = parse_script(text)
    steps = _timed(parsed, text, seconds)
    total = sum(step.seconds or 0.0 for step in steps)
    frames = max(1, round(total * fps))
    check_count(frames, f"{text!r} at {fps:g} frames a second would have")
    t = np.arange(frames) / fps
    curves, neck, gesture = _faces(steps, t, from_rest=parsed[0].seconds is not None)

    swaying = sway_amount * sway(t, total, seed)
    aside = swaying + gesture
    look_by(curves, sway_amount * glances(t, total, seed) - _FOLLOW * aside[:, :2])
    if blinking:
        closed = blinks(t, total, seed)
        for side in ("Left", "Right"):
            for action in (f"eyeWide{side}", f"eyeSquint{side}"):
                curves[action] = curves[action] * (1 - closed)
            curves[f"eyeBlink{side}"] = np.maximum(curves[f"eyeBlink{side}"], closed)
    return named_motion(curves, fps, neck + aside, text)


def _timed(steps: list[Step], text: str, seconds: float | None) -> list[Step]:
    """Every step with a duration."""
    if steps[0].seconds is None:
        hold = HOLD_SECONDS if seconds is None else seconds
        if not 0 < hold <= MAX_SECONDS:
            raise HeadStudioError(
                f"cannot hold {text!r} for {hold} s; expected more than 0 and at most "
                f"{MAX_SECONDS:g}."
            )
        return [Step(steps[0].face, hold)]
    if sum(step.seconds or 0.0 for step in steps) > MAX_SECONDS:
        raise HeadStudioError(f"{text!r} is longer than {MAX_SECONDS:g} s; make it shorter.")
    return steps


def _faces(
    steps: list[Step], t: np.ndarray, from_rest: bool
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Curves [T] of all actions, and rotations [T, 3] of the neck: held, and of gestures.

    The first face comes from rest, as in a timeline, or is there from the start.
    """
    width = len(ARKIT_NAMES)
    rows = np.zeros((len(steps), width + 3))
    for row, step in zip(rows, steps, strict=True):
        row[:width] = [step.face.actions.get(name, 0.0) for name in ARKIT_NAMES]
        row[width:] = step.face.turn
    first = np.zeros((1, width + 3)) if from_rest else rows[:1]
    before = np.concatenate([first, rows[:-1]])
    values = np.zeros((len(t), width + 3))
    gesture = np.zeros((len(t), 3))
    start = 0.0
    for row, previous, step in zip(rows, before, steps, strict=True):
        duration = step.seconds or 0.0
        # Half a frame's rounding must not leave the last frame without a step.
        inside = t >= start - 1e-9
        local = t[inside] - start
        weight = np.clip(local / min(TRANSITION, 0.6 * duration), 0, 1)
        weight = weight * weight * (3 - 2 * weight)
        values[inside] = previous + (row - previous) * weight[:, None]
        gesture[inside] = _gestures(step, local, duration)
        start += duration
    return dict(zip(ARKIT_NAMES, values[:, :width].T, strict=True)), values[:, width:], gesture


def _gestures(step: Step, local: np.ndarray, duration: float) -> np.ndarray:
    """Rotations [n, 3] of a step's gestures: whole cycles, gently begun and ended."""
    turned = np.zeros((len(local), 3))
    u = np.clip(local / duration, 0, 1)
    gentle = np.clip(np.minimum(u, 1 - u) * duration / 0.15, 0, 1)
    gentle = gentle * gentle * (3 - 2 * gentle)
    for gesture in step.face.gestures:
        cycles = max(1, round(gesture.hertz * duration))
        phase = 2 * np.pi * cycles * u
        wave = (1 - np.cos(phase)) / 2 if gesture.one_sided else np.sin(phase)
        turned[:, gesture.axis] += np.radians(gesture.degrees) * wave * gentle
    return turned
