"""The command line from end to end: train, go on, export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf


def launch(launcher: Path, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(launcher.parent)}
    done = subprocess.run(
        [sys.executable, str(launcher), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(autouse=True)
def _needs_a_gpu_on_threestudio(embedded: bool) -> None:
    if not embedded and not torch.cuda.is_available():
        pytest.skip("threestudio's launcher refuses to start without a GPU")


def test_train_then_export_from_the_same_folder(workplace: Path, launcher: Path) -> None:
    said = launch(launcher, "--config", "toy.yaml", "--train", "--gpu", "0", "system.target=0.7")
    (trial,) = (workplace / "outputs" / "toy").iterdir()
    assert trial.name.startswith("toy-renderer@")
    names = {path.name for path in trial.iterdir()}
    assert names >= {"ckpts", "configs", "save", "csv_logs", "tb_logs", "cmd.txt"}
    assert {p.name for p in (trial / "configs").iterdir()} == {"parsed.yaml", "raw.yaml"}
    assert (trial / "ckpts" / "last.ckpt").is_file()
    assert "--train" in (trial / "cmd.txt").read_text()
    saved = {path.name for path in (trial / "save").iterdir()}
    assert saved >= {"it2-0.png", "it2-1.png", "it4-0.png", "it4-test", "it4-test.mp4"}
    assert "4/4" in said  # the progress bar knows how long it takes

    raw = (trial / "configs" / "raw.yaml").read_text()
    assert raw == (workplace / "toy.yaml").read_text()
    parsed = OmegaConf.load(trial / "configs" / "parsed.yaml")
    assert parsed.system.target == 0.7
    assert parsed.checkpoint.every_n_train_steps == 4
    assert parsed.trial_dir == os.path.relpath(trial, workplace)

    launch(
        launcher,
        "--config",
        str(trial / "configs" / "parsed.yaml"),
        "--export",
        f"resume={trial / 'ckpts' / 'last.ckpt'}",
    )
    assert [p.name for p in (workplace / "outputs" / "toy").iterdir()] == [trial.name]
    colour = json.loads((trial / "save" / "it4-export" / "colour.json").read_text())
    checkpoint = torch.load(trial / "ckpts" / "last.ckpt", map_location="cpu", weights_only=True)
    learned = torch.sigmoid(checkpoint["state_dict"]["geometry.colour"])
    torch.testing.assert_close(torch.tensor(colour), learned)
    assert (trial / "save" / "it4-export" / "colour.npz").is_file()
