"""Names, clocks and configured objects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract_classes import Configured, Weighted
from omegaconf import OmegaConf
from packaging.version import Version
from torch import nn

import threestudio
from threestudio.utils.base import (
    BaseModule,
    BaseObject,
    Updateable,
    update_end_if_possible,
    update_if_possible,
)


def test_version_and_logging() -> None:
    assert Version(threestudio.__version__) >= Version("0.2.3")
    for speak in (threestudio.debug, threestudio.info, threestudio.warn):
        speak("said by a test")


def test_a_registered_class_is_found(registry) -> None:
    @threestudio.register("contract-thing")
    class Thing:
        pass

    assert threestudio.find("contract-thing") is Thing
    assert threestudio.__modules__["contract-thing"] is Thing


def test_a_taken_name_is_an_error(registry) -> None:
    threestudio.register("contract-taken")(dict)
    with pytest.raises(ValueError, match="contract-taken"):
        threestudio.register("contract-taken")(list)
    assert threestudio.find("contract-taken") is dict


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="contract-nothing"):
        threestudio.find("contract-nothing")


def test_mixins_come_before_the_main_class_in_the_given_order(registry) -> None:
    @threestudio.register("contract-main")
    class Main:
        who = "main"
        only_main = True

    @threestudio.register("contract-first")
    class First:
        who = "first"

    @threestudio.register("contract-second")
    class Second:
        who = "second"
        only_second = True

    mixed = threestudio.find("contract-main:contract-first,contract-second")
    assert mixed.__mro__[1:4] == (First, Second, Main)
    assert (mixed.who, mixed.only_main, mixed.only_second) == ("first", True, True)
    assert threestudio.find("contract-main:contract-second").who == "second"


class Clock(nn.Module, Updateable):
    """Writes down what it hears, after its parts."""

    def __init__(self, log: list, name: str, **parts: object) -> None:
        super().__init__()
        self.log, self.name = log, name
        for key, part in parts.items():
            setattr(self, key, part)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.log.append((self.name, epoch, global_step, on_load_weights))

    def update_step_end(self, epoch: int, global_step: int) -> None:
        self.log.append((self.name, epoch, global_step, "end"))


def test_parts_hear_of_a_step_before_their_owner() -> None:
    log: list = []
    inner = Clock(log, "inner")
    part, hidden = Clock(log, "part", inner=inner), Clock(log, "hidden")
    owner = Clock(log, "owner", part=part, other=3, _hidden=hidden)
    update_if_possible(owner, 1, 20)
    assert log == [(name, 1, 20, False) for name in ("inner", "part", "owner")]
    log.clear()
    owner.do_update_step(1, 20, on_load_weights=True)
    assert log == [(name, 1, 20, True) for name in ("inner", "part", "owner")]
    log.clear()
    update_end_if_possible(owner, 2, 30)
    assert log == [(name, 2, 30, "end") for name in ("inner", "part", "owner")]
    update_if_possible(object(), 0, 0)
    update_end_if_possible(object(), 0, 0)


@pytest.mark.parametrize("base", [BaseObject, BaseModule])
def test_a_config_is_parsed_before_configure(base) -> None:
    made = Configured[base]({"size": 3}, "positional", named=True)
    assert made.cfg.size == 3
    assert made.cfg.name == "default"
    assert made.heard == (3, ("positional",), {"named": True})
    assert isinstance(made.device, torch.device)
    assert Configured[base](OmegaConf.create({"name": "x"})).cfg.name == "x"


@pytest.mark.parametrize("base", [BaseObject, BaseModule])
def test_an_unknown_key_is_an_error(base) -> None:
    with pytest.raises((TypeError, ValueError), match="sizes"):
        Configured[base]({"sizes": 3})


def test_a_module_starts_from_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    weight = torch.randn(2, 3)
    state = {"geometry.linear.weight": weight, "geometry_other.linear.weight": torch.zeros(2, 3)}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "epoch": 2, "global_step": 70}, path)
    module = Weighted({"weights": f"{path}:geometry"})
    torch.testing.assert_close(module.linear.weight.data, weight)
    assert module.heard == (2, 70, True)
    assert Weighted({}).heard is None
