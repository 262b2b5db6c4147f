"""Each ablation changes what it says, in both configurations, by the host's own means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from headstudio.app import bench
from headstudio.app import main as app
from headstudio.errors import HeadStudioError
from headstudio.evaluation.ablations import (
    BEGIN,
    END,
    check_settings,
    load_ablations,
    picture,
    write_between,
)
from headstudio.evaluation.summary import contact_row
from headstudio.render.pictures import save_png
from threestudio.utils.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs/ablations"
CONFIGS = [
    ROOT / "custom/threestudio-headstudio/configs" / name
    for name in ("headstudio.yaml", "headstudio-mini.yaml")
]
EXPECTED = {
    "no-super-dense": {"system.geometry.initialisation": "per-triangle"},
    "no-regularisation": {"system.loss.lambda_position": 0, "system.loss.lambda_scaling": 0},
    "tau-0.25": {"system.regulariser_threshold": 0.25},
    "tau-0.5": {"system.regulariser_threshold": 0.5},
    "tau-1": {"system.regulariser_threshold": 1},
    "no-animation": {"data.training_with_animation": False},
    "no-landmarks": {"system.use_control": False},
    "sds": {"system.guidance.method": "sds"},
    "no-shape": {"system.geometry.learn_shape": False},
}


def settings(cfg, prefix=""):
    """All leaves of a configuration by their dotted key."""
    if not isinstance(cfg, dict):
        return {prefix: cfg}
    found = {}
    for key, value in cfg.items():
        found |= settings(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def test_there_are_those_of_the_paper():
    assert {one.name for one in load_ablations(FOLDER)} == set(EXPECTED)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", EXPECTED)
def test_it_changes_what_it_says_and_nothing_else(name, config):
    (ablation,) = load_ablations(FOLDER, [name])
    prompt = ["system.prompt_processor.prompt=a man", "timestamp=now"]
    plain = load_config(str(config), cli_args=prompt)
    laid_over = load_config(str(config), str(FOLDER / f"{name}.yaml"), cli_args=prompt)
    by_command = load_config(str(config), cli_args=[*prompt, *ablation.overrides()])
    before, over, typed = (
        settings(OmegaConf.to_container(cfg)) for cfg in (plain, laid_over, by_command)
    )
    changed = {key: value for key, value in typed.items() if before.get(key) != value}
    kept = {key for key, value in EXPECTED[name].items() if before.get(key) == value}
    assert changed == {key: v for key, v in EXPECTED[name].items() if key not in kept}
    assert over.pop("description") == ablation.description
    assert typed.pop("description") == ""
    assert over == typed
    assert (name == "tau-0.5") == (not changed)
    raw = OmegaConf.to_container(OmegaConf.load(config), resolve=False)
    assert ablation.changes_anything(raw) == bool(changed)


def test_a_setting_for_all_does_not_undo_an_ablation(tmp_path, capsys, monkeypatch):
    """It would be trained without its change, and told of as if with it."""
    monkeypatch.setattr(bench, "make_bench", None)
    words = ["bench", "ablations", "--out", str(tmp_path / "out"), "--set", "trainer.max_steps=1"]
    assert app.main([*words, "system.regulariser_threshold=1"]) == 2
    said = capsys.readouterr().err
    assert "system.regulariser_threshold is what tau-0.25, tau-0.5, tau-1 would change" in said
    assert not (tmp_path / "out").exists()

    every = load_ablations(FOLDER)
    for key in ("system.loss", "system[loss][lambda_scaling]", "system.loss.lambda_position.x"):
        with pytest.raises(HeadStudioError, match="is what no-regularisation would change"):
            check_settings(every, [f"{key}=0"])
    check_settings(every, ["trainer.max_steps=1", "system.loss.lambda_sparsity=1", "system.a=1"])
    others = [one for one in every if not one.name.startswith("tau")]
    check_settings(others, ["system.regulariser_threshold=1"])


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(HeadStudioError, match="holds no ablations"):
        load_ablations(tmp_path)
    with pytest.raises(HeadStudioError, match="did you mean 'sds'"):
        load_ablations(FOLDER, ["sd"])
    for text, message in (
        ("description: nothing\n", "at least one setting"),
        ("system: {use_control: false}\n", "a description"),
        ("- 1\n", "holds no settings"),
        ("a: [", "no configuration"),
    ):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(HeadStudioError, match=message):
            load_ablations(tmp_path)


def test_the_page_is_written_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between(page, "| a |\n")
    write_between(page, "| b |\n")
    assert page.read_text() == f"# Before\n{BEGIN}\n| b |\n{END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(HeadStudioError, match="no lines"):
        write_between(page, "x")
    assert page.read_text() == "no markers"


def test_the_picture_shows_front_and_open_jaw_of_ours(tmp_path):
    size = 32
    ours = torch.zeros(4, 8, size, size, 3)
    ours[0, 0, ..., 0], ours[1, 0, ..., 1] = 1, 1  # front red, open jaw green
    save_png(tmp_path / "a.png", contact_row("a man", ours, torch.ones_like(ours)))
    rows = picture({"as it is": [tmp_path / "a.png"] * 2, "changed": [tmp_path / "a.png"] * 2})
    assert rows.shape == (2 * size, 5 * size, 3)
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    assert torch.equal(rows[size // 2, size + size // 2 :: size], expected)
