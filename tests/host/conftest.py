"""A working directory with the toy extension, and the launcher in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

TOY = Path(__file__).resolve().parents[1] / "host_contract"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with ``custom/`` that holds the toy extension."""
    extension = tmp_path / "custom" / "toy"
    extension.mkdir(parents=True)
    (extension / "__init__.py").write_text((TOY / "toy_extension.py").read_text())
    (tmp_path / "toy.yaml").write_text((TOY / "toy.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def launch(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``launch.py``'s main, with everything that it changes in this process put back."""
    import launch as script
    import threestudio

    before = dict(threestudio.__modules__)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["launch.py", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        threestudio.__modules__.clear()
        threestudio.__modules__.update(before)
        try:
            return script.main(list(arguments))
        finally:
            torch.use_deterministic_algorithms(False)
            threestudio.__modules__.clear()
            threestudio.__modules__.update(before)
            sys.modules.pop("toy", None)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return run
