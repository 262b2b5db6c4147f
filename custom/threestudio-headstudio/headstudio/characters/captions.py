"""Sentences about a character, in the many ways people write prompts.

A caption mentions some of what is true and nothing that is not. What no ordinary person has (blue
skin, black lips, horns) is nearly always mentioned, so that a model learns the plain reading of
what a prompt leaves out. What paint hides is true as well: brows beneath skull makeup and skin
beneath zombie makeup are told, but for the skin of a clown, a skeleton or a zombie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from headstudio.characters.attributes import (
    Character,
    Option,
    has_mouth,
    is_unusual,
    option,
)
from headstudio.errors import HeadStudioError

VIEWS = ("front", "side", "back", "overhead")

_OPENINGS = (
    ("a DSLR portrait of {}", 4.0),
    ("a DSLR photo of {}", 1.0),
    ("a portrait of {}", 2.0),
    ("a photo of {}", 2.0),
    ("a head of {}", 3.0),
    ("the head of {}", 1.0),
    ("a close-up photo of {}", 0.6),
    ("a headshot of {}", 0.6),
    ("a 3D render of {}", 0.8),
    ("a 3D model of the head of {}", 0.4),
    ("an avatar of {}", 0.7),
    ("a realistic portrait of {}", 0.5),
    ("the face of {}", 0.5),
    ("{}", 4.0),
)
_QUALITY = (
    "masterpiece, studio quality, 8k",
    "masterpiece",
    "studio quality",
    "8k",
    "highly detailed",
    "best quality",
    "ultra realistic, 8k",
    "HDR",
    "studio lighting",
)
_MENTION_UNUSUAL = 0.95
_MENTION_USUAL = {
    "age": 0.8,  # there is a word for it only when young or old
    "skin": 0.55,
    "hair": 0.8,
    "brows": 0.1,
    "beard": 0.92,
    "lips": 0.75,
    "eyes": 0.5,  # small in the picture: they are learned only if they are often named
    "glasses": 0.95,
    "paint": 0.95,
    "accessory": 0.95,
}

# What is always told with its colour, and the attribute which that is.
_PLAINLY_COLORED = {"eyes": "eyes", "brows": "brow_color", "beard": "beard_color"}


@dataclass
class _Phrases:
    """What will be said: words before the noun, the noun, words after "with" and "wearing"; and
    whose colours these words name, by attribute."""

    before: list[str]
    noun: str
    having: list[str]
    wearing: list[str]
    colors: dict[str, str] = field(default_factory=dict)
    hair_style_told: bool = False


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiouAEIOU' else 'a'} {phrase}"


def _colored(rng: np.random.Generator, style: Option, color: Option) -> str:
    """A table's wording with its colour filled in and its article made to fit."""
    words = _pick(rng, style.words)
    color_word = _pick(rng, color.words)
    if color_word == "brunette":
        color_word = "brown"
    if words.startswith("a {}"):
        return _with_article(words[2:].format(color_word))
    return words.format(color_word)


def _hair(character: Character, rng: np.random.Generator, phrases: _Phrases) -> None:
    style = option("hair_style", character.hair_style)
    color = option("hair_color", character.hair_color)
    if character.hair_style == "bald":
        if rng.random() < 0.7:
            phrases.before.append("bald")
        else:
            phrases.having.append("a bald head" if rng.random() < 0.6 else "no hair")
        phrases.hair_style_told = True
        return
    form = rng.random()
    if form < 0.1 and character.hair_color in ("blonde", "brown", "red"):
        words = {"blonde": "blonde", "brown": "brunette", "red": "redhead"}
        phrases.before.append(words[color.name])
    elif form < 0.25:
        phrases.before.append(f"{_pick(rng, color.words).replace('brunette', 'brown')}-haired")
    elif form < 0.32 and character.hair_style in ("short", "long", "curly"):
        phrases.before.append(f"{character.hair_style}-haired")
        phrases.hair_style_told = True
        return
    else:
        phrases.having.append(_colored(rng, style, color))
        phrases.hair_style_told = True
    phrases.colors["hair_color"] = color.name


def _skin(character: Character, rng: np.random.Generator, phrases: _Phrases) -> None:
    skin = option("skin", character.skin)
    word = _pick(rng, skin.words)
    if character.archetype == "statue":
        phrases.before.append({"white": "white marble", "grey": "grey stone"}.get(skin.name, word))
    elif character.archetype in ("clown", "skeleton", "zombie"):
        return  # the paint hides it
    elif rng.random() < 0.3:
        phrases.before.append(f"{word}-skinned" if rng.random() < 0.8 else word)
    else:
        phrases.having.append(f"{word} skin")
    phrases.colors["skin"] = skin.name


def _lips(character: Character, rng: np.random.Generator, phrases: _Phrases) -> None:
    word = _pick(rng, option("lips", character.lips).words)
    if not has_mouth(character):
        phrases.having.append(word)
        return
    if rng.random() < 0.2:
        phrases.wearing.append(f"{word} lipstick")
    else:
        phrases.having.append(f"{word} lips")
    phrases.colors["lips"] = character.lips


def _is_mentioned(character: Character, what: str, rng: np.random.Generator) -> bool:
    attributes = {
        "skin": ("skin",),
        "hair": ("hair_style", "hair_color"),
        "brows": ("brow_color",),
        "beard": ("beard", "beard_color"),
    }.get(what, (what,))
    unusual = any(is_unusual(character, a) for a in attributes if a != "hair_style")
    if what == "hair" and character.hair_style == "bald":
        unusual = False
    chance = _MENTION_USUAL[what]
    return bool(rng.random() < (max(chance, _MENTION_UNUSUAL) if unusual else chance))


