"""The benchmarks run, and print figures that fit each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.conftest import REPOSITORY


def test_a_training_step_is_measured(workplace: Path) -> None:
    settings = [
        f"system.prompt_processor.pretrained_model_name_or_path={workplace / 'prior'}",
        "system.prompt_processor.prompt=red hair",
        "data.batch_size=2",
        "data.height=24",
        "data.width=24",
        "system.geometry.n_splats=400",
    ]
    done = subprocess.run(
        [
            sys.executable, str(REPOSITORY / "bench/train_step.py"), "--mini", "--steps=3",
            "--warm-up=1", "--repeat=2", *settings,
        ],
        cwd=workplace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    figures = {line["figure"]: line.get("ms") for line in lines}
    step = next(line for line in lines if line["figure"] == "step")
    assert (step["views"], step["px"], step["splats"]) == (2, 24, 400)
    parts = ("geometry", "rendering", "control_image", "unet_and_controlnet", "backward")
    assert all(0 < figures[name] < figures["step"] for name in parts)
    floor = [value for name, value in figures.items() if name.startswith("floor_")]
    assert len(floor) == 3
    assert abs(sum(floor) - figures["floor"]) < 0.01
