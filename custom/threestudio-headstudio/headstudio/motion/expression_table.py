"""Expressions by name: which facial actions make a smile.

Moods follow the prototypes of the Facial Action Coding System (Ekman, Friesen & Hager, *FACS
Investigator's Guide*, 2002; happiness is action units 6 + 12, sadness 1 + 4 + 15, surprise
1 + 2 + 5 + 26, fear 1 + 2 + 4 + 5 + 20 + 25, anger 4 + 5 + 7 + 23, disgust 9 + 15, contempt 12 + 14
on one side), each unit written as the ARKit actions that do the same. How strongly was chosen by
eye. Left and right are the subject's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Actions = Mapping[str, float]


@dataclass(frozen=True)
class Gesture:
    """A movement of the head to and fro: ``degrees`` about an axis at ``hertz``, from rest."""

    axis: int
    """0 nods, 1 turns, 2 tilts."""
    degrees: float
    hertz: float
    one_sided: bool = False
    """Only to the positive side, as a nod goes down and comes back."""


@dataclass(frozen=True)
class Expression:
    """A name, and what it does to a face at full intensity."""

    name: str
    group: str
    actions: Actions = field(default_factory=dict)
    """ARKit's actions, 0..1."""
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Rotation of the head in degrees: down, to the subject's left, onto the right shoulder."""
    gesture: Gesture | None = None
    aliases: tuple[str, ...] = ()


def _both(**actions: float) -> dict[str, float]:
    """``mouthSmile=0.7`` as ``mouthSmileLeft`` and ``mouthSmileRight``."""
    return {name + side: value for name, value in actions.items() for side in ("Left", "Right")}


