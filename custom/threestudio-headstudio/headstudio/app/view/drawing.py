"""Pictures drawn here, for browsers that have no GPU to draw splats with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import viser
from torch import Tensor

from headstudio.render import Cameras
from headstudio.render.grouped import GroupedSplats, render_grouped
from headstudio.render.reference import quats_to_rotations

TALLEST, LEAST = 360, 144
"""Pixels from top to bottom of pictures while things move. The page enlarges them."""
_SLOW, _FAST = 0.09, 0.06
"""Seconds from one picture to the next above and below which their size changes."""


@dataclass
class Body:
    """An avatar in one pose, where it stands."""

    splats: GroupedSplats
    maps: Tensor
    """``[G, 3, 4]``: the groups' maps into the avatar's own space."""
    stand: Tensor
    """``[3, 4]``: from there into the scene."""


class Draft:
    """How tall pictures are while things move: smaller where they come too slowly."""

    def __init__(self) -> None:
        self.height = TALLEST

    def took(self, seconds: float) -> None:
        """Take note of the time from one picture to the next."""
        if seconds > _SLOW:
            self.height = max(LEAST, round(0.9 * self.height))
        elif seconds < _FAST:
            self.height = min(TALLEST, round(self.height / 0.9))


def camera_of(view: viser.CameraHandle, tallest: int | None = TALLEST) -> Cameras:
    """What a page's camera sees, in a picture of the window's proportions.

    Args:
        view: position, orientation (x to the right, y down, z forwards) and size of the window.
        tallest: height in pixels that is not exceeded; None for the window's own.
    """
    height = max(1, view.image_height if tallest is None else min(view.image_height, tallest))
    width = max(1, round(height * view.image_width / max(view.image_height, 1)))
    wxyz = torch.as_tensor(view.wxyz, dtype=torch.float32)
    c2w = torch.eye(4)
    # Ours has y upwards and looks along -z.
    c2w[:3, :3] = quats_to_rotations(wxyz[None])[0] * torch.tensor([1.0, -1.0, -1.0])
    c2w[:3, 3] = torch.as_tensor(view.position, dtype=torch.float32)
    return Cameras(c2w[None, None], torch.tensor([[float(view.fov)]]), height, width)


@torch.inference_mode()
def draw(bodies: Sequence[Body], cameras: Cameras, background: Tensor) -> np.ndarray:
    """A picture of all bodies together, ``[H, W, 3]`` uint8.

    Args:
        bodies: one at least.
        cameras: of one pose and one view.
        background: ``[3]``, 0..1.
    """
    maps, parts, n_groups = [], [], 0
    for body in bodies:
        turn = body.stand[:, :3]
        moved = turn @ body.maps
        moved[..., 3] += body.stand[:, 3]
        maps.append(moved)
        parts.append(replace(body.splats, group=body.splats.group + n_groups))
        n_groups += len(moved)
    rgb, _ = render_grouped(GroupedSplats.cat(parts), torch.cat(maps)[None], cameras, background)
    return (rgb[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
