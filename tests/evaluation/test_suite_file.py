"""The file of prompts: what is in ours, and what is refused in anybody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from headstudio.characters import ATTRIBUTES, has_mouth, option, sample_character
from headstudio.errors import HeadStudioError
from headstudio.evaluation.regions import COLOUR_OF, named_options
from headstudio.evaluation.suite import FIRST_HELD_OUT_SEED, KINDS, choose, load_suite

SUITE = Path(__file__).resolve().parents[2] / "configs/benchmark/closed_world.yaml"


@pytest.fixture(scope="module")
def suite():
    return load_suite(SUITE)


def test_there_are_26_of_all_kinds(suite):
    assert len(suite) == 26
    assert sum(not has_mouth(prompt.character) for prompt in suite) == 2
    assert {prompt.kind for prompt in suite} == set(KINDS)
    assert sum(len(prompt.named) for prompt in suite) >= 50
    assert {region for prompt in suite for region in prompt.named} == set(COLOUR_OF)
    assert len({prompt.character.seed for prompt in suite}) == 26


def test_a_sentence_names_exactly_the_colours_that_are_asked_for(suite):
    for prompt in suite:
        words = f" {prompt.prompt.lower().replace(',', ' ')} "
        for region, name in prompt.named.items():
            said = option(COLOUR_OF[region], name).words
            assert any(f" {word} " in words for word in said), (prompt.id, region)
        named = set(prompt.named.values())
        colours = {name for region in COLOUR_OF for name in named_options(region)}
        # What other things are of: "golden crown", "black eye mask", "dark sunglasses".
        for thing in ("golden crown", "black eye mask", "dark sunglasses"):
            words = words.replace(thing, "")
        for name in sorted(colours, key=len, reverse=True):
            if f" {name} " in words:
                assert name in named, (prompt.id, name)
                words = words.replace(f" {name} ", " ")


def test_no_character_is_one_that_is_trained_on(suite):
    rng = np.random.default_rng(0)
    trained = [sample_character(rng) for _ in range(500)]
    assert max(one.seed for one in trained) < FIRST_HELD_OUT_SEED
    assert all(prompt.character.seed >= FIRST_HELD_OUT_SEED for prompt in suite)
    assert not {one.shape for one in trained} & {prompt.character.shape for prompt in suite}


def test_choosing(suite):
    assert choose(suite, []) == suite
    assert choose(suite, ["1"]) == suite[:1]
    four = choose(suite, ["4"])
    assert [suite.index(prompt) for prompt in four] == [0, 6, 13, 19]  # spread over the kinds
    # The four that docs/ablations.md was measured with.
    assert [prompt.id for prompt in four] == ["red-hair", "bald-black", "golden-woman", "demon"]
    assert choose(suite, ["100"]) == suite
    assert [p.id for p in choose(suite, ["witch", "king", "witch"])] == ["witch", "king"]
    with pytest.raises(HeadStudioError, match="did you mean 'witch'"):
        choose(suite, ["wich"])
    for few in ("0", "-1"):
        with pytest.raises(HeadStudioError, match="1 or more"):
            choose(suite, [few])
    for sign in ("²", "--1"):  # the first is a digit to Python, and neither is a number
        with pytest.raises(HeadStudioError, match="no prompt"):
            choose(suite, [sign])


def row(**changes):
    entry = {
        "id": "one",
        "kind": "human",
        "prompt": "a man with red hair",
        "named": {"hair": "red"},
        "character": {"gender": "man", "hair_color": "red", "seed": FIRST_HELD_OUT_SEED},
    }
    return {**entry, **changes}


BAD = {
    "no list": ({"prompt": []}, "no list of prompts"),
    "empty": ({"prompts": []}, "no list of prompts"),
    "a key too many": ({"prompts": [row(colour="red")]}, "expected the keys"),
    "no mapping": ({"prompts": ["a man"]}, "expected the keys"),
    "kind": ({"prompts": [row(kind="elf")]}, "kind is 'elf'"),
    "no words": ({"prompts": [row(prompt=" ")]}, "prompt is ' '"),
    "twice": ({"prompts": [row(), row()]}, "several prompts of the id one"),
    "attribute": (
        {"prompts": [row(character={"hair": "red", "seed": FIRST_HELD_OUT_SEED})]},
        "a character has no 'hair'",
    ),
    "option": (
        {"prompts": [row(character={"hair_color": "mauve", "seed": FIRST_HELD_OUT_SEED})]},
        "unknown hair_color 'mauve'",
    ),
    "seed": ({"prompts": [row(character={"hair_color": "red", "seed": 3})]}, "seed is 3"),
    "another colour": ({"prompts": [row(named={"hair": "blue"})]}, "the character's is 'red'"),
    "no region": ({"prompts": [row(named={"nose": "red"})]}, "'nose' is no region"),
    "no colour": ({"prompts": [row(named={"lips": "natural"})]}, "'natural' is no colour"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(HeadStudioError, match=message):
        load_suite(path)


def test_a_file_that_is_not_there_or_no_yaml(tmp_path):
    with pytest.raises(HeadStudioError, match="cannot be read"):
        load_suite(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("prompts: [")
    with pytest.raises(HeadStudioError, match="is not YAML"):
        load_suite(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompts: [&a {x: 1}, *a]", "aliases are not read"),
        ("prompts: " + "1" * 5000, "is not YAML"),
        ("prompts: 2001-99-99", "is not YAML"),
    ],
)
def test_yaml_that_is_refused(text, message, tmp_path):
    """What a stranger may send besides is in tests/fixtures/hostile_files.py."""
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(HeadStudioError, match=message):
        load_suite(path)


@pytest.mark.parametrize("value", [[1], {"a": 1}, None, 3, True])
@pytest.mark.parametrize("key", ["id", "kind", "prompt", "named", "character"])
def test_values_of_other_types_are_refused_or_mean_nothing(key, value, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({"prompts": [row(**{key: value})]}))
    if key == "named" and value is None:
        assert load_suite(path)[0].named == {}
    else:
        with pytest.raises(HeadStudioError, match="prompt 1"):
            load_suite(path)
    path.write_text(
        yaml.safe_dump(
            {"prompts": [row(character={"hair_color": value, "seed": FIRST_HELD_OUT_SEED})]}
        )
    )
    with pytest.raises(HeadStudioError, match="prompt 1"):
        load_suite(path)


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_is_no_file_is_not_read(path):
    with pytest.raises(HeadStudioError, match="not a file"):
        load_suite(path)


def test_every_colour_region_is_an_attribute():
    assert set(COLOUR_OF.values()) <= set(ATTRIBUTES)
