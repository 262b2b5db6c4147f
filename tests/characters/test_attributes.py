"""Characters as data: drawing them, naming their classes, describing them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from headstudio.characters import (
    ATTRIBUTES,
    IGNORED_CLASS,
    VIEWS,
    Character,
    attribute_classes,
    attribute_names,
    caption,
    caption_and_content,
    sample_character,
)
from headstudio.errors import HeadStudioError


def _sample(count: int, seed: int = 0) -> list[Character]:
    rng = np.random.default_rng(seed)
    return [sample_character(rng) for _ in range(count)]


def test_same_seed_same_characters_and_captions() -> None:
    first, second = _sample(50), _sample(50)
    assert first == second
    assert first != _sample(50, seed=1)
    speak = [[caption(c, np.random.default_rng(3), "front") for c in cs] for cs in (first, second)]
    assert speak[0] == speak[1]


def test_every_option_is_drawn_that_the_prior_knows() -> None:
    people = _sample(6000)
    drawn = {key: {getattr(c, key) for c in people} for key in ATTRIBUTES}
    unknown = {
        (key, o.name)
        for key, table in ATTRIBUTES.items()
        for o in table
        if o.name not in drawn[key]
    }
    assert unknown == {("lips", "none")}


def test_colours_are_drawn_independently_of_each_other() -> None:
    """No colour of the face may be guessed from another, or a model binds them wrongly."""
    people = [c for c in _sample(12000) if c.archetype == "person"]
    for skin in ("blue", "green", "red", "purple"):
        of_skin = [c for c in people if c.skin == skin]
        for attribute, options in (("hair_color", 10), ("lips", 10), ("eyes", 9)):
            values = [getattr(c, attribute) for c in of_skin]
            share = max(values.count(v) for v in set(values)) / len(values)
            assert len(set(values)) >= options
            assert share < 0.4, (skin, attribute)
    both = [c for c in people if c.skin == "blue" and c.hair_color == "red" and c.lips == "black"]
    assert both


def test_identity_is_limited() -> None:
    shapes = np.array([c.shape for c in _sample(2000)])
    assert shapes.shape == (2000, 20)
    assert np.abs(shapes).max() <= 2.0
    assert shapes.std() == pytest.approx(0.55, rel=0.05)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(HeadStudioError, match=r"plaid.*blue"):
        Character(skin="plaid")
    with pytest.raises(HeadStudioError, match=r"left.*front"):
        caption(Character(), np.random.default_rng(0), "left")


def test_classes_index_the_names_and_ignore_what_is_not_seen() -> None:
    names = attribute_names()
    for character in _sample(300):
        for attribute, index in attribute_classes(character).items():
            if index != IGNORED_CLASS:
                assert names[attribute][index] == getattr(character, attribute)
    bald = attribute_classes(Character(hair_style="bald", glasses="sunglasses"))
    assert bald["hair_color"] == bald["beard_color"] == bald["eyes"] == IGNORED_CLASS


@pytest.mark.parametrize("archetype", ["person", "robot", "alien", "skeleton", "zombie"])
@pytest.mark.parametrize("paint", ["none", "zombie", "skull", "clown"])
def test_brows_that_are_not_there_and_skin_beneath_paint_have_no_class(
    archetype: str, paint: str
) -> None:
    classes = attribute_classes(Character(archetype=archetype, paint=paint))
    browless = archetype in ("robot", "alien", "skeleton") or paint == "skull"
    assert (classes["brow_color"] == IGNORED_CLASS) == browless
    # A skull and a clown show their own skin at the neck and the ears.
    assert (classes["skin"] == IGNORED_CLASS) == (paint == "zombie")


COLOR_WORDS = {
    attribute: {word: o.name for o in ATTRIBUTES[attribute] for word in o.words}
    for attribute in ("skin", "lips", "eyes", "hair_color")
}


def test_captions_say_only_what_is_true() -> None:
    """Phrases that bind a colour to a feature name the character's own colour."""
    rng = np.random.default_rng(0)
    seen = dict.fromkeys(("skin", "lips", "eyes", "hair_color"), 0)
    patterns = {
        "skin": r"([a-z ]+?)(?: skin\b|-skinned)",
        "lips": r"([a-z ]+?) (?:lips|lipstick)\b",
        "eyes": r"([a-z ]+?) eyes\b",
        "hair_color": r"([a-z -]+?)(?: hair\b|-haired)",
    }
    for character in _sample(1500):
        text = caption(character, rng)
        for attribute, pattern in patterns.items():
            for said in re.findall(pattern, text):
                words = COLOR_WORDS[attribute]
                own = {w for w, name in words.items() if name == getattr(character, attribute)}
                last = max((w for w in words if said.endswith(w)), key=len, default=None)
                if last is not None and not said.endswith(tuple(own)):
                    raise AssertionError(f"{text!r} says {said!r} of {character}")
                seen[attribute] += last is not None
    assert min(seen.values()) > 200


@pytest.mark.parametrize(
    ("attribute", "value", "pattern"),
    [
        ("glasses", "none", r"glasses"),
        ("beard", "none", r"beard|goatee|m(o)?ustache|stubble"),
        ("accessory", "none", r"horns|crown|patch|bandana|headband"),
        ("hair_style", "bald", r"\b(hair|afro|mohawk|bob|bun|ponytail)\b(?<!no hair)"),
        ("age", "adult", r"\b(young|old|elderly)\b"),
    ],
)
def test_captions_do_not_mention_what_is_not_there(
    attribute: str, value: str, pattern: str
) -> None:
    rng = np.random.default_rng(1)
    for character in _sample(400):
        if character.archetype != "person":
            continue
        plain = replace(character, **{attribute: value})
        assert not re.search(pattern, caption(plain, rng)), plain


def test_a_missing_mouth_is_said_and_has_no_lips() -> None:
    rng = np.random.default_rng(4)
    told = [
        caption_and_content(replace(c, lips="none", archetype="person"), rng) for c in _sample(200)
    ]
    assert np.mean(["no mouth" in one.text for one in told]) > 0.9
    assert not any(re.search(r"\blips\b|lipstick", one.text) for one in told)
    assert not any("lips" in one.colors for one in told)


def test_unusual_colours_are_nearly_always_said() -> None:
    rng = np.random.default_rng(2)
    blue = Character(skin="blue", hair_style="long", hair_color="red", lips="black")
    said = [caption(blue, rng) for _ in range(300)]
    assert np.mean([bool(re.search(r"blue|azure", s)) for s in said]) > 0.9
    assert np.mean(["black li" in s for s in said]) > 0.9
    plain = [caption(Character(skin="fair"), rng) for _ in range(300)]
    assert 0.2 < np.mean(["skin" in s for s in plain]) < 0.6


@pytest.mark.parametrize("view", VIEWS)
def test_view_suffix_is_the_prompt_processors(view: str) -> None:
    rng = np.random.default_rng(0)
    texts = [caption(c, rng, view) for c in _sample(100)]
    suffixed = [t.endswith(f", {view} view") for t in texts]
    assert 0.7 < np.mean(suffixed) < 0.98
    assert not any(" view" in caption(c, rng) for c in _sample(100))


def test_captions_fit_the_text_encoder() -> None:
    """77 tokens of CLIP; a word is rarely more than two."""
    rng = np.random.default_rng(0)
    words = [len(caption(c, rng, "side").replace(",", " ,").split()) for c in _sample(1000)]
    assert max(words) < 60
