"""The two configurations: every key is known, and the paper's figures are in them."""

from __future__ import annotations

from pathlib import Path

import pytest

import headstudio.plugin
import threestudio
from headstudio.plugin.data import CloseUpConfig, HeadCameraConfig
from headstudio.splats import DensityControl
from threestudio.utils.config import load_config, parse_structured
from threestudio.utils.misc import C

CONFIGS = Path(headstudio.plugin.__file__).resolve().parents[2] / "configs"
PARTS = ("geometry", "material", "background", "renderer", "guidance", "prompt_processor")


def read(name: str, *settings: str):
    prompt = "system.prompt_processor.prompt=a man"
    return load_config(str(CONFIGS / name), cli_args=[prompt, *settings])


@pytest.mark.parametrize("name", ["headstudio.yaml", "headstudio-mini.yaml"])
def test_every_key_is_known(name):
    cfg = read(name)
    data = parse_structured(HeadCameraConfig, cfg.data)
    for close_up in data.close_ups:
        parse_structured(CloseUpConfig, close_up)
    system = threestudio.find(cfg.system_type)
    parse_structured(system.Config, cfg.system)
    for part in PARTS:
        kind = threestudio.find(cfg.system[f"{part}_type"])
        parse_structured(kind.Config, cfg.system.get(part))
    parse_structured(DensityControl.Config, cfg.system.geometry.density)
    assert data.head_model == cfg.system.geometry.head_model
    # A folder of one's own: spaces make trouble in shells.
    assert cfg.trial_name.startswith("a_man@")


def test_the_papers_settings():
    cfg = read("headstudio.yaml")
    geometry = parse_structured(threestudio.find("flame-gaussians").Config, cfg.system.geometry)
    density = parse_structured(DensityControl.Config, geometry.density)
    assert (cfg.data.batch_size, cfg.data.height, cfg.trainer.max_steps) == (8, 1024, 10000)
    assert (geometry.n_splats, geometry.shape_until_step) == (100_000, 7000)
    assert (density.start, density.end, density.interval) == (300, 2100, 300)
    assert (density.prune_only_start, density.prune_only_end) == (2400, 3300)
    loss, guidance = cfg.system.loss, cfg.system.guidance
    assert [C(loss.lambda_position, 0, step) for step in (0, 2399, 2400, 9999)] == [0, 0, 0.1, 0.1]
    assert C(loss.lambda_scaling, 0, 0) == 0.1
    assert [C(guidance.max_step_percent, 0, s) for s in (0, 2999, 3000)] == [0.98, 0.98, 0.55]
    means = cfg.system.learning_rates["geometry.splats.means"]
    rates = [C(means, 0, step, interpolation="exp") for step in (0, 1500, 3000, 9999)]
    assert rates == pytest.approx([2e-4, 2e-4 / 2**0.5, 1e-4, 1e-4])