def _phrases(character: Character, rng: np.random.Generator) -> _Phrases:
    c = character
    gender = option("gender", c.gender)
    phrases = _Phrases([], _pick(rng, gender.words), [], [])
    if c.archetype != "person":
        phrases.noun = _pick(rng, option("archetype", c.archetype).words)
        if c.archetype == "statue" and rng.random() < 0.6:
            phrases.noun = f"statue of {_with_article(c.gender)}"
        elif c.archetype not in ("king", "queen", "statue", "skeleton") and rng.random() < 0.25:
            phrases.noun = f"{c.gender} {phrases.noun}" if c.gender == "woman" else phrases.noun
    elif rng.random() < 0.06:
        phrases.noun = "person"

    says = {what: _is_mentioned(c, what, rng) for what in _MENTION_USUAL}
    if says["age"] and c.age != "adult" and "old" not in phrases.noun:
        phrases.before.append(_pick(rng, option("age", c.age).words))
    own_brows = c.brow_color != c.hair_color
    told = [
        ("skin", lambda: _skin(c, rng, phrases)),
        ("hair", lambda: _hair(c, rng, phrases)),
    ]
    if c.lips != "natural":
        told.append(("lips", lambda: _lips(c, rng, phrases)))
    if c.glasses != "sunglasses":
        eyes = _pick(rng, option("eyes", c.eyes).words)
        told.append(("eyes", lambda: phrases.having.append(f"{eyes} eyes")))
    if own_brows:
        brow = _pick(rng, option("brow_color", c.brow_color).words[:1])
        told.append(("brows", lambda: phrases.having.append(f"{brow} eyebrows")))
    if c.beard != "none":
        beard = _colored(rng, option("beard", c.beard), option("beard_color", c.beard_color))
        told.append(("beard", lambda: phrases.having.append(beard)))
    if c.glasses != "none":
        glasses = _pick(rng, option("glasses", c.glasses).words)
        told.append(("glasses", lambda: phrases.wearing.append(glasses)))
    if c.paint != "none" and c.archetype not in ("clown", "zombie", "robot", "skeleton"):
        paint = _pick(rng, option("paint", c.paint).words)
        worn = phrases.wearing if c.paint == "mask" else phrases.having
        told.append(("paint", lambda: worn.append(paint)))
    if c.accessory != "none":
        thing = _pick(rng, option("accessory", c.accessory).words)
        worn = phrases.having if c.accessory == "horns" else phrases.wearing
        told.append(("accessory", lambda: worn.append(thing)))
    order = rng.permutation(len(told)) if rng.random() < 0.5 else range(len(told))
    for i in order:
        what, tell = told[i]
        if says[what]:
            tell()
            if what in _PLAINLY_COLORED:
                attribute = _PLAINLY_COLORED[what]
                phrases.colors[attribute] = getattr(c, attribute)
    return phrases


def _joined(items: list[str], rng: np.random.Generator) -> str:
    if len(items) < 2:
        return "".join(items)
    last = " and " if rng.random() < 0.75 else ", "
    middle = " and " if rng.random() < 0.15 else ", "
    return middle.join(items[:-1]) + last + items[-1]


def _subject(phrases: _Phrases, rng: np.random.Generator) -> str:
    subject = _with_article(" ".join([*phrases.before, phrases.noun]))
    if rng.random() < 0.12:  # as a list of tags
        return ", ".join([subject, *phrases.having, *phrases.wearing])
    worn_first = bool(phrases.wearing) and rng.random() < 0.2
    verb = "wearing" if rng.random() < 0.75 else "with"
    having = f" with {_joined(phrases.having, rng)}" if phrases.having else ""
    wearing = f"{verb} {_joined(phrases.wearing, rng)}" if phrases.wearing else ""
    if worn_first:
        return f"{subject} {wearing}{having}"
    comma = "," if having and wearing and rng.random() < 0.5 else ""
    return f"{subject}{having}{comma} {wearing}".rstrip()


def caption(character: Character, rng: np.random.Generator, view: str | None = None) -> str:
    """A prompt that fits the character; see :func:`caption_and_content`."""
    return caption_and_content(character, rng, view).text


class Caption(NamedTuple):
    """A prompt, and what of the character it tells."""

    text: str
    """One line without a final full stop."""
    colors: dict[str, str]
    """By attribute (``skin``, ``hair_color``, ``brow_color``, ``beard_color``, ``lips``, ``eyes``)
    the options whose colour the line says, other than by a figure's name (a demon is red without a
    word about skin)."""
    hair_style_told: bool
    """Whether the line says how the hair is worn; "black-haired" does not."""


def caption_and_content(
    character: Character, rng: np.random.Generator, view: str | None = None
) -> Caption:
    """A prompt that fits the character, and what it tells.

    Args:
        character: who is described.
        rng: chooses the wording and what is mentioned.
        view: one of :data:`VIEWS` for the suffix threestudio's prompt processors append
            (``", front view"``), left out now and then; None for no suffix.

    Raises:
        HeadStudioError: for an unknown view.
    """
    if view is not None and view not in VIEWS:
        raise HeadStudioError(f"unknown view {view!r}; expected one of {', '.join(VIEWS)} or None")
    weights = np.array([weight for _, weight in _OPENINGS])
    opening = _OPENINGS[int(rng.choice(len(_OPENINGS), p=weights / weights.sum()))][0]
    phrases = _phrases(character, rng)
    text = opening.format(_subject(phrases, rng))
    if rng.random() < 0.3:
        text += f", {_pick(rng, _QUALITY)}"
    if view is not None and rng.random() < 0.92:
        text += f", {view} view"
    return Caption(text, phrases.colors, phrases.hair_style_told)
