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
        ellipses: I = P * C pictures.
        cameras: that they are seen by.
        slots: ``arange(M)``: room for M pairs of a splat and a tile.
        tiles: ``arange(I * (rows + 1) * columns)``, int16 if it fits, which halves the sorting.

    Returns:
        The tiles, with rows + 1 rows; and how many pairs there are, ``[]`` int64. If that is more
        than M, the farthest splats are missing.
    """
    rows, columns = grid(cameras)
    images, n = ellipses.depths.shape[:2], ellipses.depths.shape[2]
    low = (ellipses.means2d - ellipses.radii) / TILE
    high = (ellipses.means2d + ellipses.radii) / TILE
    (left, top), (right, bottom) = low.floor().unbind(-1), high.ceil().unbind(-1)
    left, right = left.clamp(0, columns).long(), right.clamp(0, columns).long()
    top, bottom = top.clamp(0, rows).long(), bottom.clamp(0, rows).long()
    seen = (ellipses.radii > 0).all(-1)
    across = right - left
    count = torch.where(seen, across * (bottom - top), 0).flatten()

    order = torch.sort(ellipses.depths.flatten(), stable=True).indices
    in_order = count[order]
    stop = in_order.cumsum(0)
    at = torch.searchsorted(stop, slots, right=True)
    used = at < len(order)
    at = at.clamp(max=len(order) - 1)
    splat = order[at]
    number = slots - (stop[at] - in_order[at])  # of the tiles this splat touches, row by row
    width = across.flatten()[splat].clamp(min=1)
    down = torch.div(number, width, rounding_mode="floor")
    row = top.flatten()[splat] + down
    tile = row * columns + left.flatten()[splat] + number - down * width
    image = torch.div(splat, n, rounding_mode="floor")
    per_image = (rows + 1) * columns
    tile = torch.where(used, image * per_image + tile, len(tiles) - 1)

    by_tile = torch.sort(tile.to(tiles.dtype), stable=True)
    ids = splat[by_tile.indices].int()
    offsets = torch.searchsorted(by_tile.values, tiles).int()
    return Tiles(offsets.view(*images, rows + 1, columns), ids), stop[-1]


def rasterize(
    ellipses: Ellipses, tiles: Tiles, splats: GroupedSplats, cameras: Cameras
) -> tuple[Tensor, Tensor]:
    """Colours ``[P, C, H, W, 3]`` over black, and alpha ``[P, C, H, W, 1]``."""
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
    )
    return rgb, alpha
