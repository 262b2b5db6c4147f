"""Drawing characters: ordinary people, free mixes of everything, and archetypes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from headstudio.characters.attributes import (
    ACCESSORIES,
    AGES,
    ARCHETYPES,
    BEARDS,
    EYES,
    GENDERS,
    GLASSES,
    HAIR_COLORS,
    HAIR_STYLES,
    LIPS,
    PAINTS,
    SKINS,
    Character,
    Option,
)

#: Number of leading identity coefficients that vary between characters, and their spread.
SHAPE_DIMS = 20
SHAPE_STD = 0.55
SHAPE_LIMIT = 2.0

_MALE_STYLES = {"long": 0.35, "long wavy": 0.35, "bob": 0.15, "fringe": 0.15, "ponytail": 0.3}
_FEMALE_STYLES = {"bald": 0.25, "buzz cut": 0.3, "balding": 0.0, "short": 0.5, "side parted": 0.4}
_FAIR_SKINS = ("pale", "fair")
_DARK_SKINS = ("brown", "dark brown", "black")


def _draw(
    rng: np.random.Generator,
    table: tuple[Option, ...],
    kind: str,
    factors: dict[str, float] | None = None,
) -> str:
    factors = factors or {}
    weights = np.array([getattr(o, kind) * factors.get(o.name, 1.0) for o in table])
    return table[int(rng.choice(len(table), p=weights / weights.sum()))].name


def _ordinary(rng: np.random.Generator) -> Character:
    """A person one could meet: colours as nature mixes them, little paint."""
    gender, age = _draw(rng, GENDERS, "natural"), _draw(rng, AGES, "natural")
    skin = _draw(rng, SKINS, "natural")
    if age == "old":
        hair = {"grey": 8.0, "white": 9.0}
    elif skin in _DARK_SKINS:
        hair = {"black": 4.0, "blonde": 0.25, "red": 0.2}
    else:
        hair = {"blonde": 1.5 if skin in _FAIR_SKINS else 0.6}
    hair_color = _draw(rng, HAIR_COLORS, "natural", hair)
    styles = _MALE_STYLES if gender == "man" else _FEMALE_STYLES
    return Character(
        gender=gender,
        age=age,
        skin=skin,
        hair_style=_draw(rng, HAIR_STYLES, "natural", styles),
        hair_color=hair_color,
        brow_color=hair_color,
        beard=_draw(rng, BEARDS, "natural") if gender == "man" else "none",
        beard_color=hair_color,
        lips=_draw(rng, LIPS, "natural") if gender == "woman" else "natural",
        eyes=_draw(rng, EYES, "natural", {"blue": 0.3} if skin in _DARK_SKINS else None),
        glasses=_draw(rng, GLASSES, "natural"),
        accessory=_draw(rng, ACCESSORIES, "natural"),
    )


def _free_mix(rng: np.random.Generator) -> Character:
    """Every attribute on its own, so that no colour can be guessed from another."""
    gender = _draw(rng, GENDERS, "free")
    hair_color = _draw(rng, HAIR_COLORS, "free")
    own = rng.random(2) < (0.15, 0.35)  # brows and beard seldom have a colour of their own
    styles = _MALE_STYLES if gender == "man" else _FEMALE_STYLES
    glasses, accessory = _draw(rng, GLASSES, "free"), _draw(rng, ACCESSORIES, "free")
    return Character(
        gender=gender,
        age=_draw(rng, AGES, "free"),
        skin=_draw(rng, SKINS, "free"),
        hair_style=_draw(rng, HAIR_STYLES, "free", styles),
        hair_color=hair_color,
        brow_color=_draw(rng, HAIR_COLORS, "free") if own[0] else hair_color,
        beard=_draw(rng, BEARDS, "free") if gender == "man" else "none",
        beard_color=_draw(rng, HAIR_COLORS, "free") if own[1] else hair_color,
        lips=_draw(rng, LIPS, "free"),
        eyes=_draw(rng, EYES, "free"),
        glasses=glasses,
        paint=_draw(rng, PAINTS, "free"),
        accessory="none" if accessory == "eye patch" and glasses != "none" else accessory,
    )


#: What makes an archetype what it is; several values are alternatives.
_PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "clown": {
        "skin": ("fair", "pale", "tan"),
        "paint": ("clown",),
        "hair_style": ("afro", "curly", "spiky", "balding"),
        "hair_color": ("red", "green", "blue", "orange", "purple", "pink"),
        "lips": ("red",),
        "beard": ("none",),
    },
    "zombie": {
        "paint": ("zombie",),
        "skin": ("grey", "green", "pale"),
        "eyes": ("white", "yellow", "red"),
        "lips": ("natural", "black"),
        "hair_style": ("bald", "short", "spiky", "balding", "long wavy"),
        "hair_color": ("black", "grey", "brown"),
        "beard": ("none",),
    },
    "robot": {
        "paint": ("robot",),
        "skin": ("grey", "grey", "white", "golden", "blue"),
        "hair_style": ("bald",),
        "eyes": ("red", "blue", "yellow"),
        "lips": ("natural",),
        "beard": ("none",),
    },
    "alien": {
        "skin": ("green", "grey", "blue", "purple", "turquoise"),
        "hair_style": ("bald",),
        "eyes": ("black", "black", "yellow", "red"),
        "lips": ("natural",),
        "beard": ("none",),
    },
    "vampire": {
        "skin": ("pale", "white"),
        "hair_style": ("slicked back", "slicked back", "long"),
        "hair_color": ("black",),
        "eyes": ("red",),
        "lips": ("red",),
        "beard": ("none",),
    },
    "demon": {
        "skin": ("red",),
        "hair_style": ("bald", "short", "slicked back", "long"),
        "hair_color": ("black",),
        "eyes": ("yellow", "red", "white"),
        "accessory": ("horns",),
        "lips": ("natural", "black"),
        "beard": ("none", "goatee"),
    },
    "witch": {
        "gender": ("woman",),
        "skin": ("green", "pale"),
        "hair_style": ("long", "long wavy"),
        "hair_color": ("black", "grey", "purple"),
        "eyes": ("yellow", "green", "purple"),
        "lips": ("black", "purple", "green"),
        "beard": ("none",),
    },
    "pirate": {
        "gender": ("man",),
        "skin": ("tan", "fair", "brown"),
        "accessory": ("eye patch", "eye patch", "headband"),
        "hair_style": ("long", "long wavy", "ponytail"),
        "hair_color": ("black", "brown", "red", "grey"),
        "beard": ("full", "long", "goatee"),
        "lips": ("natural",),
    },
    "skeleton": {
        "paint": ("skull",),
        "skin": ("white",),
        "hair_style": ("bald",),
        "eyes": ("black", "red"),
        "lips": ("natural",),
        "beard": ("none",),
    },
    "statue": {
        "skin": ("white", "grey", "golden"),
        "hair_style": ("bald", "short", "curly", "bob", "long", "bun"),
        "lips": ("natural",),
        "eyes": ("white",),
    },
    "ogre": {
        "gender": ("man",),
        "skin": ("green",),
        "hair_style": ("bald", "bald", "short", "mohawk"),
        "hair_color": ("black", "brown"),
        "eyes": ("yellow", "red", "brown"),
        "lips": ("natural",),
        "beard": ("none", "goatee"),
    },
    "wizard": {
        "gender": ("man",),
        "age": ("old",),
        "skin": ("pale", "fair"),
        "hair_style": ("long", "long wavy"),
        "hair_color": ("white", "grey"),
        "beard": ("long",),
        "lips": ("natural",),
    },
    "king": {
        "gender": ("man",),
        "accessory": ("crown",),
        "hair_style": ("short", "long", "long wavy", "curly"),
        "beard": ("full", "long", "goatee"),
        "lips": ("natural",),
    },
    "queen": {
        "gender": ("woman",),
        "accessory": ("crown",),
        "hair_style": ("long", "long wavy", "bun", "bob"),
        "beard": ("none",),
    },
    "na'vi": {
        "skin": ("blue",),
        "paint": ("tribal",),
        "hair_style": ("long", "ponytail", "long wavy"),
        "hair_color": ("black",),
        "eyes": ("yellow",),
        "lips": ("natural",),
        "beard": ("none",),
    },
    "punk": {
        "hair_style": ("mohawk", "mohawk", "spiky"),
        "hair_color": ("green", "pink", "red", "blue", "purple", "orange"),
        "lips": ("natural", "black"),
    },
    "mime": {
        "skin": ("white",),
        "hair_style": ("short", "bob", "slicked back"),
        "hair_color": ("black",),
        "lips": ("black", "red"),
        "beard": ("none",),
    },
}
_NO_GLASSES = ("na'vi", "mime", "statue", "skeleton", "robot", "pirate", "clown")


def _archetype(rng: np.random.Generator) -> Character:
    name = ARCHETYPES[1 + int(rng.integers(len(ARCHETYPES) - 1))].name
    preset = _PRESETS[name]
    chosen: dict[str, Any] = {
        key: values[int(rng.integers(len(values)))] for key, values in preset.items()
    }
    base = _ordinary(rng)
    if chosen.get("gender", base.gender) == "woman":
        chosen["beard"] = "none"
    if name in _NO_GLASSES:
        chosen["glasses"] = "none"
    hair_color = chosen.get("hair_color", base.hair_color)
    if name == "statue":  # all of one stuff
        hair_color = {"white": "white", "grey": "grey", "golden": "blonde"}[chosen["skin"]]
    chosen |= {"hair_color": hair_color, "brow_color": hair_color, "beard_color": hair_color}
    if "accessory" not in preset:
        chosen["accessory"] = "none"
    return replace(base, archetype=name, **chosen)


def facial_traits(character: Character) -> dict[str, float]:
    """How much of each named direction of the open head's identity a face has.

    Gender and age are those in words, more or less of each; descent is not in words, and leans
    the way an ordinary skin says.
    """
    rng = np.random.default_rng((character.seed, 3))
    age = {"young": -0.8, "adult": 0.0, "old": 0.9}[character.age]
    dark = character.skin in _DARK_SKINS
    return {
        "female": (1.0 if character.gender == "woman" else -1.0) * rng.uniform(0.5, 1.0),
        "old": age + rng.normal(0.0, 0.2),
        "heavy": rng.normal(0.0, 0.5),
        "african": rng.uniform(0.2, 1.0) if dark else rng.uniform(-0.8, 0.3),
        "asian": rng.uniform(-0.5, 0.8) * (0.3 if dark else 1.0),
    }


def sample_character(rng: np.random.Generator) -> Character:
    """Draw a character: 40 % ordinary people, 45 % free mixes, 15 % archetypes."""
    kind = rng.random()
    draw = _ordinary if kind < 0.40 else _free_mix if kind < 0.85 else _archetype
    character = draw(rng)
    shape = np.clip(rng.normal(0.0, SHAPE_STD, SHAPE_DIMS), -SHAPE_LIMIT, SHAPE_LIMIT)
    return replace(
        character,
        shape=tuple(round(float(s), 4) for s in shape),
        seed=int(rng.integers(2**31 - 1)),
    )
