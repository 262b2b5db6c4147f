"""A small character on the open head, opened as a file is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.characters import build_splats, sample_character
from headstudio.flame import FlameParams, HeadModel
from headstudio.paths import find_asset
from headstudio.splats import save_avatar


@pytest.fixture(scope="session")
def avatar_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    character = sample_character(np.random.default_rng(5))
    splats = build_splats(character, head, 8000)
    path = tmp_path_factory.mktemp("avatar") / "tiger.ply"
    shape = torch.tensor(character.shape)
    save_avatar(path, splats, head, shape, head.world_frame(1.5), "a lady with tiger stripes")
    return path


@pytest.fixture(scope="session")
def player(avatar_file: Path) -> Player:
    return Player.open(avatar_file)


@pytest.fixture(scope="session")
def rest(player: Player) -> FlameParams:
    return FlameParams.zeros(1, player.head.n_shape, player.head.n_expression)
