"""Systems: their parts, their hooks, their optimisers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import nn

import threestudio
from threestudio.systems.utils import parse_optimizer, parse_scheduler
from threestudio.utils.config import load_config


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.geometry = nn.ModuleDict({"head": nn.Linear(2, 3), "hair": nn.Linear(2, 1)})
        self.colour = nn.Parameter(torch.zeros(3))


def test_an_optimizer_for_all() -> None:
    cfg = OmegaConf.create({"name": "AdamW", "args": {"lr": 0.3, "betas": [0.8, 0.9]}})
    optimizer = parse_optimizer(cfg, Model())
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 5
    assert (group["lr"], tuple(group["betas"])) == (0.3, (0.8, 0.9))


def test_groups_are_named_by_their_path() -> None:
    model = Model()
    cfg = OmegaConf.create(
        {
            "name": "Adam",
            "args": {"lr": 0.3, "eps": 1e-15},
            "params": {"geometry.head": {"lr": 0.1}, "colour": {}, "geometry.hair.bias": {"lr": 2}},
        }
    )
    groups = parse_optimizer(cfg, model).param_groups
    assert [g["name"] for g in groups] == ["geometry.head", "colour", "geometry.hair.bias"]
    assert [g["lr"] for g in groups] == [0.1, 0.3, 2]
    assert [len(g["params"]) for g in groups] == [2, 1, 1]
    assert groups[1]["params"][0] is model.colour
    assert {g["eps"] for g in groups} == {1e-15}


def test_a_schedule() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cfg = OmegaConf.create({"name": "ExponentialLR", "interval": "step", "args": {"gamma": 0.5}})
    made = parse_scheduler(cfg, optimizer)
    assert made["interval"] == "step"
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["scheduler"].step()
    assert rates == [1.0, 0.5, 0.25]


def test_a_schedule_of_schedules() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    constant = {"name": "ConstantLR", "args": {"factor": 0.1, "total_iters": 2}}
    decay = {"name": "ExponentialLR", "args": {"gamma": 0.5}}
    cfg = {"name": "SequentialLR", "milestones": [2], "schedulers": [constant, decay]}
    made = parse_scheduler(OmegaConf.create(cfg), optimizer)
    assert made["interval"] == "epoch"
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["scheduler"].step()
    assert rates == pytest.approx([0.1, 0.1, 1.0, 0.5])


@pytest.fixture
def toy(workplace: Path, registry, monkeypatch: pytest.MonkeyPatch):
    """The toy extension, loaded, and its configuration."""
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location("toy", workplace / "custom/toy/__init__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy", module)
    spec.loader.exec_module(module)
    cfg = load_config("toy.yaml", n_gpus=1)
    pl.seed_everything(0)
    system = threestudio.find(cfg.system_type)(cfg.system)
    system.set_save_dir(str(workplace / "save"))
    data = threestudio.find(cfg.data_type)(cfg.data)
    return system, data


def trainer(max_steps: int) -> pl.Trainer:
    return pl.Trainer(
        max_steps=max_steps,
        accelerator="auto",
        devices=1,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        inference_mode=False,
    )


def test_the_parts_of_a_3d_system(toy) -> None:
    system, _ = toy
    assert system.renderer.geometry is system.geometry
    assert system.renderer.material is system.material
    assert system.renderer.background is system.background
    # The renderer refers to the others; their weights are saved once.
    assert not any(name.startswith("renderer.geometry") for name in system.state_dict())
    assert "geometry.colour" in system.state_dict()
    torch.testing.assert_close(system.renderer.bbox.cpu(), torch.tensor([[-1.0] * 3, [1.0] * 3]))
    assert system.resumed is False


def test_parts_hear_of_every_step_and_loss_weights_follow_their_schedule(toy) -> None:
    system, data = toy
    weights: list[float] = []
    inner = system.training_step

    def training_step(batch: dict, batch_idx: int) -> dict:
        weights.append(system.C(system.cfg.loss.lambda_colour))
        return inner(batch, batch_idx)

    system.training_step = training_step
    stages: list[tuple[str, set]] = []
    system.preprocess_data = lambda batch, stage: stages.append((stage, set(batch)))
    fit = trainer(4)
    fit.fit(system, datamodule=data)
    assert system.true_global_step == 4
    assert weights == pytest.approx([1.0, 1.25, 1.5, 1.75])
    assert sorted(set(system.geometry.steps_heard)) == [0, 1, 2, 3]
    assert [stage for stage, _ in stages] == ["train"] * 4
    assert "c2w" in stages[0][1]
    # geometry.colour is given its own learning rate, which the schedule lowers at every step.
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.2 * 0.9**4)


def test_training_learns(toy) -> None:
    system, data = toy
    trainer(60).fit(system, datamodule=data)
    colour = torch.sigmoid(system.geometry.colour.detach().cpu())
    assert (colour - 0.85).abs().max() < 0.15  # target 0.8 plus noise of mean 0.05


def test_predicting_exports(toy, workplace: Path) -> None:
    system, data = toy
    system.set_resume_status(3, 120)
    assert (system.true_current_epoch, system.true_global_step) == (3, 120)
    trainer(1).predict(system, datamodule=data)
    folder = workplace / "save" / "it120-export"
    assert sorted(p.name for p in folder.iterdir()) == ["colour.json", "colour.npz"]
    colour = json.loads((folder / "colour.json").read_text())
    torch.testing.assert_close(
        torch.tensor(colour), torch.sigmoid(system.geometry.colour.detach().cpu())
    )
    assert not (workplace / "save" / "it120-test").exists()


def test_exporting_with_the_video(toy, workplace: Path) -> None:
    system, data = toy
    system.cfg.exporter.save_video = True
    trainer(1).predict(system, datamodule=data)
    assert (workplace / "save" / "it0-test.mp4").is_file()
    assert (workplace / "save" / "it0-export" / "colour.json").is_file()


def test_a_system_starts_from_weights(toy, workplace: Path) -> None:
    system, _ = toy
    state = {"geometry.colour": torch.full((3,), 5.0), "background.env_color": torch.zeros(3)}
    torch.save({"state_dict": state, "epoch": 0, "global_step": 9}, "w.ckpt")
    cfg = load_config("toy.yaml", n_gpus=1).system
    cfg.weights = "w.ckpt"
    cfg.weights_ignore_modules = ["background"]
    started = type(system)(cfg)
    assert (started.geometry.colour == 5).all()
    assert (started.background.env_color == 1).all()
    assert set(started.geometry.steps_heard) == {9}


def test_material_and_background() -> None:
    features = torch.randn(2, 4, 4, 3)
    material = threestudio.find("no-material")({})
    torch.testing.assert_close(material(features), features.sigmoid())
    identity = threestudio.find("no-material")({"color_activation": "none"})
    torch.testing.assert_close(identity(features), features)
    torch.testing.assert_close(identity.export(features=features)["albedo"], features.clamp(0, 1))
    background = threestudio.find("solid-color-background")({"color": [0.1, 0.2, 0.3]})
    expected = torch.tensor([0.1, 0.2, 0.3]).expand(2, 4, 4, 3)
    torch.testing.assert_close(background(torch.zeros(2, 4, 4, 3)), expected)
    assert list(background.parameters()) == []
    learned = threestudio.find("solid-color-background")({"learned": True})
    learned(torch.zeros(1, 2, 2, 3)).sum().backward()
    torch.testing.assert_close(learned.env_color.grad, torch.full((3,), 4.0))


def test_a_background_of_random_colours_while_training() -> None:
    background = threestudio.find("solid-color-background")(
        {"random_aug": True, "random_aug_prob": 1.0}
    )
    drawn = background(torch.zeros(3, 2, 2, 3))
    assert (drawn == drawn[:, :1, :1]).all()
    assert not torch.allclose(drawn[0], drawn[1])
    background.eval()
    assert (background(torch.zeros(3, 2, 2, 3)) == 1).all()


def test_the_dummy_exporter_exports_nothing() -> None:
    exporter = threestudio.find("dummy-exporter")({}, geometry=1, material=2, background=3)
    assert (exporter.geometry, exporter.material, exporter.background) == (1, 2, 3)
    assert exporter() == []
    assert exporter.cfg.save_video is False
