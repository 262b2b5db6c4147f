"""Faces in words: ``"smile 0.8, left wink"``, and the timeline ``"smile 1s, surprised 0.5s"``.

An *item* is a name with an intensity from 0 to 1 (``smile 0.8``, ``smile 80%``; 1 if left out). A
``+`` shows items at once. Commas do so too, unless a duration appears (``1s``, ``0.5 s``,
``250ms``): then the text is a timeline, and each comma begins the next step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion.arkit import ARKIT_NAMES, from_arkit
from headstudio.motion.expression_table import ALIASES, EXPRESSIONS, Expression, Gesture
from headstudio.motion.motion import Motion
from headstudio.motion.retarget import for_head
from headstudio.nearest import did_you_mean

STEP_SECONDS = 1.0
"""How long a step of a timeline lasts that does not say so."""
MAX_SECONDS = 3600.0
_ARKIT = {name.lower(): name for name in ARKIT_NAMES}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
# With its sign, so that it is not taken for a name's hyphen: a negative duration is a mistake.
_DURATION = re.compile(rf"(-?{_NUMBER})\s*(ms|s|secs?|seconds?)\b", re.IGNORECASE)
_INTENSITY = re.compile(rf"(-?{_NUMBER})(%?)")


@dataclass(frozen=True)
class Face:
    """Actions and rotations at one moment; what a combination of expressions comes to."""

    actions: dict[str, float] = field(default_factory=dict)
    """ARKit's actions, 0..1; those left out are 0."""
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Axis-angle of the neck, radians: down, to the subject's left, onto the right shoulder."""
    gestures: tuple[Gesture, ...] = ()
    """Movements of the head, with their amplitudes."""


@dataclass(frozen=True)
class Step:
    """A face and for how long it is shown, seconds; None: the text does not say."""

    face: Face
    seconds: float | None = None


def find_expression(name: str) -> Expression:
    """The expression of a name, an alias, or one of ARKit's actions.

    Upper and lower case, hyphens and underscores do not matter.

    Raises:
        HeadStudioError: for an unknown name; the message suggests the nearest.
    """
    plain = " ".join(re.sub(r"[_-]", " ", name).lower().split())
    plain = ALIASES.get(plain, plain)
    if plain in EXPRESSIONS:
        return EXPRESSIONS[plain]
    action = _ARKIT.get(plain.replace(" ", ""))
    if action is not None:
        return Expression(action, "action", {action: 1.0})
    known = [*EXPRESSIONS, *ALIASES, *ARKIT_NAMES]
    raise HeadStudioError(
        f"there is no expression {name!r}{did_you_mean(plain, known)} "
        "`headstudio animate --list-expressions` lists them."
    )


def parse_script(text: str) -> list[Step]:
    """The steps of a text; a single one without a duration where the text holds none.

    Raises:
        HeadStudioError: an unknown name, an intensity outside [0, 1], a duration that is not
            positive, two of either for one item, or nothing at all.
    """
    if _DURATION.search(text) is None:
        return [Step(_combined(re.split(r"[,+]", text), text))]
    steps = []
    for part in text.split(","):
        durations = [float(n) * _unit(unit) for n, unit in _DURATION.findall(part)]
        if len(durations) > 1:
            raise HeadStudioError(f"the step {part.strip()!r} has two durations; give one.")
        seconds = durations[0] if durations else STEP_SECONDS
        if not 0 < seconds <= MAX_SECONDS:
            raise HeadStudioError(
                f"the step {part.strip()!r} lasts {seconds:g} s; expected more than 0 s and at "
                f"most {MAX_SECONDS:g} s."
            )
        steps.append(Step(_combined(_DURATION.sub(" ", part).split("+"), text), seconds))
    return steps


def parse_face(text: str) -> Face:
    """A face without a timeline: ``"smile 0.8, left wink"``.

    Raises:
        HeadStudioError: as `parse_script` does, and for a text with durations.
    """
    steps = parse_script(text)
    if steps[0].seconds is not None:
        raise HeadStudioError(
            f"{text!r} is a timeline; here one face is expected, such as 'smile 0.8, left wink'."
        )
    return steps[0].face


def expression_pose(text: str, head: HeadModel) -> FlameParams:
    """FLAME parameters ``[1]`` of a face in words, on ``head``; gestures at their farthest.

    Raises:
        HeadStudioError: as `parse_face` does.
    """
    face = parse_face(text)
    turn = np.array(face.turn)
    for gesture in face.gestures:
        turn[gesture.axis] += math.radians(gesture.degrees)
    curves = {name: np.array([face.actions.get(name, 0.0)]) for name in ARKIT_NAMES}
    return for_head(named_motion(curves, 30.0, turn[None], text), head).params


def named_motion(
    curves: dict[str, np.ndarray], fps: float, neck_pose: np.ndarray, name: str
) -> Motion:
    """Curves of ARKit's actions as a motion whose coefficients carry their names.

    `headstudio.motion.for_head` brings it to any head.
    """
    return from_arkit(
        curves, fps, ARKIT_NAMES, neck_pose=neck_pose, n_expression=len(ARKIT_NAMES), name=name
    )


def _unit(unit: str) -> float:
    return 1e-3 if unit.lower() == "ms" else 1.0


def _combined(items: Sequence[str], text: str) -> Face:
    """The sum of items; actions end at 1."""
    actions: dict[str, float] = {}
    turn = np.zeros(3)
    gestures = []
    for item in items:
        expression, amount = _parse_item(item, text)
        for action, value in expression.actions.items():
            actions[action] = min(1.0, actions.get(action, 0.0) + amount * value)
        turn += amount * np.radians(expression.turn)
        if expression.gesture is not None and amount > 0:
            gesture = expression.gesture
            gestures.append(
                Gesture(gesture.axis, amount * gesture.degrees, gesture.hertz, gesture.one_sided)
            )
    # An eye that is closed is neither wide nor narrowed: the lids would meet past each other.
    for side in ("Left", "Right"):
        opened = 1 - actions.get(f"eyeBlink{side}", 0.0)
        for action in (f"eyeWide{side}", f"eyeSquint{side}"):
            if action in actions:
                actions[action] *= opened
    down, left, right = (float(angle) for angle in turn)
    return Face(actions, (down, left, right), tuple(gestures))


def _parse_item(item: str, text: str) -> tuple[Expression, float]:
    """``"left wink 0.5"`` as the expression and its intensity."""
    words = item.split()
    numbers = [word for word in words if _INTENSITY.fullmatch(word)]
    name = " ".join(word for word in words if word not in numbers)
    if not name:
        raise HeadStudioError(
            f"{text!r} has a part without an expression{f' ({item.strip()!r})' if words else ''}; "
            "expected such as 'smile 0.8, left wink' or 'smile 1s, surprised 0.5s, neutral'."
        )
    if len(numbers) > 1:
        raise HeadStudioError(f"{item.strip()!r} has more than one intensity; give one.")
    expression = find_expression(name)
    if not numbers:
        return expression, 1.0
    match = _INTENSITY.fullmatch(numbers[0])
    assert match is not None
    amount = float(match[1]) / (100 if match[2] else 1)
    if not 0 <= amount <= 1:
        raise HeadStudioError(
            f"{item.strip()!r}: an intensity is a number from 0 to 1, or a percentage; a duration "
            "has a unit, as in 'smile 2s'."
        )
    return expression, amount
