"""headstudio-system with threestudio's own guidances, a few steps of each, on the CPU.

The guidances are threestudio's, so this needs a checkout (``HEADSTUDIO_HOST``). The model is as
``tools/make_random_sd.py --tiny`` makes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import threestudio
from threestudio.utils.config import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "custom" / "threestudio-headstudio" / "configs"
HUB_CONTROLNET = "lllyasviel/control_v11p_sd15_canny"
GUIDANCES = ["stable-diffusion", "vsd", "unified", "sdi", "controlnet"]


@pytest.fixture(scope="module", autouse=True)
def _needs_threestudio(embedded: bool) -> None:
    if embedded:
        pytest.skip("the guidances are threestudio's: give a checkout by HEADSTUDIO_HOST")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tools.make_random_sd import TINY, make

    return make(tmp_path_factory.mktemp("sd"), TINY)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """threestudio computes on "cuda:0" whatever there is."""
    if torch.cuda.is_available():
        return
    for name, module in list(sys.modules.items()):
        if name.startswith("threestudio.") and hasattr(module, "get_device"):
            monkeypatch.setattr(module, "get_device", lambda: torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def extension() -> None:
    import headstudio.plugin  # noqa: F401  (registers the classes)


@pytest.fixture
def canny(pipeline: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """controlnet-guidance's edges, and its ControlNet where threestudio looks for it."""
    import threestudio.models.guidance.controlnet_guidance as module
    from tools.make_random_sd import CONTROLNET

    seen: list[np.ndarray] = []

    class Edges:
        def __call__(self, picture: np.ndarray, low: int, high: int) -> np.ndarray:
            seen.append(picture)
            return 255 * (picture.mean(-1) > low).astype(np.uint8)

    monkeypatch.setattr(module, "CannyDetector", Edges)
    place = workplace / HUB_CONTROLNET
    place.parent.mkdir()
    place.symlink_to(pipeline.parent / CONTROLNET)
    return seen


def read(name: str, pipeline: Path, *settings: str) -> Any:
    return load_config(
        str(CONFIGS / "mixing" / f"{name}.yaml"),
        cli_args=[
            "system.prompt_processor.prompt=a man with a red beard",
            f"system.prompt_processor.pretrained_model_name_or_path={pipeline}",
            "system.guidance.half_precision_weights=false",
            f"system.geometry.head_model={REPOSITORY / 'load/flame/open_head.npz'}",
            f"data.motions={REPOSITORY / 'load/motion/smile.npz'}",
            "system.geometry.n_splats=400",
            "data.batch_size=2",
            "data.height=32",
            "data.width=32",
            *settings,
        ],
        n_gpus=1,
    )


def trainer(folder: Path, steps: int) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        accelerator="auto",
        devices=1,
        logger=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        default_root_dir=folder,
    )


def train(cfg: Any, folder: Path, steps: int = 2) -> tuple[Any, Any, pl.Trainer]:
    pl.seed_everything(0)
    system = threestudio.find(cfg.system_type)(cfg.system)
    system.set_save_dir(str(folder / "save"))
    data = threestudio.find(cfg.data_type)(cfg.data)
    before = weights(system)
    fit = trainer(folder, steps)
    fit.fit(system, datamodule=data)
    changed = {n for n, value in weights(system).items() if not torch.equal(value, before[n])}
    return system, changed, fit


def weights(system: Any) -> dict[str, torch.Tensor]:
    """A copy on the CPU: that is where lightning puts a system after it trained on a GPU."""
    return {name: value.detach().cpu().clone() for name, value in system.named_parameters()}


@pytest.mark.parametrize("name", GUIDANCES)
def test_it_trains(name: str, pipeline: Path, workplace: Path, canny: list) -> None:
    settings = {
        "controlnet": ["system.guidance.control_type=canny"],
        "sdi": ["system.guidance.inversion_n_steps=3"],
    }
    system, changed, fit = train(read(name, pipeline, *settings.get(name, [])), workplace)
    assert system.true_global_step == 2
    losses = {n: float(v) for n, v in fit.callback_metrics.items() if "loss_" in n}
    assert losses
    assert all(np.isfinite(loss) and loss != 0 for loss in losses.values()), losses
    assert "geometry.splats.colors" in changed
    assert "geometry.splats.means" in changed
    if name == "vsd":
        assert {n for n in changed if n.startswith("guidance.lora_layers")}
        assert {n for n in changed if n.startswith("guidance.camera_embedding")}
    if name == "controlnet":  # every view, and what it saw is the head on its ground
        assert len(canny) == 4
        assert all(picture.shape == (32, 32, 3) and picture.std() > 5 for picture in canny)


def test_what_vsd_learned_is_gone_on_with_and_not_needed_to_look(
    pipeline: Path, workplace: Path
) -> None:
    cfg = read("vsd", pipeline)
    system, _, fit = train(cfg, workplace, steps=1)
    fit.save_checkpoint(workplace / "last.ckpt")
    learned = {n: v for n, v in system.state_dict().items() if n.startswith("guidance.")}
    assert learned

    again = threestudio.find(cfg.system_type)(cfg.system, resumed=True)
    again.set_save_dir(str(workplace / "save"))
    data = threestudio.find(cfg.data_type)(cfg.data)
    on = trainer(workplace, 2)
    on.fit(again, datamodule=data, ckpt_path=workplace / "last.ckpt")
    assert again.true_global_step == 2
    moved = again.state_dict()
    assert set(learned) == {name for name in moved if name.startswith("guidance.")}

    looking = threestudio.find(cfg.system_type)(cfg.system, resumed=True)
    looking.set_save_dir(str(workplace / "save"))
    trainer(workplace, 2).predict(looking, datamodule=data, ckpt_path=workplace / "last.ckpt")
    assert looking.guidance is None
    assert list(workplace.glob("save/it*-export/avatar.ply"))


def test_our_guidance_trains_a_system_of_threestudios(pipeline: Path, workplace: Path) -> None:
    """dreamfusion-system, which hands a guidance no control image."""
    cfg = read("stable-diffusion", pipeline, "system.prompt_processor.negative_prompt=hat")
    parts = ("geometry", "background", "renderer", "prompt_processor", "material_type", "optimizer")
    kept = {key: value for key, value in cfg.system.items() if key.startswith(parts)}
    cfg.system_type = "dreamfusion-system"
    cfg.system = {
        **kept,
        "exporter_type": "avatar-exporter",
        "guidance_type": "flame-controlnet-guidance",
        "guidance": {
            "pretrained_model_name_or_path": str(pipeline),
            "use_controlnet": False,
        },
        "loss": {
            "lambda_sds": 1.0,
            "lambda_sparsity": 0.1,
            "lambda_opaque": 0.0,
            "lambda_orient": 0.0,
        },
    }
    _, changed, fit = train(cfg, workplace)
    assert fit.callback_metrics["train/loss_sds"] > 0
    assert "geometry.splats.colors" in changed
