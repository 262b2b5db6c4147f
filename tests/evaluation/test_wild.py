"""`headstudio evaluate`: CLIP score with a tiny CLIP, and the bookkeeping of a face detector."""

from __future__ import annotations

import json

import pytest
import torch

from headstudio.app import main as app
from headstudio.errors import HeadStudioError
from headstudio.evaluation import faces, wild
from headstudio.evaluation.clip import ClipScorer
from headstudio.evaluation.stage import Figure
from headstudio.splats import save_avatar
from tests.fixtures.tiny_clip import make_tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def avatar(tmp_path_factory, character, studio):
    figure = Figure.of_character(character, studio)
    path = tmp_path_factory.mktemp("avatar") / "avatar.ply"
    save_avatar(path, figure.splats, figure.head, figure.shape, figure.frame, "a tan man")
    return path


def test_the_clip_score_is_the_cosine_of_the_embeddings(clip):
    from transformers import CLIPModel, CLIPProcessor

    pictures = torch.rand(5, 40, 40, 3, generator=torch.Generator().manual_seed(0))
    pictures = (pictures * 255).round() / 255
    model, processor = CLIPModel.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)
    cosines = {}
    for text in ("a man", "red hair", "blue eyes", "old"):
        given = processor(
            text=[text] * 5,
            images=[(p * 255).to(torch.uint8).movedim(-1, 0) for p in pictures],
            return_tensors="pt",
            padding=True,
        )
        with torch.no_grad():
            out = model(**given)
        cosines[text] = float((out.image_embeds * out.text_embeds).sum(-1).mean())
    assert max(cosines.values()) > 0 > min(cosines.values())
    scorer = ClipScorer(clip)
    for text, cosine in cosines.items():
        assert scorer(pictures, text, batch=2) == pytest.approx(max(100 * cosine, 0), abs=1e-3)


def test_a_clip_that_is_not_there_is_said(tmp_path):
    with pytest.raises(HeadStudioError, match=r"cannot load the CLIP(.|\n)*preprocessor_config"):
        ClipScorer(tmp_path)


def test_detections_are_compared_in_units_of_the_eyes_distance():
    numbers = sorted({i for group in faces.landmark_groups().values() for i in group})
    where = 100 * torch.rand(3, 478, 2, generator=torch.Generator().manual_seed(0))
    where[:, 33] = torch.tensor([10.0, 50.0])
    where[:, 263] = torch.tensor([60.0, 50.0])  # 50 px apart
    driven = {i: where[:, i] for i in numbers}
    visible = torch.ones(3, len(numbers), dtype=torch.bool)
    shifted = where + torch.tensor([3.0, 4.0])  # 5 px
    report = faces.compare([shifted[0], None, shifted[2]], driven, visible)
    assert report["pictures"] == 3
    assert report["rate"] == pytest.approx(2 / 3)
    assert report["error"] == pytest.approx(0.1, abs=1e-5)
    assert report["error_by_feature"]["lips"] == pytest.approx(0.1, abs=1e-5)

    # A landmark that is hidden does not count, however far off.
    shifted[0, 61] += 1000
    visible[:, numbers.index(61)] = False
    again = faces.compare([shifted[0], None, shifted[2]], driven, visible)
    assert again["error"] == pytest.approx(0.1, abs=1e-5)

    nothing = faces.compare([None] * 3, driven, visible)
    assert nothing["rate"] == 0
    assert nothing["error"] is None


def test_a_real_detector_finds_the_face_where_it_was_driven(character, studio):
    pytest.importorskip("mediapipe", reason="the extra [detect] is not installed")
    figure = Figure.of_character(character, studio)
    one = wild.fronts(figure, wild.Views(size=384), ["jawOpen"])["jawOpen"]
    with faces.FaceDetector() as detector:
        report = faces.compare(detector(one.pictures), one.driven, one.visible)
    assert report["rate"] == 1
    assert report["error"] < 0.1


def test_the_command(clip, avatar, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(faces, "is_available", lambda: False)
    words = ["evaluate", str(avatar), "--clip", str(clip), "--views", "5", "--size", "64"]
    words += ["--out", str(tmp_path), "--expressions", "neutral", "smile 0.5"]
    assert app.main(words) == 0
    said = capsys.readouterr().out
    assert "CLIP score" in said
    assert "no face detector: pip install" in said
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["prompt"] == "a tan man"
    assert report["views"] == 5
    assert set(report["clip"]["expressions"]) == {"neutral", "smile 0.5"}
    assert report["faces"] is None
    assert (tmp_path / "evaluation.png").exists()

    assert app.main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert app.main([*words, "--detect", "always"]) == 2
    assert "needs mediapipe" in capsys.readouterr().err


def test_an_avatar_without_a_prompt_is_not_scored_for_nothing(
    clip, character, studio, tmp_path, capsys, monkeypatch
):
    """A CLIP takes an empty sentence too, and gives it some score."""
    figure = Figure.of_character(character, studio)
    path = tmp_path / "avatar.ply"
    save_avatar(path, figure.splats, figure.head, figure.shape, figure.frame, " ")
    words = ["evaluate", str(path), "--views", "1", "--size", "64", "--expressions", "neutral"]
    words += ["--detect", "never"]
    with monkeypatch.context() as unrendered:
        unrendered.setattr(wild, "turntable", None)
        assert app.main([*words, "--clip", str(clip)]) == 2
    assert "say with --prompt what the avatar should be" in capsys.readouterr().err
    report = tmp_path / "evaluation/evaluation.json"
    assert not report.exists()
    assert app.main([*words, "--clip", "none"]) == 0
    assert json.loads(report.read_text())["clip"] is None
    assert app.main([*words, "--clip", str(clip), "--prompt", "a man", "--force"]) == 0
    assert json.loads(report.read_text())["prompt"] == "a man"


def test_the_turntable_begins_at_the_front_and_goes_around(character, studio):
    figure = Figure.of_character(character, studio)
    views = wild.Views(count=9, size=48)
    done: list[int] = []
    pictures = wild.turntable(figure, views, done.append)
    assert pictures.shape == (9, 48, 48, 3)
    assert done == [8, 9]
    fronts = wild.fronts(figure, views, ["neutral"])["neutral"]
    torch.testing.assert_close(pictures[0], fronts.pictures[2])
    assert (pictures[0] - pictures[4]).abs().mean() > 0.01


@pytest.mark.parametrize("content", ["nothing", "unfinished"])
def test_a_run_that_is_none_is_said(content, tmp_path, capsys):
    run = tmp_path / "run"
    if content == "unfinished":
        run.mkdir()
    assert app.main(["evaluate", str(run), "--clip", "none"]) == 2
    expected = {"nothing": "does not exist", "unfinished": "no finished run"}[content]
    assert expected in capsys.readouterr().err
