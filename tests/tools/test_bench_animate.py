"""What ``bench/animate.py`` measures with, and what it refuses to measure."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pytest
import torch

from bench import animate
from headstudio.characters import character_shape, sample_character


def test_the_avatar_is_on_the_head_that_it_was_built_on() -> None:
    """Which is also that of the character's words and not only of its coefficients; and there are
    as many splats as asked for, also where no character has so few."""
    options = argparse.Namespace(head=None, avatar=None, splats=1000, device="cpu")
    player = animate.make_player(options)
    assert player.avatar.splats.n == 1000
    character = sample_character(np.random.default_rng(3))
    assert torch.equal(player.avatar.shape, character_shape(character, player.head))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--frames", "3", "--batch", "2", "4"], "--batch 4: there are 3 poses"),
        (["--frames", "3"], "--batch 4: there are 3 poses"),
        (["--splats", "0"], "expected a whole number of at least 1"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_built(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["animate.py", *words])
    monkeypatch.setattr(animate, "make_player", None)
    with pytest.raises(SystemExit) as end:
        animate.main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err
