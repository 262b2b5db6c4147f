"""A small character on the open head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.characters import build_splats, sample_character
from headstudio.flame import FlameParams, HeadModel
from headstudio.flame.files import HeadArrays
from headstudio.paths import find_asset
from headstudio.splats import Avatar


@pytest.fixture(scope="session")
def player() -> Player:
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    character = sample_character(np.random.default_rng(3))
    splats = build_splats(character, head, 6000)
    return Player.of(Avatar(splats, torch.tensor(character.shape), "", 1.5), head)


@pytest.fixture(scope="session")
def corrected(player: Player) -> Player:
    """The same on a head with pose correctives, as FLAME has them."""
    head = player.head
    rng = np.random.default_rng(0)
    other = HeadModel(
        HeadArrays(
            v_template=head.v_template.numpy(),
            faces=head.faces.numpy(),
            shapedirs=head.shapedirs.numpy(),
            posedirs=rng.normal(0, 2e-3, (len(head.v_template), 3, 36)).astype(np.float32),
            J_regressor=head.J_regressor.numpy(),
            weights=head.lbs_weights.numpy(),
            name="with correctives",
        )
    )
    return Player.of(player.avatar, other)


@pytest.fixture(scope="session")
def poses(player: Player) -> FlameParams:
    """Six heads that move everything FLAME has; the first is at rest."""
    g = torch.Generator().manual_seed(0)

    def some(width: int, size: float) -> torch.Tensor:
        values = size * torch.randn(6, width, generator=g)
        values[0] = 0
        return values

    return FlameParams(
        shape=torch.randn(1, player.head.n_shape, generator=g),  # somebody else's: not used
        expression=some(player.head.n_expression, 0.3),
        global_orient=some(3, 0.8),
        neck_pose=some(3, 0.3),
        jaw_pose=some(3, 0.2),
        leye_pose=some(3, 0.3),
        reye_pose=some(3, 0.3),
        translation=some(3, 0.02),
    )
