"""`headstudio bench prior`: pictures of which it is known what they show, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import headstudio.characters
from headstudio.app.main import main
from headstudio.characters import BACKGROUND, Character, caption_and_content, option
from headstudio.evaluation import samples
from headstudio.evaluation.captions import Described, azimuth_deg, describe
from headstudio.evaluation.regions import COLOUR_OF, label, recoloured
from headstudio.evaluation.sample_summary import summarise, table
from headstudio.evaluation.samples import View, measure, opened, show_view
from headstudio.evaluation.stage import JAW_OPEN, Figure
from headstudio.evaluation.suite import FIRST_HELD_OUT_SEED
from headstudio.evaluation.truth import MIN_PIXELS
from headstudio.flame import FlameParams
from headstudio.render import Cameras
from tests.evaluation.conftest import NAMED

SIZE = 128
OWN = {**NAMED, "eyes": "green"}


@pytest.fixture(scope="module")
def described(character, studio) -> Described:
    """The character from the front with its jaw open."""
    head = studio.head
    params = FlameParams.zeros(1, head.n_shape, head.n_expression)
    params.jaw_pose[0, 0] = JAW_OPEN
    camera = Cameras.orbit(0.0, 0.0, 1.5, 43.0, SIZE, SIZE)
    own = replace(character, eyes="green")
    return Described(0, own, "a man", OWN, True, "front", params, camera)


def seen(described: Described, studio, character: Character | None = None, **changes) -> Tensor:
    """A picture of the described character, or of another, in its pose or with changes to that."""
    figure = Figure.of_character(character or described.character, studio)
    params = described.params.replace(**changes)
    return figure.render(figure.vertices(params), described.cameras, BACKGROUND).rgb[0, 0]


@pytest.fixture(scope="module")
def view(described, studio) -> View:
    control = (torch.zeros(SIZE, SIZE, 3), torch.tensor(1.0))
    return show_view(described, control, studio)


def wrong(picture: Tensor, view: View) -> set[str]:
    colours = measure(picture, view)["colours"]
    assert None not in colours.values()
    return {region for region, one in colours.items() if not one["right"]}


def test_the_ground_truth_scores_everything_right(view):
    figures = measure(view.rgb, view)
    assert set(figures["colours"]) == set(OWN) == set(COLOUR_OF)
    for region, one in figures["colours"].items():
        assert one["right"], region
        assert one["delta_e"] < 0.1
    assert figures["opened"] == opened(view.rgb, view)
    assert figures["opened"]["mouth"] == pytest.approx(view.driven["mouth"], abs=0.15)


def test_swapped_hues_are_wrong_and_greys_stay_right(view):
    # The beard is white, whatever order its channels have.
    assert wrong(view.rgb[..., [2, 0, 1]], view) == set(OWN) - {"beard"}


@pytest.mark.parametrize(
    ("region", "colour"), [("hair", "green"), ("lips", "orange"), ("eyes", "red")]
)
def test_another_colour_fails_exactly_its_region(view, described, studio, region, colour):
    other = recoloured(described.character, region, colour)
    picture = seen(described, studio, other)
    assert wrong(picture, view) == {region}
    assert measure(picture, view)["colours"][region]["read"] == colour


def test_a_region_that_is_not_seen_is_not_measured(described, studio):
    bald = replace(described.character, hair_style="bald")
    control = (torch.zeros(SIZE, SIZE, 3), torch.tensor(1.0))
    behind = Cameras.orbit(180.0, 0.0, 1.5, 43.0, SIZE, SIZE)
    away = show_view(
        replace(described, character=bald, cameras=behind, view="back"), control, studio
    )
    figures = measure(away.rgb, away)
    assert figures["colours"]["skin"]["right"]
    assert figures["colours"]["hair"] is None
    assert figures["colours"]["eyes"] is None
    assert figures["opened"] == {"mouth": None, "lids": None}


def test_hair_is_read_from_the_scalp_where_the_caption_does_not_say_how_it_is_worn(
    described, studio
):
    """Otherwise short hair is judged by what is seen where the ground truth's is long."""
    control = (torch.zeros(SIZE, SIZE, 3), torch.tensor(1.0))
    long = replace(described.character, hair_style="long", hair_color="black")
    asked = replace(described, character=long, named={"hair": "black"})
    strict = show_view(asked, control, studio)
    lenient = show_view(replace(asked, hair_style_told=False), control, studio)
    pixels = [int((view.labels == label("hair")).sum()) for view in (strict, lenient)]
    assert MIN_PIXELS <= pixels[1] < pixels[0] / 3

    short = replace(long, hair_style="buzz cut")
    assert wrong(seen(described, studio, short), strict) == {"hair"}
    assert wrong(seen(described, studio, short), lenient) == set()
    blonde = replace(short, hair_color="blonde")
    assert wrong(seen(described, studio, blonde), lenient) == {"hair"}


