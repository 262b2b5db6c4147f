"""Configurations: files, references, overrides, checked dataclasses, folders."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from contract_classes import Settings
from omegaconf import OmegaConf

from threestudio.utils.config import (
    ExperimentConfig,
    config_to_primitive,
    dump_config,
    load_config,
    parse_structured,
)

RESOLVED = {
    "${calc_exp_lr_decay_rate:0.01,100}": 0.01 ** (1 / 100),
    "${add:2,3}": 5,
    "${sub:2,3}": -1,
    "${mul:2,3}": 6,
    "${div:3,2}": 1.5,
    "${idiv:7,2}": 3,
    "${basename:a/b/c.txt}": "c.txt",
    "${rmspace:${words},_}": "a_red_hat",
    "${tuple2:3}": [3.0, 3.0],
    "${gt0:-1}": False,
    "${not:${gt0:0}}": True,
    "${cmaxgt0:${short}}": True,
    "${cmaxgt0:${zero}}": False,
    "${cmaxgt0:${long}}": True,
    "${cmaxgt0orcmaxgt0:0,${short}}": True,
    "${cmaxgt0orcmaxgt0:${zero},0}": False,
    "${cmaxgt0orcmaxgt0:0,0.0}": False,
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("text", "value"), RESOLVED.items())
def test_resolvers(text: str, value: object) -> None:
    schedules = {
        "short": [0.0, 1.0, 2],
        "zero": [5, 0.0, 0.0, 10],
        "long": [0, 0.0, 0.0, 10, 3.0, 20],
    }
    cfg = OmegaConf.create({"words": "a red hat", "value": text, **schedules})
    assert config_to_primitive(cfg)["value"] == pytest.approx(value)


def test_a_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    cfg = ExperimentConfig(name="demo", tag="a_red_hat", exp_root_dir="results")
    assert re.fullmatch(r"a_red_hat@\d{8}-\d{6}", cfg.trial_name)
    assert cfg.exp_dir == os.path.join("results", "demo")
    assert cfg.trial_dir == os.path.join("results", "demo", cfg.trial_name)


def test_the_folder_without_a_timestamp() -> None:
    assert ExperimentConfig(name="demo", tag="t", use_timestamp=False).trial_dir == "outputs/demo/t"
    with pytest.raises(ValueError, match="tag"):
        ExperimentConfig(name="demo", use_timestamp=False)


def test_a_saved_configuration_leads_back_to_its_run(tmp_path: Path) -> None:
    first = load_config("name: demo\ntag: t", from_string=True)
    dump_config("parsed.yaml", first)
    again = load_config("parsed.yaml", cli_args=["resume=x.ckpt"], n_gpus=1)
    assert again.trial_dir == first.trial_dir
    assert again.resume == "x.ckpt"


def test_files_and_overrides_are_merged_in_order(tmp_path: Path) -> None:
    Path("a.yaml").write_text("name: a\ntag: t\nsystem: {x: 1, y: 2, z: '${system.x}'}\n")
    Path("b.yaml").write_text("system: {y: 3}\n")
    arguments = ["system.x=10", "data.range=[1,2]", "trainer.lr=1e-3", "seed=7"]
    cfg = load_config("a.yaml", "b.yaml", cli_args=arguments, n_gpus=1)
    assert config_to_primitive(cfg.system) == {"x": 10, "y": 3, "z": 10}
    assert config_to_primitive(cfg.data) == {"range": [1, 2]}
    assert cfg.trainer.lr == 1e-3
    assert cfg.seed == 7


def test_parse_structured() -> None:
    cfg = parse_structured(Settings, OmegaConf.create({"pair": [2, 3]}))
    assert list(cfg.pair) == [2.0, 3.0]
    assert (cfg.number, cfg.words) == (1.5, None)
    assert parse_structured(Settings, {"number": 2}).number == 2.0
    with pytest.raises((TypeError, ValueError), match="numbr"):
        parse_structured(Settings, {"numbr": 2})
    with pytest.raises(ValueError, match="many"):
        parse_structured(Settings, {"number": "many"})
