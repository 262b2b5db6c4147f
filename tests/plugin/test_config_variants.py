"""The variants of headstudio.yaml: they are it, but for what they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import headstudio.plugin

CONFIGS = Path(headstudio.plugin.__file__).resolve().parents[2] / "configs"
MIXING = sorted(path.stem for path in (CONFIGS / "mixing").glob("*.yaml"))
# What the losses of each guidance are called.
LOSSES = {
    "stable-diffusion": {"lambda_sds"},
    "vsd": {"lambda_vsd", "lambda_lora"},
    "unified": {"lambda_sd", "lambda_sd_img", "lambda_train_phi"},
    "sdi": {"lambda_sdi"},
    "controlnet": {"lambda_sds"},
}


def read(name: str) -> dict[str, Any]:
    read = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"), resolve=False)
    assert isinstance(read, dict)
    return read


def test_24gb_differs_in_how_much_is_done_at_once():
    paper, lean = read("headstudio"), read("headstudio-24gb")
    assert lean["system"]["guidance"].pop("views_at_once") == 1
    assert lean.pop("name") == "headstudio-24gb"
    assert paper.pop("name") == "headstudio"
    assert lean == paper


def test_there_is_one_for_each_guidance():
    assert set(MIXING) == set(LOSSES)


@pytest.mark.parametrize("name", MIXING)
def test_mixing_changes_the_guidance_and_its_keys_alone(name):
    paper, mixed = read("headstudio"), read(f"mixing/{name}")
    assert mixed.pop("name") == f"headstudio-{name}"
    paper.pop("name")
    ours, theirs = paper["system"], mixed["system"]
    for key in ("guidance_type", "guidance"):
        assert theirs.pop(key) != ours.pop(key)
    # What goes with it: no landmarks and previews, its losses, what it learns.
    assert (theirs.pop("use_control"), theirs.pop("preview_interval")) == (False, 0)
    ours.pop("use_control"), ours.pop("preview_interval")
    assert {key for key in LOSSES[name] if theirs["loss"].pop(key) > 0} == LOSSES[name]
    assert ours["loss"].pop("lambda_sds") == 1
    learned = theirs["optimizer"]["params"].pop("guidance", None)
    assert learned == ({"lr": 1e-4} if name == "vsd" else None)
    assert mixed == paper
