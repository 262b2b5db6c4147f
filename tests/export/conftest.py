"""A striped head, opened as a file is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.flame import FlameParams, HeadModel
from headstudio.paths import find_asset
from headstudio.splats import initialise_uniform, rgb_to_sh, save_avatar


@pytest.fixture(scope="session")
def avatar_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 000 splats, orange with dark stripes, on a head of its own identity."""
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    frame = head.world_frame(1.5)
    rest = frame.to_world(head.neutral())
    g = torch.Generator().manual_seed(0)
    splats = initialise_uniform(rest, head.faces, 12_000, g, opacity=0.95)
    height = rest[head.faces[splats.face]].mean(1)[:, 2]
    light = 0.5 + 0.5 * torch.sin(height * 2 * torch.pi / 0.4)
    splats.colors = rgb_to_sh(light[:, None] * torch.tensor([1.0, 0.6, 0.1]))
    shape = torch.zeros(head.n_shape)
    shape[:3] = torch.tensor([1.0, -1.5, 0.5])
    path = tmp_path_factory.mktemp("avatar") / "tiger.ply"
    save_avatar(path, splats, head, shape, frame, "a lady with tiger stripes")
    return path


@pytest.fixture(scope="session")
def player(avatar_file: Path) -> Player:
    return Player.open(avatar_file)


@pytest.fixture(scope="session")
def rest(player: Player) -> FlameParams:
    return FlameParams.zeros(1, player.head.n_shape, player.head.n_expression)