def test_a_mouth_that_stays_shut_and_eyes_that_close_show(view, described, studio):
    truth = opened(view.rgb, view)
    assert truth["mouth"] > 0.3
    assert truth["lids"] > 0.5
    names = studio.head.expression_names
    blink = torch.zeros_like(described.params.expression)
    blink[0, [names.index(f"eyeBlink{side}") for side in ("Left", "Right")]] = 1
    shut = seen(described, studio, jaw_pose=torch.zeros(1, 3), expression=blink)
    ours = opened(shut, view)
    assert ours["mouth"] < truth["mouth"] - 0.2
    assert ours["lids"] < 0.2


def test_captions_are_of_held_out_characters_seen_from_where_faces_are(studio):
    drawn = [describe(i, 0, studio.head, SIZE) for i in range(40)]
    assert all(one.character.seed >= FIRST_HELD_OUT_SEED for one in drawn)
    assert len({one.character.seed for one in drawn}) == 40
    assert all(abs(azimuth_deg(one.cameras)) <= 135 for one in drawn)
    assert {one.view for one in drawn} == {"front", "side"}
    assert all("back view" not in one.caption for one in drawn)
    again = describe(7, 0, studio.head, SIZE)
    assert again.record() == drawn[7].record()
    assert torch.equal(again.params.expression, drawn[7].params.expression)
    assert describe(7, 1, studio.head, SIZE).caption != again.caption


_WRITTEN = {
    "eyes": r"(?:^|[ ,])({}) eyes",
    "lips": r"(?:^|[ ,])({}) lip",
    "brow_color": r"(?:^|[ ,])({}) eyebrows",
    "skin": r"(?:^|[ ,])({})(?:-skinned| skin)",
}


def _said(attribute: str, name: str, text: str) -> bool:
    words = "|".join(option(attribute, name).words)
    return re.search(_WRITTEN[attribute].format(words), text) is not None


def test_named_colours_are_those_that_the_sentence_says():
    rng = np.random.default_rng(5)
    counted = dict.fromkeys(_WRITTEN, 0)
    for _ in range(400):
        character = headstudio.characters.sample_character(rng)
        text, colours, _ = caption_and_content(character, rng, "front")
        for attribute, name in colours.items():
            assert name == getattr(character, attribute)
            # The word alone: "a brunette", "a pale man".
            assert any(word in text for word in (*option(attribute, name).words, "redhead")), text
        for attribute in _WRITTEN:
            said = _said(attribute, getattr(character, attribute), text)
            counted[attribute] += said
            # "an olive woman" says the skin in no other words.
            assert said <= (attribute in colours), text
            assert said or attribute == "skin" or attribute not in colours, text
    assert min(counted.values()) > 10


def test_hair_whose_colour_goes_unsaid_is_not_named():
    blonde = Character(hair_style="long", hair_color="blonde")
    rng = np.random.default_rng(0)
    drawn = [caption_and_content(blonde, rng) for _ in range(200)]
    texts = [text for text, _, _ in drawn if "long-haired" in text and "blon" not in text]
    assert texts
    for text, colours, _ in drawn:
        named = re.search("blond|golden", text) is not None
        assert ("hair_color" in colours) == named, text


