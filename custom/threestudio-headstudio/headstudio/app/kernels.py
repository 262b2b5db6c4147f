"""Compile the CPU renderer's kernels into numba's cache: ``python -m headstudio.app.kernels``.

In a fresh clone nothing is compiled yet. Training's first step would wait for one kernel after the
other, on one core, and processes that start side by side would each compile all of them. With
``training`` or ``pictures`` only what that needs is compiled, so that two processes can share it.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from headstudio.animation import FastPlayer
from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.flame import FlameParams, HeadModel
from headstudio.paths import find_asset
from headstudio.render import Cameras, render
from headstudio.render.mesh import point_visibility, rasterize_mesh
from headstudio.splats import Avatar, initialise_uniform

SIZE = 16


def draw_for_training(head: HeadModel, cameras: Cameras) -> None:
    """Splats with gradients, and which landmarks a mesh hides."""
    vertices = head.world_frame(1.5).to_world(head.neutral())
    means = vertices[None, :50].clone().requires_grad_()
    render(means, *_round_splats(50), cameras).rgb.sum().backward()
    point_visibility(vertices[None, :8], vertices[None], head.faces, cameras)


def draw_pictures(head: HeadModel, cameras: Cameras) -> None:
    """Splats without gradients, posed or as they are, and a mesh."""
    vertices = head.world_frame(1.5).to_world(head.neutral())
    rasterize_mesh(vertices[None], head.faces, cameras)
    splats = initialise_uniform(vertices, head.faces, 100, torch.Generator().manual_seed(0))
    player = Player.of(Avatar(splats, torch.zeros(1), "", 1.5), head)
    FastPlayer(player.avatar, head).render(FlameParams.zeros(1), cameras)
    render(vertices[None, :50], *_round_splats(50), cameras)


def _round_splats(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quaternions, scales, opacities and colours."""
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, count, 4)
    scales, opacities = torch.full((1, count, 3), 0.05), torch.full((count,), 0.5)
    return quats, scales, opacities, torch.ones(count, 3)


PARTS = {"training": draw_for_training, "pictures": draw_pictures}


def main(arguments: list[str] | None = None) -> None:
    """Draw little pictures, which compiles. A GPU draws by itself: where there is one, nothing."""
    parser = argparse.ArgumentParser(prog="kernels", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: both")
    part = parser.parse_args(arguments).part
    if torch.cuda.is_available():
        return
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    cameras = Cameras.orbit(0.0, 0.0, 3.0, 35.0, SIZE, SIZE)
    for draw in PARTS.values() if part is None else [PARTS[part]]:
        draw(head, cameras)


if __name__ == "__main__":
    main()
