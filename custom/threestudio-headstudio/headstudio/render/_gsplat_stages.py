"""gsplat's forward pass in its three parts, for pictures without gradients.

``gsplat.rasterization`` does the same in one call. Taken apart, the first and the last can be put
into a CUDA graph; the middle one, gsplat's own intersection of splats with tiles, cannot, as it
asks the GPU how many there are. ``list_tiles`` answers the same question without asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstudio.render import constants
from headstudio.render.cameras import Cameras

if TYPE_CHECKING:
    from headstudio.render.grouped import GroupedSplats

TILE = 16


@dataclass
class Ellipses:
    """Splats in the pictures; where a radius is 0 the rest is undefined."""

    radii: Tensor  # [P, C, N, 2] int32, px
    means2d: Tensor  # [P, C, N, 2]
    depths: Tensor  # [P, C, N]
    conics: Tensor  # [P, C, N, 3]


@dataclass
class Tiles:
    """Which splats each tile shows, from front to back."""

    offsets: Tensor  # [P, C, rows, columns] int32: where a tile's begin in ids
    ids: Tensor  # [M] int32 into the P * C * N ellipses


def grid(cameras: Cameras) -> tuple[int, int]:
    """Rows and columns of tiles in a picture."""
    return -(-cameras.height // TILE), -(-cameras.width // TILE)


def project(means: Tensor, covariances: Tensor, opacities: Tensor, cameras: Cameras) -> Ellipses:
    """Means ``[P, N, 3]`` and covariances ``[P, N, 6]`` in the world to ellipses."""
    from gsplat import fully_fused_projection

    radii, means2d, depths, conics, _ = fully_fused_projection(
        means,
        covariances,
        None,
        None,
        cameras.viewmats(),
        cameras.intrinsics(),
        cameras.width,
        cameras.height,
        eps2d=constants.EPS2D,
        near_plane=cameras.near,
        far_plane=cameras.far,
        packed=False,
        opacities=opacities.expand(means.shape[0], -1),
    )
    return Ellipses(radii, means2d, depths, conics)


def intersect(ellipses: Ellipses, cameras: Cameras) -> Tiles:
    """gsplat's own way; waits for the GPU."""
    from gsplat import isect_offset_encode, isect_tiles

    rows, columns = grid(cameras)
    images = ellipses.depths.shape[:2]
    _, keys, ids = isect_tiles(
        ellipses.means2d, ellipses.radii, ellipses.depths, TILE, columns, rows, packed=False
    )
    offsets = isect_offset_encode(keys, images.numel(), columns, rows)
    return Tiles(offsets.unflatten(0, images), ids)


def list_tiles(
    ellipses: Ellipses, cameras: Cameras, slots: Tensor, tiles: Tensor
) -> tuple[Tiles, Tensor]:
    """The same at a fixed size, without waiting; PyTorch operations only, on any device.

    Splats are sorted by depth, written out once for each tile they touch, and sorted by tile; both
    sorts are stable, so that the order is gsplat's. What is left of the room for them is listed in
    a row of tiles below the last picture, which no pixel lies in. (Every picture has such a row.)

    Args:
        ellipses: I = P * C pictures, of one splat at least.
        cameras: that they are seen by.
        slots: ``arange(M)`` int32: room for M pairs of a splat and a tile.
        tiles: ``arange(I * (rows + 1) * columns)``, int16 if it fits, which halves the sorting.

    Returns:
        The tiles, with rows + 1 rows; and how many pairs there are, ``[]`` int64. If that is more
        than M, the farthest splats are missing.

    There are several times as many pairs as splats. What can be worked out for each splat is, and
    its pairs find it in one row of numbers; 32 bits do for them.
    """
    rows, columns = grid(cameras)
    images, per_image = ellipses.depths.shape[:2], (rows + 1) * columns
    low = ((ellipses.means2d - ellipses.radii) / TILE).floor()
    high = ((ellipses.means2d + ellipses.radii) / TILE).ceil()
    (left, top), (right, bottom) = low.unbind(-1), high.unbind(-1)
    left, right = left.clamp(0, columns).int(), right.clamp(0, columns).int()
    top, bottom = top.clamp(0, rows).int(), bottom.clamp(0, rows).int()
    across = right - left
    # Of splats that are not seen nothing is known: their numbers may be anything.
    count = across * (bottom - top) * (ellipses.radii > 0).all(-1)
    corner = top * columns + left + tiles[::per_image].view(*images, 1)

    order = torch.sort(ellipses.depths.flatten(), stable=True).indices
    by_splat = torch.stack([count, across.clamp(min=1), corner], -1).view(-1, 3)
    number, width, first = by_splat.index_select(0, order).unbind(-1)
    stop = number.cumsum(0)  # int64: from close by, every splat may touch every tile
    end = stop.clamp(max=torch.iinfo(torch.int32).max).int()
    by_rank = torch.stack([end - number, width, first, order.int()], -1)

    rank = torch.searchsorted(end, slots, right=True, out_int32=True)
    rank_or_last = rank.clamp(max=len(order) - 1)
    begin, width, first, ids = by_rank.index_select(0, rank_or_last).unbind(-1)
    nth = slots - begin  # of the tiles this splat touches, row by row
    down = torch.div(nth, width, rounding_mode="floor")
    tile = (first + nth).addcmul_(down, columns - width)
    tile = tile.masked_fill_(rank >= len(order), len(tiles) - 1)

    by_tile = torch.sort(tile.to(tiles.dtype), stable=True)
    offsets = torch.searchsorted(by_tile.values, tiles, out_int32=True)
    return Tiles(offsets.view(*images, rows + 1, columns), ids[by_tile.indices]), stop[-1]


def rasterize(
    ellipses: Ellipses,
    tiles: Tiles,
    splats: GroupedSplats,
    cameras: Cameras,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Colours ``[P, C, H, W, 3]`` over a background ``[3]`` or black, alpha ``[P, C, H, W, 1]``."""
    from gsplat import rasterize_to_pixels

    images = ellipses.depths.shape
    rgb, alpha = rasterize_to_pixels(
        ellipses.means2d,
        ellipses.conics,
        splats.colors.expand(*images, 3),
        splats.opacities.expand(images),
        cameras.width,
        cameras.height,
        TILE,
        tiles.offsets,
        tiles.ids,
        backgrounds=None if background is None else background.expand(*images[:2], 3),
    )
    return rgb, alpha
