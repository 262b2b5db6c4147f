"""``headstudio sample``: avatar files of procedural characters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstudio.app import main as app
from headstudio.app.player import Player
from headstudio.app.sample import draw_character, parse_attributes
from headstudio.characters import Character, sample_character
from headstudio.errors import HeadStudioError

SPLATS = ["--splats", "4000"]


def sample(*words: object) -> int:
    return app.main(["sample", *(str(word) for word in words), *SPLATS])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the characters of seeds 3 and 4, and their picture."""
    folder = tmp_path_factory.mktemp("samples")
    words = ["--seed", 3, "--count", 2, "--out", folder / "a.ply"]
    assert sample(*words, "--picture", folder / "a.png") == 0
    return folder


def test_a_seed_is_a_character_with_its_caption(two):
    assert sorted(file.name for file in two.iterdir()) == ["a-3.ply", "a-4.ply", "a.png"]
    for seed in (3, 4):
        avatar = Player.open(two / f"a-{seed}.ply").avatar
        character, prompt = draw_character(seed, {})
        assert character == sample_character(np.random.default_rng(seed))
        assert avatar.prompt == prompt
        assert 2000 < avatar.splats.n <= 4000
        given = avatar.shape[: len(character.shape)].numpy()
        np.testing.assert_allclose(given, character.shape, atol=1e-6)


def test_the_same_seed_writes_the_same_file(two, tmp_path, capsys):
    assert sample("--seed", 4, "--out", tmp_path / "b.ply") == 0
    assert (tmp_path / "b.ply").read_bytes() == (two / "a-4.ply").read_bytes()
    assert (two / "a-3.ply").read_bytes() != (two / "a-4.ply").read_bytes()
    assert "seed 4" in capsys.readouterr().out


def test_the_picture_shows_both_from_three_sides(two):
    with Image.open(two / "a.png") as image:
        pixels = np.asarray(image, dtype=float)
    assert pixels.shape == (2 * 320, 3 * 320, 3)
    for row in range(2):
        for column in range(3):
            cell = pixels[320 * row : 320 * row + 280, 320 * column : 320 * column + 320]
            covered = (cell < 250).any(-1).mean()
            assert 0.1 < covered < 0.8, (row, column)


def test_attributes_are_chosen_and_the_rest_is_the_seeds():
    own, _ = draw_character(5, {})
    blue, prompt = draw_character(5, {"skin": "blue"})
    assert dataclasses.replace(own, skin="blue") == blue
    assert isinstance(prompt, str)
    pink, _ = draw_character(5, {"hair_color": "pink"})
    follows = own.brow_color == own.hair_color
    assert pink.brow_color == ("pink" if follows else own.brow_color)


def test_an_archetype_brings_what_makes_it_one():
    for seed in range(5):
        king, prompt = draw_character(seed, {"archetype": "king", "hair_color": "green"})
        assert (king.archetype, king.accessory, king.hair_color) == ("king", "crown", "green")
        assert "king" in prompt
        woman, _ = draw_character(seed, {"gender": "woman", "age": "old"})
        assert (woman.gender, woman.age, woman.beard) == ("woman", "old", "none")
    # What never occurs together is still done as it was asked for.
    witch, _ = draw_character(0, {"archetype": "witch", "gender": "man"})
    assert (witch.archetype, witch.gender) == ("witch", "man")


def test_values_are_read_however_they_are_written():
    wanted = parse_attributes(["Hair-Style=long_wavy", "skin = Light  Blue"])
    assert wanted == {"hair_style": "long wavy", "skin": "light blue"}
    assert Character(**wanted).skin == "light blue"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("skin", "expected ATTRIBUTE=VALUE"),
        ("skn=blue", "did you mean 'skin'"),
        ("skin=bleu", "skin cannot be 'bleu'; did you mean 'blue'"),
        ("hair_style=", "hair_style cannot be ''"),
    ],
)
def test_mistakes_are_named(assignment, message):
    with pytest.raises(HeadStudioError, match=message):
        parse_attributes([assignment])


def test_an_existing_file_is_kept(tmp_path, capsys):
    file = tmp_path / "a.ply"
    file.write_text("precious")
    assert sample("--out", file) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_text() == "precious"
    assert sample("--out", file, "--force") == 0
    assert Player.open(file).avatar.splats.n > 2000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.obj"], "ends in .ply"),
        (["--out", "a.ply", "--picture", "a.jpg"], "ends in .png"),
        (["--out", "a.ply", "--seed", "-1"], "expected 0 or more"),
        (["--out", "a.ply", "--splats", "999999999"], "expected at most 500000"),
        (["--out", "a.ply", "--splats", "3999"], "at least 4000"),
        (["--out", "a.ply", "--set", "skin=bleu"], "did you mean 'blue'"),
    ],
)
def test_bad_command_lines_write_nothing(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.main(["sample", *SPLATS, *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_list_has_every_attribute(capsys):
    with pytest.raises(SystemExit) as end:
        app.main(["sample", "--list"])
    assert end.value.code == 0
    listed = capsys.readouterr().out
    assert "skin: pale, fair" in listed
    assert "hair_style: bald" in listed
