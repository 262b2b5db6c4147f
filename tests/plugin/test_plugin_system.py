"""The system after training: the frames of its test, and whose head it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.plugin.system import HeadStudioSystem

STEP = 7


@pytest.fixture
def make_system(tmp_path: Path) -> Callable[..., HeadStudioSystem]:
    """As after training, so without a prior."""

    def make(**cfg: Any) -> HeadStudioSystem:
        parts = {
            "geometry_type": "flame-gaussians",
            "geometry": {"n_splats": 300},
            "material_type": "no-material",
            "background_type": "solid-color-background",
            "renderer_type": "gsplat-renderer",
        }
        system = threestudio.find("headstudio-system")({**parts, **cfg}, resumed=True)
        system.set_save_dir(str(tmp_path / "save"))
        system.set_resume_status(0, STEP)
        return system

    return make


@pytest.fixture
def trainer(tmp_path: Path) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )


@pytest.mark.parametrize("work", ["test", "predict"])
def test_the_video_has_the_frames_of_this_test_alone(
    make_system, make_data, trainer: pl.Trainer, tmp_path: Path, work: str
) -> None:
    folder = tmp_path / "save" / f"it{STEP}-test"
    trainer.test(make_system(), datamodule=make_data(n_test_views=8))
    for kept in ("front12.png", "3.png.txt"):
        (folder / kept).write_bytes((folder / "0.png").read_bytes())  # somebody's own
    system = make_system(exporter={"save_video": True})
    getattr(trainer, work)(system, datamodule=make_data(n_test_views=3))
    names = {path.name for path in folder.iterdir()}
    assert names == {"0.png", "1.png", "2.png", "front12.png", "3.png.txt"}
    assert len(iio.imread(folder.with_suffix(".mp4"))) == 3


def test_exporting_without_a_video_keeps_the_frames(
    make_system, make_data, trainer: pl.Trainer, tmp_path: Path
) -> None:
    trainer.test(make_system(), datamodule=make_data(n_test_views=2))
    trainer.predict(make_system(), datamodule=make_data(n_test_views=1))
    assert {p.name for p in (tmp_path / "save" / f"it{STEP}-test").iterdir()} == {"0.png", "1.png"}


def test_a_corner_of_no_height_is_none(
    make_system, make_data, trainer: pl.Trainer, tmp_path: Path
) -> None:
    frames = []
    for corner in (0.0, 0.25):
        system = make_system(corner=corner, background={"color": [0.2, 0.3, 0.4]})
        data = make_data(n_test_views=1)
        trainer.test(system, datamodule=data)
        frames.append(iio.imread(tmp_path / "save" / f"it{STEP}-test" / "0.png").astype(int))
    rendered = system(next(iter(data.test_dataloader())))["comp_rgb"][0].detach().numpy() * 255
    differs = [(np.abs(frame - rendered) > 1).any(-1) for frame in frames]
    assert not differs[0].any()
    quarter = len(rendered) // 4
    assert differs[1][-quarter:, -quarter:].any()
    differs[1][-quarter:, -quarter:] = False
    assert not differs[1].any()


def test_what_a_skipped_step_left_is_put_right_before_density_control(
    make_system, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU nobody has asked before, and it moves the optimiser's state to other parameters."""
    density = {"start": 0, "interval": 2, "end": 100}
    for step, done in ((7, []), (8, ["report", "control"])):
        system = make_system(geometry={"n_splats": 300, "density": density})
        system.set_resume_status(0, step)
        calls: list[str] = []
        optimizer = torch.optim.Adam(system.geometry.parameters())
        monkeypatch.setattr(system, "optimizers", lambda use_pl_optimizer, o=optimizer: o)
        monkeypatch.setattr(system._guard, "report", lambda c=calls: c.append("report"))
        monkeypatch.setattr(
            system.geometry.density, "step", lambda *_, c=calls: c.append("control")
        )
        system._begin_step()
        assert calls == done


def test_a_checkpoint_of_another_head_is_refused(
    make_system, make_data, trainer: pl.Trainer, other_head: Path, tmp_path: Path
) -> None:
    """By ``resume=``, ``system.weights`` and ``system.geometry.weights``; one that was written
    before heads were kept is taken by all three."""
    system = make_system()
    trainer.strategy.connect(system)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    head = {"head_model": str(other_head)}
    with pytest.raises(HeadStudioError, match="rides on the head model 'open-head'"):
        trainer.test(make_system(geometry=head), datamodule=make_data(), ckpt_path=path)
    with pytest.raises(HeadStudioError, match="rides on the head model 'open-head'"):
        make_system(geometry=head, weights=str(path))
    with pytest.raises(HeadStudioError, match="rides on the head model 'open-head'"):
        make_system(geometry=head | {"weights": f"{path}:geometry"})
    state = torch.load(path, weights_only=True)
    del state["state_dict"]["geometry._extra_state"]
    torch.save(state, path)
    for given in ({"weights": str(path)}, {"geometry": {"weights": f"{path}:geometry"}}):
        started = make_system(**given)
        assert torch.equal(started.geometry.splats.means, system.geometry.splats.means)
    trainer.test(make_system(), datamodule=make_data(n_test_views=1), ckpt_path=path)
