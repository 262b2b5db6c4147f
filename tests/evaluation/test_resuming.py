"""The benchmark goes on where it was stopped; a stand-in for launch.py counts what is trained."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from headstudio.characters import build_splats, character_shape
from headstudio.errors import HeadStudioError
from headstudio.evaluation.closed_world import Bench, Job, fingerprint
from headstudio.evaluation.stage import Stage
from headstudio.evaluation.suite import FIRST_HELD_OUT_SEED, Prompt, held_out_shape
from headstudio.evaluation.training import Trainer, flatten, gpu_argument, override
from headstudio.evaluation.truth import Truth, show_truth
from headstudio.splats import save_avatar
from threestudio.utils.config import parse_override

# What launch.py leaves behind, without the training; fails where a file FAIL lies beside it.
LAUNCH = """
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
settings = dict(a.split("=", 1) for a in sys.argv if "=" in a)
with (here / "calls.txt").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if (here / "FAIL").exists():
    sys.exit("the disk is full")
if "--train" in sys.argv:
    names = [json.loads(settings[k]) for k in ("exp_root_dir", "name", "tag")]
    run = pathlib.Path(*names)
    for part, name in (("configs", "parsed.yaml"), ("ckpts", "last.ckpt")):
        (run / part).mkdir(parents=True)
        (run / part / name).write_text("x")
else:
    run = pathlib.Path(json.loads(settings["resume"])).parents[1]
    (run / "save/it1-export").mkdir(parents=True)
    shutil.copy(here / "ready.ply", run / "save/it1-export/avatar.ply")