MOODS = (
    Expression("neutral", "mood", aliases=("rest", "relaxed", "calm")),
    Expression(
        "smile",
        "mood",
        _both(mouthSmile=0.65, cheekSquint=0.35, eyeSquint=0.15, mouthDimple=0.15),
        aliases=("happy", "happiness", "joy"),
    ),
    Expression(
        "big smile",
        "mood",
        _both(mouthSmile=0.95, cheekSquint=0.75, eyeSquint=0.35, mouthUpperUp=0.35, mouthDimple=0.2)
        | {"jawOpen": 0.18, "browInnerUp": 0.1},
        aliases=("grin", "beam", "very happy"),
    ),
    Expression(
        "laugh",
        "mood",
        _both(mouthSmile=0.9, cheekSquint=0.9, eyeSquint=0.6, mouthUpperUp=0.45, mouthLowerDown=0.2)
        | {"jawOpen": 0.5},
        turn=(-5.0, 0.0, 0.0),
        aliases=("laughing",),
    ),
    Expression(
        "smirk",
        "mood",
        {"mouthSmileLeft": 0.75, "mouthDimpleLeft": 0.5, "cheekSquintLeft": 0.3, "mouthLeft": 0.15}
        | {"browOuterUpLeft": 0.3},
        aliases=("left smirk", "half smile"),
    ),
    Expression(
        "right smirk",
        "mood",
        {"mouthSmileRight": 0.75, "mouthDimpleRight": 0.5, "cheekSquintRight": 0.3}
        | {"mouthRight": 0.15, "browOuterUpRight": 0.3},
    ),
    Expression(
        "frown",
        "mood",
        _both(mouthFrown=0.75, browDown=0.45) | {"mouthShrugLower": 0.25},
        aliases=("displeased", "unhappy"),
    ),
    Expression(
        "sad",
        "mood",
        _both(mouthFrown=0.8, browDown=0.1, eyeSquint=0.1, eyeLookDown=0.25)
        | {"browInnerUp": 0.9, "mouthShrugLower": 0.3},
        turn=(5.0, 0.0, 0.0),
        aliases=("sadness", "sorrow"),
    ),
    Expression(
        "surprised",
        "mood",
        _both(browOuterUp=0.9, eyeWide=0.9) | {"browInnerUp": 0.9, "jawOpen": 0.55},
        aliases=("surprise", "amazed", "astonished"),
    ),
    Expression(
        "afraid",
        "mood",
        _both(browOuterUp=0.5, browDown=0.25, eyeWide=1.0, mouthStretch=0.75, mouthLowerDown=0.3)
        | {"browInnerUp": 1.0, "jawOpen": 0.2},
        turn=(-4.0, 0.0, 0.0),
        aliases=("fear", "scared", "frightened", "terrified"),
    ),
    Expression(
        "angry",
        "mood",
        _both(browDown=1.0, eyeSquint=0.35, eyeWide=0.25, mouthPress=0.6, mouthFrown=0.3)
        | _both(noseSneer=0.4)
        | {"mouthRollLower": 0.2},
        turn=(3.0, 0.0, 0.0),
        aliases=("anger", "mad", "annoyed"),
    ),
    Expression(
        "furious",
        "mood",
        _both(browDown=1.0, eyeWide=0.35, noseSneer=0.9, mouthUpperUp=0.7, mouthLowerDown=0.7)
        | _both(mouthStretch=0.4)
        | {"jawOpen": 0.25, "jawForward": 0.3},
        turn=(4.0, 0.0, 0.0),
        aliases=("rage", "snarl", "very angry"),
    ),
    Expression(
        "disgusted",
        "mood",
        _both(noseSneer=1.0, mouthUpperUp=0.6, mouthFrown=0.5, browDown=0.5, eyeSquint=0.45)
        | _both(cheekSquint=0.4)
        | {"mouthShrugLower": 0.3},
        turn=(-3.0, 0.0, 0.0),
        aliases=("disgust", "revolted"),
    ),
    Expression(
        "contempt",
        "mood",
        {"mouthDimpleLeft": 0.8, "mouthSmileLeft": 0.35, "mouthPressLeft": 0.3}
        | _both(eyeSquint=0.3, eyeLookDown=0.2),
        turn=(-5.0, 0.0, 0.0),
        aliases=("contemptuous", "scorn"),
    ),
    Expression(
        "worried",
        "mood",
        _both(mouthFrown=0.35, mouthStretch=0.2, mouthPress=0.25, browDown=0.15)
        | {"browInnerUp": 0.9},
        aliases=("concerned", "anxious"),
    ),
    Expression(
        "skeptical",
        "mood",
        {"browOuterUpLeft": 0.9, "browDownRight": 0.7, "eyeSquintRight": 0.4, "mouthRight": 0.2}
        | {"mouthPressLeft": 0.3, "mouthFrownRight": 0.3},
        turn=(0.0, 0.0, 4.0),
        aliases=("sceptical", "doubtful", "suspicious"),
    ),
    Expression(
        "thinking",
        "mood",
        {"eyeLookUpLeft": 0.6, "eyeLookUpRight": 0.6, "eyeLookOutRight": 0.5, "eyeLookInLeft": 0.5}
        | {"mouthRight": 0.3, "mouthPressLeft": 0.3, "mouthPressRight": 0.3, "browDownLeft": 0.3}
        | {"browOuterUpRight": 0.4},
        turn=(-4.0, -6.0, 3.0),
        aliases=("pensive",),
    ),
    Expression(
        "confused",
        "mood",
        {"browDownLeft": 0.6, "browOuterUpRight": 0.6, "browInnerUp": 0.3, "mouthFrownLeft": 0.3}
        | {"mouthLeft": 0.2, "jawOpen": 0.06, "eyeSquintLeft": 0.3},
        turn=(0.0, 0.0, -6.0),
        aliases=("puzzled",),
    ),
    Expression(
        "pain",
        "mood",
        _both(browDown=0.9, eyeSquint=0.8, eyeBlink=0.6, cheekSquint=0.8, noseSneer=0.7)
        | _both(mouthUpperUp=0.5, mouthStretch=0.6, mouthLowerDown=0.3)
        | {"jawOpen": 0.12},
        turn=(4.0, 0.0, 3.0),
        aliases=("hurt", "wince"),
    ),
    Expression(
        "sleepy",
        "mood",
        _both(eyeBlink=0.55, eyeLookDown=0.2) | {"browInnerUp": 0.2, "jawOpen": 0.08},
        turn=(7.0, 0.0, 4.0),
        aliases=("tired", "bored", "drowsy"),
    ),
)

EYES = (
    Expression("blink", "eyes", _both(eyeBlink=1.0), aliases=("eyes closed", "close eyes")),
    Expression(
        "left wink",
        "eyes",
        {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "mouthSmileLeft": 0.25, "browDownLeft": 0.2},
        aliases=("wink left", "wink"),
    ),
    Expression(
        "right wink",
        "eyes",
        {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.6, "mouthSmileRight": 0.25}
        | {"browDownRight": 0.2},
        aliases=("wink right",),
    ),
    Expression("squint", "eyes", _both(eyeSquint=1.0, cheekSquint=0.4, browDown=0.3)),
    Expression("wide eyes", "eyes", _both(eyeWide=1.0), aliases=("eyes wide", "stare")),
    Expression("look left", "eyes", {"eyeLookOutLeft": 0.9, "eyeLookInRight": 0.9}),
    Expression("look right", "eyes", {"eyeLookInLeft": 0.9, "eyeLookOutRight": 0.9}),
    Expression("look up", "eyes", _both(eyeLookUp=0.9) | {"browInnerUp": 0.2}),
    Expression("look down", "eyes", _both(eyeLookDown=0.9)),
    Expression(
        "crossed eyes",
        "eyes",
        _both(eyeLookIn=0.8, eyeLookDown=0.15),
        aliases=("cross eyed", "cross eyes"),
    ),
)

