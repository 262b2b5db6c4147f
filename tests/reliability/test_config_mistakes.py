"""Every mistake in a configuration is reported, all at once, before anything is loaded."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import headstudio.plugin  # noqa: F401  (registers the classes)
from headstudio.app.main import main
from headstudio.errors import HeadStudioError
from headstudio.plugin import FlameControlNetGuidance, FlameGaussians, config_check
from headstudio.settings import Valid, check_all, setting
from tests.end_to_end.conftest import MINI
from tests.fixtures import bad_inputs_table
from tests.fixtures.bad_configs import CASES
from threestudio.utils.config import merge_config

PROMPT = "system.prompt_processor.prompt=red hair"
CONFIGS = sorted(MINI.parent.glob("*.yaml"))


@functools.cache
def _read(config: Path) -> DictConfig:
    return merge_config(str(config))


def problems(*settings: str, config: Path = MINI) -> dict[str, str]:
    typed = merge_config("{}", from_string=True, cli_args=[PROMPT, *settings])
    merged = OmegaConf.merge(_read(config), typed)
    return {problem.path: problem.text for problem in config_check.check_experiment(merged)}


@pytest.mark.parametrize("name", CASES)
def test_the_mistake_is_named_by_its_path(name: str) -> None:
    case = CASES[name]
    found = problems(*case.settings)
    assert case.path in found, found
    assert case.says in found[case.path]
    assert not case.alone or list(found) == [case.path]


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ("system.guidance_type=stable-diffusion-vsd-guidance", "."),  # as in configs/mixing/
        ("system.guidance_type=stable-diffusion-prompt-processr", "."),
        ("system.geometry_type=flame-gausians", "; did you mean 'flame-gaussians'?"),
        ("system.geometry_type=headstudio-sistem", "."),
    ],
)
def test_only_classes_of_the_right_kind_are_suggested(setting: str, near: str) -> None:
    path, _, name = setting.partition("=")
    text = problems(setting)[path]
    assert text.startswith(f"is {name!r}, which is not registered{near} Registered are: avatar-")
    assert text.endswith("in a checkout of it (docs/threestudio.md)")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_our_own_configurations_have_none(config: Path) -> None:
    assert problems(config=config) == {}


def test_good_settings_are_not_refused() -> None:
    assert (
        problems(
            *("data.batch_size=[1,2]", "data.height=[16,32]", "data.width=[16,32]"),
            *("data.resolution_milestones=[10]", "system.guidance.grad_clip=[0,0.5,1,100]"),
            *("system.exporter.formats=[avatar,glb]", "system.exporter.motion=a.npz"),
            *("system.geometry.region_weights={lips: 0, iris: 8}", "resume=auto", "seed=7"),
            *("system.loss.lambda_position=[10,0.0,1.0,20]", "checkpoint.every_n_minutes=5"),
            *("trainer.precision=16-mixed", "system.loggers={wandb: false}"),
            *("data.motions=null", "data.training_with_animation=false"),
            "data.test_motions=[a.npz]",
        )
        == {}
    )


def test_all_are_reported_at_once(launch: Callable[..., int], training, tmp_path, capsys) -> None:
    """By launch.py too, with nothing written."""
    wrong = ["system.geometry.n_splat=5", "data.fovy_range=[60,40]", "seed=often", "trainer.x=1"]
    wrong += ["system.guidance.method=vsd", "system.renderer_type=gsplat-render"]
    assert launch(*training, f"exp_root_dir={tmp_path / 'outputs'}", *wrong) == 2
    error = capsys.readouterr().err
    assert "the configuration has 6 mistakes:" in error
    for path in ("system.geometry.n_splat ", "data.fovy_range ", "seed ", "trainer.x "):
        assert f"\n  {path}" in error
    assert "Traceback" not in error
    assert not (tmp_path / "outputs").exists()


def test_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a head nor a prior, nor any file they are in."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr("headstudio.flame.HeadModel.load", refuse)
    monkeypatch.setattr("headstudio.guidance.DiffusionPrior.from_pretrained", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert list(problems("system.geometry.head_model=nowhere.npz", "sede=1")) == ["sede"]


def test_the_doctor_checks_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(MINI), PROMPT]) == 0
    assert "no mistakes" in capsys.readouterr().out
    assert main(["doctor", str(MINI), PROMPT, "sede=1", "seed=-1"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "sede does not exist; did you mean 'seed'?"
    assert "2 mistakes" in out
    assert main(["doctor", "--json", str(MINI), PROMPT, "sede=1"]) == 1
    assert json.loads(capsys.readouterr().out)["mistakes"][0][0] == "sede"
    assert main(["doctor", "nowhere.yaml"]) == 2
    assert "nowhere.yaml cannot be read" in capsys.readouterr().err


def test_a_class_checks_itself_where_nobody_asks() -> None:
    """Under threestudio itself nothing looks at the whole: each class says all that is wrong."""
    with pytest.raises(HeadStudioError) as error:
        FlameGaussians.Config(n_splats=0, extent=-1.0)
    assert "system.geometry.n_splats" in str(error.value)
    assert "system.geometry.extent" in str(error.value)
    with pytest.raises(HeadStudioError, match=r"system\.guidance\.method is 'vsd'"):
        FlameControlNetGuidance.Config(method="vsd")
    with pytest.raises(HeadStudioError, match=r"system\.geometry\.initial_shape is nan"):
        FlameGaussians.Config(initial_shape=[float("nan")])


def test_ranges() -> None:
    @dataclasses.dataclass
    class Config:
        rate: float = setting(0.5, above=0, at_most=1)

    check_all(Config(), "here")
    for wrong in (0, 1.5, float("nan"), float("inf")):
        with pytest.raises(HeadStudioError, match=r"here\.rate is"):
            check_all(Config(rate=wrong), "here")
    assert Valid(schedule=True, at_least=0).problem([5, 0.0, 1.0, 9, 0.5, 12]) is None
    assert Valid(schedule=True, at_least=0).problem([5, 0.0, 1.0, 9, -0.5, 12]) is not None
    assert Valid(pair=True).problem([1, float("nan")]) is not None
    assert Valid(one_of=("a",)).problem(None) is None


def test_a_last_run_that_there_is_not(launch: Callable[..., int], training, capsys) -> None:
    assert launch(*training, "system.weights=nowhere@LAST/last.ckpt") == 2
    error = capsys.readouterr().err
    assert "nothing is found for nowhere@LAST/last.ckpt" in error
    assert "Traceback" not in error


def test_what_lightning_refuses_is_a_mistake(toy: Callable[..., int], capsys, tmp_path) -> None:
    """Where nothing of ours looks: the host's own systems."""
    for wrong, says in (
        ("trainer.strategy=abc", "the trainer cannot be made"),
        ("checkpoint.save_top_k=2", "the trainer cannot be made"),
        ("system.loggers={wandb: 5}", "system.loggers.wandb is 5"),
        ("data.height=2.5", "whole numbers"),
    ):
        assert toy(wrong) == 2, wrong
        error = capsys.readouterr().err
        assert says in error
        assert "Traceback" not in error
    assert not (tmp_path / "outputs").exists()


def test_the_documented_table_is_what_is_tried() -> None:
    page = bad_inputs_table.PAGE.read_text(encoding="utf-8")
    table = bad_inputs_table.rows()
    assert len(set(table)) == len(table) >= 100
    assert bad_inputs_table.section() in page, "run: python -m tests.fixtures.bad_inputs_table"