"""


@pytest.fixture
def prompt(character) -> Prompt:
    return Prompt("one", "human", 'a "man": tan, #1', {"skin": "tan", "hair": "red"}, character)


STAGE = Stage(size=64, azimuths_deg=tuple(45.0 * i for i in range(8)))


@pytest.fixture(scope="module")
def small_truth(character, studio) -> Truth:
    return show_truth(character, ["skin", "hair"], studio, STAGE)


@pytest.fixture
def bench(tmp_path, character, studio, talk, perceptual, small_truth, monkeypatch) -> Bench:
    monkeypatch.setattr(Bench, "_truth", lambda self, prompt: small_truth)  # made once
    head = studio.head
    (tmp_path / "launch.py").write_text(LAUNCH)
    (tmp_path / "config.yaml").write_text("name: x")
    splats = build_splats(character, head, 6000)
    shape = character_shape(character, head)
    save_avatar(tmp_path / "ready.ply", splats, head, shape, head.world_frame(1.5), "a man")
    trainer = Trainer(tmp_path / "config.yaml", "cpu", ["a.b=1"], 2, tmp_path / "launch.py")
    settings = {"overrides": list(trainer.overrides)}
    short = replace(talk, params=talk.params[::5])
    return Bench(tmp_path / "out", trainer, studio, STAGE, short, perceptual, settings)


def fresh(trainer: Trainer) -> Trainer:
    """The same for another call of the command; one that was stopped starts nothing any more."""
    return Trainer(trainer.config, trainer.device, trainer.overrides, trainer.jobs, trainer.launch)


def trained(bench: Bench) -> int:
    calls = bench.trainer.launch.with_name("calls.txt")
    lines = calls.read_text().splitlines() if calls.exists() else []
    return sum("--train" in line for line in lines)


def test_what_is_finished_is_not_done_again_and_what_is_not_is(bench, prompt):
    jobs = [Job(prompt, seed) for seed in (0, 1)]
    report = bench.run(jobs, say=lambda line: None)
    assert report["finished"] == report["of"] == 2
    assert report["summary"]["colours_right"] == 1
    assert report["results"][0]["figures"]["psnr"] > 40
    for name in ("table.md", "sheet.png"):
        assert (bench.folder / name).exists()
    text = (bench.folder / "results.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert trained(bench) == 2

    said: list[str] = []
    again = bench.run(jobs, say=said.append)
    assert trained(bench) == 2
    assert again == report
    assert said == ["2 of 2 avatars are finished already"]

    # Cut off while it was compared: the avatar is there, its figures are not.
    (bench.folder / "results/one-s1.json").unlink()
    assert bench.run(jobs, say=said.append) == report
    assert trained(bench) == 2

    # Cut off while it was trained: a folder without an avatar.
    (bench.folder / "results/one-s1.json").unlink()
    (bench.folder / "avatars/one-s1.ply").unlink()
    (bench.folder / "runs/one-s1/run/run/ckpts/last.ckpt").write_text("half")
    assert bench.run(jobs, say=said.append) == report
    assert trained(bench) == 3

    # The prompt is another now: what was made for the old one is not about it.
    other = Prompt(prompt.id, prompt.kind, "a bald man", {"skin": "tan"}, prompt.character)
    changed = bench.run([Job(other, 0)], say=said.append)
    assert trained(bench) == 4
    assert changed["results"][0]["asked"]["prompt"] == "a bald man"

    bench.settings["overrides"] = ["a.b=2"]
    with pytest.raises(HeadStudioError, match=r"other settings \(overrides\)"):
        bench.run(jobs, say=said.append)
    bench.run(jobs[:1], force=True, say=said.append)
    assert trained(bench) == 5
    assert not (bench.folder / "avatars/one-s1.ply").exists()


def test_an_avatar_that_was_not_compared_before_its_prompt_changed_is_trained_anew(
    bench, prompt, monkeypatch
):
    def cut_off(self, job, truth):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Bench, "_compare", cut_off)
        with pytest.raises(KeyboardInterrupt):
            bench.run([Job(prompt, 0)], say=lambda line: None)
    bench = replace(bench, trainer=fresh(bench.trainer))
    avatars = bench.folder / "avatars"
    # Another is put there by hand: it is compared whatever it was made from.
    shutil.copy(bench.trainer.launch.with_name("ready.ply"), avatars / "one-s1.ply")

    other = replace(prompt, prompt="a bald man")
    said: list[str] = []
    report = bench.run([Job(other, seed) for seed in (0, 1)], say=said.append)
    assert trained(bench) == 2
    assert [line for line in said if "training" in line] == ["one-s0: training, 'a bald man'"]
    assert [one["asked"]["prompt"] for one in report["results"]] == ["a bald man"] * 2


def test_an_avatar_of_a_character_without_a_mouth_is_told_and_tabled(
    bench, character, studio, monkeypatch
):
    mouthless = replace(character, lips="none")
    truth = show_truth(mouthless, ["skin"], studio, STAGE)
    monkeypatch.setattr(Bench, "_truth", lambda self, prompt: truth)
    said: list[str] = []
    prompt = Prompt("none", "mouthless", "no mouth", {"skin": "tan"}, mouthless)
    report = bench.run([Job(prompt, 0)], say=said.append)
    assert said[-1].startswith("none-s0: 1 of 1 colours right, PSNR")
    assert "talk" not in said[-1]
    assert report["summary"]["talk"] is None
    assert "–" in (bench.folder / "table.md").read_text()


def test_a_failed_training_is_said_and_leaves_nothing_half_done(bench, prompt):
    fail = bench.trainer.launch.with_name("FAIL")
    fail.touch()
    with pytest.raises(HeadStudioError, match=r"status 1; .*log\.txt ends with\s+the disk is full"):
        bench.run([Job(prompt, 0)], say=lambda line: None)
    assert not (bench.folder / "avatars").exists()
    assert not (bench.folder / "results").exists()
    # Nor does the folder of the run hold the next attempt to the same settings.
    assert any((bench.folder / "runs").iterdir())
    fail.unlink()
    trainer = replace(fresh(bench.trainer), overrides=["a.b=2"])
    again = replace(bench, trainer=trainer, settings={"overrides": list(trainer.overrides)})
    assert again.run([Job(prompt, 0)], say=lambda line: None)["finished"] == 1
    # But results do, whose avatar is gone.
    (bench.folder / "avatars/one-s0.ply").unlink()
    with pytest.raises(HeadStudioError, match=r"other settings \(overrides\)"):
        bench.run([Job(prompt, 0)], say=lambda line: None)


def test_the_command_reads_back_as_it_was_meant(bench, prompt, tmp_path):
    command = bench.trainer.train_command(prompt.prompt, 3, tmp_path / "a b")
    read = dict(parse_override(word) for word in command if "=" in word)
    assert read["system.prompt_processor.prompt"] == prompt.prompt
    assert read["seed"] == 3
    assert read["exp_root_dir"] == str((tmp_path / "a b").resolve())
    assert read["use_timestamp"] is False
    assert read["a.b"] == 1
    assert command[command.index("--gpu") + 1] == "-1"


def test_overrides_of_a_nested_configuration():
    config = {"a": {"b": 1.5, "c": {"d": "x: y"}}, "e": False, "f": [1, 2], "g": {}}
    flat = flatten(config)
    assert flat == ["a.b=1.5", 'a.c.d="x: y"', "e=false", "f=[1, 2]", "g={}"]
    assert dict(map(parse_override, flat[:4])) == {
        "a.b": 1.5, "a.c.d": "x: y", "e": False, "f": [1, 2],
    }  # fmt: skip
    assert override("a", "ü") == 'a="\\u00fc"'
    assert parse_override(override("a", "ü")) == ("a", "ü")


def test_devices():
    assert [gpu_argument(d) for d in ("cpu", "cuda", "cuda:3")] == ["-1", "0", "3"]
    for wrong in ("gpu", "cuda:x", "cuda:²", "cpu:1"):
        with pytest.raises(HeadStudioError, match="--device"):
            gpu_argument(wrong)


def test_a_fingerprint_is_of_names_and_contents(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = fingerprint(folder)
    assert fingerprint(folder) == first
    (folder / "README.md").write_text("about it")
    assert fingerprint(folder) == first
    (folder / "a").write_text("2")
    second = fingerprint(folder)
    (folder / "a").rename(folder / "b")
    assert len({first, second, fingerprint(folder)}) == 3


def test_held_out_shapes_differ():
    shapes = {held_out_shape(FIRST_HELD_OUT_SEED + i) for i in range(5)}
    assert len(shapes) == 5
    assert held_out_shape(FIRST_HELD_OUT_SEED) in shapes