def test_it_is_known_whether_the_sentence_says_how_hair_is_worn():
    rng = np.random.default_rng(6)
    silent = re.compile(r"-haired|brunette|redhead|blonde (?!hair|bob|afro|mohawk|bun|pony)")
    told = 0
    for style in ("short", "long", "afro", "ponytail"):
        for color in ("black", "brown", "pink"):
            character = Character(hair_style=style, hair_color=color)
            for _ in range(30):
                text, colours, styled = caption_and_content(character, rng)
                if "hair_color" in colours:
                    assert styled == (silent.search(text) is None), text
                    told += styled
                else:
                    assert styled == (f"{style}-haired" in text), text
    assert 50 < told < 350


def _result(driven: float, ours: float, *right: bool | None) -> dict:
    colours = {
        region: None if one is None else {"right": one, "delta_e": 1.0}
        for region, one in zip(COLOUR_OF, right, strict=False)
    }
    figures = {"colours": colours, "opened": {"mouth": ours, "lids": None}}
    return {"driven": {"mouth": driven, "lids": None}, "figures": {"3": figures}}


def test_shares_are_over_all_colours_and_openings_over_pictures():
    results = [
        _result(0.1, 0.2, True, True),
        _result(0.2, 0.4, False, None),
        _result(0.4, 0.8, True, True),
    ]
    summary = summarise(results, "3")
    assert summary["colours"] == [4, 5]
    assert summary["by_region"]["skin"] == [2, 3]
    assert summary["by_region"]["hair"] == [2, 2]
    assert summary["unseen"] == 1
    assert summary["mouth"]["correlation"] == pytest.approx(1)
    assert summary["lids"]["correlation"] is None
    lines = table({"3": summary}).splitlines()
    assert lines[2] == "| named colours right | **80.0% (4/5)** |"
    assert "| beard | – |" in lines


@pytest.fixture
def typed(tmp_path, studio, monkeypatch):
    """The command, on the tests' characters of fewer splats, into an empty folder."""
    monkeypatch.setattr(headstudio.characters, "studio_for", lambda head: studio)
    out = tmp_path / "out"

    def run(*words: str) -> int:
        return main(
            ["bench", "prior", "--captions", "2", "--device", "cpu", "--out", str(out), *words]
        )

    return run, out


def test_the_command_draws_measures_and_goes_on(typed, capsys, monkeypatch):
    run, out = typed
    assert run("--steps", "2", "--guidance", "3") == 0
    printed = capsys.readouterr().out
    assert "| named colours right | **" in printed
    report = json.loads((out / "results.json").read_text())
    assert report["finished"] == report["of"] == 2
    summary = report["summary"]
    assert summary["3"]["colours"][1] == summary["autoencoder"]["colours"][1] > 0
    assert summary["autoencoder"]["colours"][0] >= summary["3"]["colours"][0]
    assert summary["rendered"]["colours"][0] == summary["rendered"]["colours"][1]
    named = sum(len(one["named"]) for one in report["results"])
    assert summary["3"]["colours"][1] + summary["3"]["unseen"] == named
    assert (out / "table.md").read_text() in printed
    assert (out / "sheet.png").exists()

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("what was drawn was drawn again")

    monkeypatch.setattr(samples, "sample", refuse)
    # Cut off after it was drawn: it is measured again, with the same result.
    (out / "results/0001.json").unlink()
    assert run("--steps", "2", "--guidance", "3") == 0
    assert json.loads((out / "results.json").read_text()) == report
    # Samples of other settings are not mixed in.
    assert run("--steps", "3", "--guidance", "3") == 2
    assert "other settings (steps)" in capsys.readouterr().err


def test_a_prior_that_is_not_there_is_said(typed, capsys, tmp_path):
    run, out = typed
    assert run("--prior", str(tmp_path / "none")) == 2
    assert "none" in capsys.readouterr().err
    assert not out.exists()


def test_a_small_prior_whose_pictures_show_no_region_leaves_dashes(typed, tiny_prior):
    run, out = typed
    assert run("--prior", str(tiny_prior), "--steps", "1", "--guidance", "1", "7.5") == 0
    report = json.loads((out / "results.json").read_text())
    assert set(report["summary"]) == {"1", "7.5", "autoencoder", "rendered"}
    assert report["summary"]["1"]["by_region"]["eyes"] == [0, 0]
    assert "| eyes | – | – | – | – |" in (out / "table.md").read_text()
