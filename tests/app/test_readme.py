"""What the README says can be done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from headstudio.flame import HeadModel
from headstudio.splats import initialise_uniform, save_avatar
from tests.app.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
CONFIGS = REPOSITORY / "custom" / "threestudio-headstudio" / "configs"


def test_the_python_example_draws_an_avatar(tmp_path, monkeypatch):
    (tmp_path / "load").symlink_to(REPOSITORY / "load")
    monkeypatch.chdir(tmp_path)
    head = HeadModel.load("load/flame/open_head.npz")
    world = head.world_frame()
    generator = torch.Generator().manual_seed(0)
    splats = initialise_uniform(
        world.to_world(head.neutral()), head.faces, 3000, generator, opacity=0.9, rgb=0.7
    )
    shape = torch.zeros(head.n_shape)
    shape[0] = 1.0
    save_avatar("avatar.ply", splats, head, shape, world, "a grey head")
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, torch.Tensor] = {}
    exec(example, names)
    picture = names["picture"]
    assert picture.shape == (256, 256, 3)
    # The head fills the middle and leaves the corners.
    assert picture[118:138, 118:138].mean() == pytest.approx(0.7, abs=0.05)
    assert picture[:20, :20].max() == 0


@pytest.mark.parametrize("name", ["headstudio.yaml", "headstudio-mini.yaml"])
def test_the_settings_it_names_exist(name):
    """Every ``key=value`` of the README is taken by the class that the configuration names."""
    from headstudio.plugin.data import HeadCameraConfig
    from threestudio.utils.config import load_config, parse_structured
    from threestudio.utils.launcher import check_parts, check_trainer_settings

    settings = re.findall(r"(?<![\w.])((?:system|data|trainer)\.[\w.]+=[^\s`]+|seed=\d+)", README)
    assert len(settings) >= 15
    for setting in settings:
        overrides = ["system.prompt_processor.prompt=x", setting.replace("=…", "=x")]
        cfg = load_config(str(CONFIGS / name), cli_args=overrides)
        check_trainer_settings(cfg)
        check_parts(cfg)
        parse_structured(HeadCameraConfig, cfg.data)


def test_the_files_it_names_exist():
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)\)", README)
    paths = [link for link in links if "://" not in link]
    paths += re.findall(r"(?:custom|tests|bench|host|load)/[\w./-]+\.(?:yaml|py|npz|md)", README)
    assert len(paths) > 8
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    for name in re.findall(r"tools\.(\w+)", README):
        assert (REPOSITORY / "tools" / f"{name}.py").is_file()


@pytest.mark.parametrize(
    "page",
    [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_the_paths_that_are_named_begin_at_the_repository(page):
    """As whoever copies one stands there; what a run leaves lies in its folder."""
    without_links = re.sub(r"\[[^\]]*\]\([^)]*\)", "", page.read_text())
    folders = "custom|configs|tests|tools|bench|host|docs"
    named = rf"(?<![\w./…*-])(?:{folders})/[\w./-]*\w(?:\.(?:yaml|py|npz|md|sh)\b|/)"
    paths = [path for path in re.findall(named, without_links) if path != "configs/parsed.yaml"]
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_the_motions_and_the_head_that_the_configurations_name_are_there():
    for name in ("headstudio.yaml", "headstudio-mini.yaml"):
        data = OmegaConf.load(CONFIGS / name).data
        for motion in data.test_motions:
            assert Path(REPOSITORY / motion).is_file()
