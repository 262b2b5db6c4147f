"""Splats that move in groups, each group by an affine map: what an animated avatar is made of.

Nothing here is differentiable, and in exchange nothing is computed that a picture does not need: no
quaternions, no depth, no gradients' intermediates. The pictures are those of ``render``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from headstudio.render import constants
from headstudio.render.cameras import Cameras


@dataclass
class GroupedSplats:
    """N splats in the coordinates of the G groups they belong to."""

    means: Tensor
    """``[N, 3]``."""
    axes: Tensor
    """``[N, 3, 3]``: columns along the splat's axes, one standard deviation long."""
    opacities: Tensor
    """``[N]``, 0..1."""
    colors: Tensor
    """``[N, 3]`` rgb."""
    group: Tensor
    """``[N]`` int64."""

    @property
    def n(self) -> int:
        """Number of splats."""
        return self.means.shape[0]

    def __getitem__(self, index: Tensor) -> GroupedSplats:
        """The splats a mask or an index tensor selects."""
        return GroupedSplats(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def visible(self) -> GroupedSplats:
        """Those opaque enough to be drawn at all, ordered by group.

        Neighbours in memory are then neighbours in space, which the renderer's caches like.
        """
        kept = torch.nonzero(self.opacities >= constants.MIN_ALPHA).squeeze(-1)
        return self[kept[torch.argsort(self.group[kept], stable=True)]]


@torch.no_grad()
def place(splats: GroupedSplats, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Means ``[P, N, 3]`` and covariances ``[P, N, 6]`` in the world.

    Args:
        splats: N of them, in G groups.
        maps: ``[P, G, 3, 4]``: world = ``maps[..., :3] @ local + maps[..., 3]``.

    The covariances are the upper triangles (xx, xy, xz, yy, yz, zz), as gsplat takes them. Few
    large elementwise operations: matrix libraries are slow at a million matrices of 3 x 3.
    """
    carry = maps.index_select(1, splats.group)
    linear = carry[..., :3]
    means = (linear * splats.means[:, None, :]).sum(-1) + carry[..., 3]
    axes = (linear[..., None] * splats.axes[:, None]).sum(-2)  # [P, N, 3, 3]
    rows = axes.unbind(-2)
    pairs = [(rows[i] * rows[j]).sum(-1) for i in range(3) for j in range(i, 3)]
    return means, torch.stack(pairs, dim=-1)


@torch.no_grad()
def render_grouped(
    splats: GroupedSplats,
    maps: Tensor,
    cameras: Cameras,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pictures of P poses by C cameras.

    Args:
        splats: on the CPU (numba) or on CUDA (gsplat).
        maps: ``[P, G, 3, 4]``, see `place`.
        cameras: of the same P poses, or one set for all.
        background: ``[3]``; None is black.

    Returns:
        rgb ``[P, C, H, W, 3]`` and alpha ``[P, C, H, W, 1]``.
    """
    cameras = cameras.expand(maps.shape[0])
    if maps.device.type == "cpu":
        from headstudio.render import _cpu

        rgb, alpha = _cpu.rasterize_grouped(splats, maps, cameras)
    else:
        from headstudio.render import _gsplat_stages as stages

        means, covariances = place(splats, maps)
        ellipses = stages.project(means, covariances, splats.opacities, cameras)
        tiles = stages.intersect(ellipses, cameras)
        rgb, alpha = stages.rasterize(ellipses, tiles, splats, cameras)
    if background is not None:
        rgb = rgb + (1 - alpha) * background
    return rgb, alpha
