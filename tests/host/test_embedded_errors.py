"""What is typed wrongly is answered with one sentence, status 2 and an untouched folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SD = "system.prompt_processor_type=stable-diffusion-prompt-processor"

WRONG = {
    "an unknown section": (["sistem.x=1"], "did you mean 'system'"),
    "an unknown setting of the system": (["system.targt=1"], "did you mean 'target'"),
    "an unknown setting of a part": (["system.material.colour_activation=exp"], "color_activation"),
    "an unknown setting of the data": (["data.hight=3"], "did you mean 'height'"),
    "an unknown setting of the trainer": (["trainer.max_stepz=3"], "did you mean 'max_steps'"),
    "a setting that is not for the config": (["trainer.devices=3"], "--gpu"),
    "an unknown class": (["system.geometry_type=toy-geometri"], "did you mean 'toy-geometry'"),
    "no class": (["system.renderer_type=''", "tag=t"], "which class to use"),
    "a wrong type": (["data.n_test_views=many"], "n_test_views"),
    "sizes that do not fit": (["data.height=[8,16]"], "resolution_milestones"),
    "an empty prompt": ([SD, "system.prompt_processor.prompt="], "prompt is empty"),
    "a blank prompt": ([SD, "system.prompt_processor.prompt='  '"], "prompt is empty"),
    "a value that is not given": (["system.target=${system.other}"], "system.other"),
    "no equals sign": (["system.target"], "key=value"),
    "no checkpoint there": (["resume=nowhere/last.ckpt"], "nowhere/last.ckpt does not exist"),
    "an unwritable folder": (["exp_root_dir=toy.yaml/x"], "toy.yaml is not a folder"),
    "an unknown part to learn": (["system.optimizer.params={geometri: {lr: 1}}"], "geometry"),
    "an unknown optimizer": (["system.optimizer.name=Adams"], "did you mean 'Adam'"),
    "an unknown argument of it": (["system.optimizer.args.lrr=1"], "lrr"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_one_sentence_and_nothing_written(
    wrong: str,
    launch: Callable[..., int],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, expected = WRONG[wrong]
    assert launch("--config", "toy.yaml", "--train", *arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert expected in said
    assert not any(path.is_file() for path in workplace.glob("outputs/**/*"))
    assert not list(workplace.glob("outputs/toy/*"))


def test_a_traceback_is_shown_when_asked_for(
    launch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("--config", "toy.yaml", "--train", "system.targt=1") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert launch("--config", "toy.yaml", "--train", "--verbose", "system.targt=1") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_or_broken_configuration(
    launch: Callable[..., int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("--config", "toys.yaml", "--train") == 2
    assert "toys.yaml cannot be read" in capsys.readouterr().err
    (workplace / "broken.yaml").write_text("a: [1\nb: {")
    assert launch("--config", "broken.yaml", "--train") == 2
    assert "YAML" in capsys.readouterr().err
    (workplace / "asks.yaml").write_text("name: ???\n")
    assert launch("--config", "asks.yaml", "--train") == 2
    assert "name=" in capsys.readouterr().err


def test_errors_of_the_library_are_for_the_user_too(
    launch: Callable[..., int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extension = workplace / "custom" / "toy" / "__init__.py"
    learned = "self.colour = nn"
    raises = f"raise HeadStudioError('the head is damaged')\n        {learned}"
    source = extension.read_text().replace(learned, raises)
    extension.write_text("from headstudio.errors import HeadStudioError\n" + source)
    assert launch("--config", "toy.yaml", "--train") == 2
    assert "error: the head is damaged" in capsys.readouterr().err


def test_a_false_start_of_a_resumed_run_keeps_what_was_there(launch: Callable[..., int]) -> None:
    fixed = ("use_timestamp=false", "tag=run")
    assert launch("--config", "toy.yaml", "--train", *fixed) == 0
    before = sorted(Path("outputs/toy/run").rglob("*.p*"))
    assert launch("--config", "toy.yaml", "--train", *fixed, "system.optimizer.name=Adams") == 2
    assert sorted(Path("outputs/toy/run").rglob("*.p*")) == before


class Payload:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("content", ["garbage", "payload", "other"])
def test_a_checkpoint_is_only_read(
    content: str,
    launch: Callable[..., int],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content == "garbage":
        Path("x.ckpt").write_bytes(b"not a checkpoint")
    else:
        torch.save({"state_dict": Payload() if content == "payload" else {}}, "x.ckpt")
    for task in ("--train", "--export"):
        assert launch("--config", "toy.yaml", task, "resume=x.ckpt") == 2
        assert "x.ckpt" in capsys.readouterr().err
    assert not Path("executed").exists()
    assert not Path("outputs").exists()


def test_an_extension_that_cannot_be_imported(
    launch: Callable[..., int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = workplace / "custom" / "broken.py"
    broken.write_text("import a_module_that_is_nowhere\n")
    assert launch("--config", "toy.yaml", "--train") == 2
    said = capsys.readouterr().err
    assert "broken.py" in said
    assert "a_module_that_is_nowhere" in said
    assert "broken" not in sys.modules
    broken.rename(workplace / "custom" / "broken_disabled.py")
    assert launch("--config", "toy.yaml", "--train", "trainer.max_steps=1") == 0
