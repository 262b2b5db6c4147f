"""Runs of the embedded host: the same twice, gone on with, looked at again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
FIXED = ("use_timestamp=false",)


def learned(trial: str) -> torch.Tensor:
    checkpoint = torch.load(f"outputs/toy/{trial}/ckpts/last.ckpt", weights_only=True)
    return checkpoint["state_dict"]["geometry.colour"]


def test_the_same_seed_gives_the_same_result(launch: Callable[..., int]) -> None:
    for tag, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert launch("--config", "toy.yaml", "--train", *FIXED, f"tag={tag}", f"seed={seed}") == 0
    assert torch.equal(learned("a"), learned("b"))
    assert not torch.equal(learned("a"), learned("c"))


def test_a_run_is_gone_on_with_where_it_ended(launch: Callable[..., int]) -> None:
    assert launch("--config", "toy.yaml", "--train", *FIXED, "tag=run") == 0
    before = learned("run")
    raw = Path("outputs/toy/run/configs/raw.yaml").read_text()
    saved = "outputs/toy/run/configs/parsed.yaml"
    checkpoint = "outputs/toy/run/ckpts/last.ckpt"
    more = ("trainer.max_steps=6", "checkpoint.every_n_train_steps=6")
    assert launch("--config", saved, "--train", f"resume={checkpoint}", *more) == 0
    assert not torch.equal(learned("run"), before)
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 6
    assert Path("outputs/toy/run/save/it6-test.mp4").is_file()
    assert Path("outputs/toy/run/configs/raw.yaml").read_text() == raw

    state = learned("run")
    for task, made in (("--validate", "it6-1.png"), ("--test", "it6-test.mp4")):
        (Path("outputs/toy/run/save") / made).unlink()
        assert launch("--config", saved, task, f"resume={checkpoint}") == 0
        assert (Path("outputs/toy/run/save") / made).is_file()
    assert torch.equal(learned("run"), state)
    assert [p.name for p in Path("outputs/toy").iterdir()] == ["run"]


def test_shapes_can_be_checked_while_it_runs(workplace: Path) -> None:
    pytest.importorskip("typeguard")
    done = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "launch.py"),
            *("--config", "toy.yaml", "--train", "--typecheck", "--gpu", "-1"),
            *("trainer.max_steps=1", "checkpoint.every_n_train_steps=1"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