BROWS = (
    Expression(
        "raised brows",
        "brows",
        _both(browOuterUp=1.0) | {"browInnerUp": 0.8},
        aliases=("brows up", "raise brows", "raised eyebrows"),
    ),
    Expression(
        "lowered brows",
        "brows",
        _both(browDown=1.0),
        aliases=("brows down", "lower brows", "knitted brows"),
    ),
    Expression(
        "left brow up",
        "brows",
        {"browOuterUpLeft": 1.0, "browInnerUp": 0.25},
        aliases=("raise left brow", "left eyebrow up"),
    ),
    Expression(
        "right brow up",
        "brows",
        {"browOuterUpRight": 1.0, "browInnerUp": 0.25},
        aliases=("raise right brow", "right eyebrow up"),
    ),
)

MOUTH = (
    Expression("jaw open", "mouth", {"jawOpen": 0.8}, aliases=("mouth open", "open mouth")),
    Expression(
        "yawn",
        "mouth",
        _both(eyeBlink=0.8, eyeSquint=0.5, mouthStretch=0.2, browDown=0.3)
        | {"jawOpen": 1.0, "mouthFunnel": 0.3, "browInnerUp": 0.3},
        turn=(-8.0, 0.0, 0.0),
        aliases=("yawning",),
    ),
    Expression("pucker", "mouth", {"mouthPucker": 1.0}, aliases=("pout", "duck face")),
    Expression(
        "kiss",
        "mouth",
        _both(eyeBlink=0.7) | {"mouthPucker": 1.0, "mouthFunnel": 0.25},
        turn=(-3.0, 0.0, 3.0),
    ),
    Expression(
        "cheek puff",
        "mouth",
        _both(mouthPress=0.3) | {"cheekPuff": 1.0},
        aliases=("puffed cheeks", "puff cheeks"),
    ),
    Expression("tongue out", "mouth", {"tongueOut": 1.0, "jawOpen": 0.35}, aliases=("tongue",)),
    Expression(
        "pressed lips",
        "mouth",
        _both(mouthPress=0.8) | {"mouthRollLower": 0.5, "mouthRollUpper": 0.5},
        aliases=("press lips", "tight lips"),
    ),
    Expression(
        "bared teeth",
        "mouth",
        _both(mouthUpperUp=0.8, mouthLowerDown=0.8, mouthStretch=0.6, mouthSmile=0.3)
        | {"jawOpen": 0.06},
        aliases=("show teeth", "cheese"),
    ),
    Expression("mouth left", "mouth", {"mouthLeft": 1.0}),
    Expression("mouth right", "mouth", {"mouthRight": 1.0}),
    Expression("jaw left", "mouth", {"jawLeft": 1.0, "jawOpen": 0.1}),
    Expression("jaw right", "mouth", {"jawRight": 1.0, "jawOpen": 0.1}),
    Expression("jaw forward", "mouth", {"jawForward": 1.0}),
)

SOUNDS = (
    Expression("aa", "sound", _both(mouthLowerDown=0.2) | {"jawOpen": 0.6}, aliases=("ah",)),
    Expression("ee", "sound", _both(mouthStretch=0.5, mouthSmile=0.3) | {"jawOpen": 0.15}),
    Expression("oh", "sound", {"mouthFunnel": 0.7, "mouthPucker": 0.2, "jawOpen": 0.35}),
    Expression("oo", "sound", {"mouthPucker": 0.7, "mouthFunnel": 0.4, "jawOpen": 0.12}),
    Expression(
        "mm",
        "sound",
        _both(mouthPress=0.4) | {"mouthRollLower": 0.3, "mouthRollUpper": 0.3},
    ),
    Expression("ff", "sound", _both(mouthUpperUp=0.25) | {"mouthRollLower": 0.7, "jawOpen": 0.06}),
)

HEAD = (
    Expression("turn left", "head", turn=(0.0, 25.0, 0.0), aliases=("head left",)),
    Expression("turn right", "head", turn=(0.0, -25.0, 0.0), aliases=("head right",)),
    Expression("head up", "head", turn=(-15.0, 0.0, 0.0), aliases=("chin up",)),
    Expression("head down", "head", turn=(15.0, 0.0, 0.0), aliases=("chin down", "bow")),
    Expression("tilt left", "head", turn=(0.0, 0.0, -14.0)),
    Expression("tilt right", "head", turn=(0.0, 0.0, 14.0)),
    Expression(
        "nod",
        "head",
        gesture=Gesture(axis=0, degrees=11.0, hertz=1.6, one_sided=True),
        aliases=("yes", "nodding"),
    ),
    Expression(
        "shake",
        "head",
        gesture=Gesture(axis=1, degrees=12.0, hertz=1.5),
        aliases=("no", "shake head", "shaking"),
    ),
)

EXPRESSIONS: dict[str, Expression] = {
    entry.name: entry for entry in (*MOODS, *EYES, *BROWS, *MOUTH, *SOUNDS, *HEAD)
}
"""Every expression by its name, in the order of the documentation."""

ALIASES: dict[str, str] = {
    alias: entry.name for entry in EXPRESSIONS.values() for alias in entry.aliases
}
"""Other words for the same."""
