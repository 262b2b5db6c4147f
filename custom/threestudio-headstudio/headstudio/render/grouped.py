"""Splats that move in groups, each group by an affine map: what an animated avatar is made of.

Nothing here is differentiable, and in exchange nothing is computed that a picture does not need: no
quaternions, no depth, no gradients' intermediates. The pictures are those of ``render``.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    @staticmethod
    def cat(parts: Sequence[GroupedSplats]) -> GroupedSplats:
        """One after the other, one part at least; groups keep their numbers."""
        columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(GroupedSplats)}
        return GroupedSplats(**{name: torch.cat(column) for name, column in columns.items()})

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
    large elementwise operations: matrix libraries are slow at a million matrices of 3 x 3, and an
    array of all the products before they are summed would be three times as large as the sums.
    """
    carry = maps.index_select(1, splats.group)
    linear, axes = carry[..., :3], splats.axes
    means = (linear * splats.means[:, None, :]).sum(-1) + carry[..., 3]
    turned = linear[..., 0, None] * axes[:, None, 0]  # [P, N, 3, 3], the sum over j of ij, jk
    turned = turned.addcmul_(linear[..., 1, None], axes[:, None, 1])
    turned = turned.addcmul_(linear[..., 2, None], axes[:, None, 2])
    x, y, z = turned.unbind(-1)
    full = x[..., :, None] * x[..., None, :]
    full = full.addcmul_(y[..., :, None], y[..., None, :])
    full = full.addcmul_(z[..., :, None], z[..., None, :])
    return means, torch.cat([full[..., 0, :], full[..., 1, 1:], full[..., 2, 2:]], dim=-1)


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
    if maps.device.type == "cuda" and splats.n > 0:  # gsplat divides by the number of splats
        from headstudio.render import _gsplat_stages as stages

        means, covariances = place(splats, maps)
        ellipses = stages.project(means, covariances, splats.opacities, cameras)
        tiles = stages.intersect(ellipses, cameras)
        return stages.rasterize(ellipses, tiles, splats, cameras, background)
    if maps.device.type == "cuda":
        size = (cameras.poses, cameras.views, cameras.height, cameras.width)
        rgb, alpha = maps.new_zeros(*size, 3), maps.new_zeros(*size, 1)
    else:
        from headstudio.render import _cpu

        rgb, alpha = _cpu.rasterize_grouped(splats, maps, cameras)
    if background is not None:
        rgb = rgb + (1 - alpha) * background
    return rgb, alpha
