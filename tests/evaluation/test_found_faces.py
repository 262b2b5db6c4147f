"""`headstudio bench faces`: a detector's opinion of all avatars of a benchmark."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from headstudio.app import main as app
from headstudio.errors import HeadStudioError
from headstudio.evaluation import faces
from headstudio.evaluation.found_faces import FACES, compared, faces_table, find_faces
from headstudio.evaluation.stage import Figure
from headstudio.evaluation.suite import Prompt
from headstudio.evaluation.wild import Views
from headstudio.splats import save_avatar

VIEWS = Views(size=64)


@pytest.fixture
def folder(tmp_path, character, studio):
    """A tan man and a blue one; a warrior who is tan beneath his paint."""
    people = {
        "tan": character,
        "blue": replace(character, skin="blue"),
        "warrior": replace(character, paint="warrior"),
    }
    for part in ("results", "avatars"):
        (tmp_path / part).mkdir()
    for name, one in people.items():
        figure = Figure.of_character(one, studio)
        path = tmp_path / "avatars" / f"{name}-s0.ply"
        save_avatar(path, figure.splats, figure.head, figure.shape, figure.frame, name)
        kind = "human" if name == "tan" else "fantasy"
        asked = Prompt(name, kind, name, {}, one).record()
        result = {"id": name, "seed": 0, "kind": kind, "asked": asked}
        (tmp_path / "results" / f"{name}-s0.json").write_text(json.dumps(result))
    return tmp_path


def finds_no_blue_faces(pictures):
    """Landmarks in the picture's middle, where there is no blue cheek beside it."""
    half = pictures.shape[1] // 2
    cheeks = pictures[:, half - 4 : half + 4, half - 4 : half + 4].mean((1, 2))
    return [
        None if blue > red else torch.full((478, 2), float(half))
        for red, _, blue in cheeks.tolist()
    ]


def test_every_avatar_is_asked_of_and_grouped(folder, studio):
    said: list[str] = []
    report = find_faces(folder, studio.head, finds_no_blue_faces, VIEWS, said.append)
    assert json.loads((folder / FACES).read_text()) == report
    rates = {one["id"]: one["rate"] for one in report["avatars"]}
    assert rates == {"blue": 0, "tan": 1, "warrior": 1}
    assert said[0] == "blue-s0: a face in 0% of 20 pictures"
    groups = report["summary"]
    assert {name: one["avatars"] for name, one in groups.items()} == {
        "human": 1, "fantasy": 2, "human-coloured": 1, "all": 3,
    }  # fmt: skip
    assert groups["fantasy"]["rate"] == 0.5
    assert groups["all"]["neutral"] == pytest.approx(2 / 3)
    assert groups["human-coloured"]["error"] > 0.1
    table = faces_table(groups)
    assert "| human | 1 | 20 | 100% | 100% | " in table
    assert "| fantasy | 2 | 40 | 50% | 50% | " in table


def test_where_no_face_is_found_there_is_no_error(folder, studio):
    report = find_faces(folder, studio.head, lambda p: [None] * len(p), VIEWS, lambda line: None)
    assert report["summary"]["all"] == {
        "avatars": 3, "pictures": 60, "rate": 0, "neutral": 0, "error": None,
    }  # fmt: skip
    assert "–" in faces_table(report["summary"])


def test_the_command_says_what_is_missing(folder, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setattr(faces, "is_available", lambda: False)
    assert app.main(["bench", "faces", str(folder)]) == 2
    assert 'needs mediapipe: pip install -e ".[detect]"' in capsys.readouterr().err
    with pytest.raises(HeadStudioError, match="has no results of an avatar"):
        compared(tmp_path_factory.mktemp("empty"))
    (folder / "avatars/blue-s0.ply").unlink()
    assert app.main(["bench", "faces", str(folder)]) == 2
    assert "blue-s0.ply is gone; remove blue-s0.json" in capsys.readouterr().err
    assert not (folder / FACES).exists()


def test_a_real_detector_finds_the_faces(folder, capsys):
    pytest.importorskip("mediapipe", reason="the extra [detect] is not installed")
    assert app.main(["bench", "faces", str(folder), "--size", "256"]) == 0
    assert "tan-s0: a face in" in capsys.readouterr().out
    human = json.loads((folder / FACES).read_text())["summary"]["human"]
    assert human["rate"] >= 0.8
    assert human["error"] < 0.1
