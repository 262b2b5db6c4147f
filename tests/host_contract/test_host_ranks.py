"""Several processes that train one avatar: the same splats in all of them, whatever each sees.

Through the host's launcher, with what lightning does by itself on several GPUs (``--gpu 0,1``). On
CPUs launch_on_cpu.py starts as many processes. ``HEADSTUDIO_HOST`` names threestudio.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from tools.make_random_sd import BASE, CONTROLNET, TINY, make

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
SIZE, VIEWS, FRAMES = 32, 5, 5
SETTINGS = [
    "system_type=watched-system",
    "use_timestamp=false",
    "tag=run",
    "system.prompt_processor.prompt=a man",
    f"system.geometry.head_model={REPOSITORY / 'load/flame/open_head.npz'}",
    f"data.motions={REPOSITORY / 'load/motion/smile.npz'}",
    f"data.test_motions=[{REPOSITORY / 'load/motion/smile.npz'}]",
    "data.batch_size=1",
    *(f"data.{side}={SIZE}" for side in ("height", "width", "eval_height", "eval_width")),
    f"data.n_test_views={FRAMES}",
    "system.geometry.n_splats=500",
    "system.geometry.initial_opacity=0.06",  # some fall below density control's 0.05
    "system.geometry.density.start=2",
    "system.geometry.density.end=5",
    "system.geometry.density.interval=2",
    "system.geometry.density.grad_threshold=0.03",
    "system.geometry.shape_until_step=3",
    "system.preview_interval=0",
    "trainer.max_steps=6",
    "trainer.val_check_interval=6",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_n_train_steps=6",
]


def two_gpus() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"two CUDA devices are needed, {torch.cuda.device_count()} there")


@pytest.fixture(scope="module", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def on(request: pytest.FixtureRequest) -> str:
    if request.param == "gpu":
        two_gpus()
    return request.param


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    custom = folder / "custom"
    (custom / "watched").mkdir(parents=True)
    (custom / "watched" / "__init__.py").write_text((HERE / "watched_system.py").read_text())
    extension = REPOSITORY / "custom" / "threestudio-headstudio"
    (custom / extension.name).symlink_to(extension)
    make(
        folder / "sd", TINY
    )  # threestudio's prompts need more tokens than the smallest prior takes
    return folder


def launch(launcher: Path, place: Path, on: str, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if on == "gpu":
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1")
        command = [str(launcher), "--gpu", "0,1"]
    else:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
        command = [str(HERE / "launch_on_cpu.py"), "--ranks", "2", str(launcher)]
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "IMPORT FAILED" not in said, said


@pytest.fixture(scope="module")
def trial(launcher: Path, place: Path, on: str) -> Path:
    """The folder of a run of two processes."""
    launch(
        launcher,
        place,
        on,
        *("--config", "custom/threestudio-headstudio/configs/headstudio-mini.yaml", "--train"),
        *SETTINGS,
        f"name={on}",
        f"system.prompt_processor.pretrained_model_name_or_path={place / 'sd' / BASE}",
        f"system.guidance.controlnet_model_name_or_path={place / 'sd' / CONTROLNET}",
    )
    return place / "outputs" / on / "run"


def seen_by(trial: Path, rank: int) -> list[dict]:
    lines = (trial / "save" / f"rank{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without(seen: list[dict], key: str) -> list[dict]:
    return [{name: value for name, value in step.items() if name != key} for step in seen]


def test_all_processes_have_the_same_splats(trial: Path) -> None:
    first, second = seen_by(trial, 0), seen_by(trial, 1)
    assert [step["step"] for step in first] == [0, 1, 2, 3, 4, 5, 6]
    assert without(first, "views") == without(second, "views")
    assert len({step["splats"] for step in first}) == 7  # and they learn, also after the exchange


def test_density_control_changes_them_and_each_sees_other_views(trial: Path) -> None:
    first, second = seen_by(trial, 0), seen_by(trial, 1)
    numbers = [step["n"] for step in first]
    assert numbers[0] == numbers[1] != numbers[2]
    assert numbers[2] == numbers[3] != numbers[4]
    assert all(a["views"] != b["views"] for a, b in zip(first[:6], second[:6], strict=True))


def test_pictures_show_the_views_of_all_processes(trial: Path) -> None:
    grid = cv2.imread(str(trial / "save" / "it6-val.png"))
    assert grid.shape[0] == VIEWS * SIZE
    frames = {path.name for path in (trial / "save" / "it6-test").iterdir()}
    assert frames == {f"{index}.png" for index in range(FRAMES)}
    assert (trial / "save" / "it6-test.mp4").is_file()


def test_a_run_of_several_is_gone_on_with(
    trial: Path, launcher: Path, place: Path, on: str
) -> None:
    last = trial / "ckpts" / "last.ckpt"
    launch(
        launcher,
        place,
        on,
        *("--config", str(trial / "configs" / "parsed.yaml"), "--train", f"resume={last}"),
        "trainer.max_steps=8",
        "trainer.val_check_interval=2",
        "system.geometry.density.end=8",
    )
    first, second = seen_by(trial, 0), seen_by(trial, 1)
    assert [step["step"] for step in first[7:]] == [6, 7, 8]
    assert without(first, "views") == without(second, "views")
    assert first[7]["n"] != first[6]["n"]  # density control was due before the first new step
