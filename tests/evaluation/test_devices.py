"""Every command that measures says what is wrong with a device, and does so before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headstudio.app import main as app

WRONG = ["gpu", "cuda:²", "meta"]
if not torch.cuda.is_available():
    WRONG += ["cuda", "cuda:1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `bench faces` takes for a compared avatar until it opens it."""
    for name in ("results/one-s0.json", "avatars/one-s0.ply"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize("device", WRONG)
@pytest.mark.parametrize(
    "command", ["evaluate", "bench prior", "bench faces", "bench closed-world"]
)
def test_a_device_that_is_not_there_is_said(
    command: str, device: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "evaluate": ["evaluate", str(folder / "avatars/one-s0.ply"), "--out", str(folder / "out")],
        "bench prior": ["bench", "prior", "--out", str(folder / "out")],
        "bench faces": ["bench", "faces", str(folder)],
        "bench closed-world": ["bench", "closed-world", "--out", str(folder / "out")],
    }[command]
    assert app.main([*words, "--device", device]) == 2
    assert f"--device {device}" in capsys.readouterr().err
    assert not (folder / "out").exists()
