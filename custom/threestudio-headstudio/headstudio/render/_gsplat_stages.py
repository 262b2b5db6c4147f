"""gsplat's forward pass in its three parts, for pictures without gradients.

``gsplat.rasterization`` does the same in one call. Taken apart, the first can be put into a CUDA
graph with what comes before it; the intersection of splats with tiles cannot, as it asks the GPU
how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """Waits for the GPU."""
    from gsplat import isect_offset_encode, isect_tiles

    rows, columns = grid(cameras)
    images = ellipses.depths.shape[:2]
    _, keys, ids = isect_tiles(
        ellipses.means2d, ellipses.radii, ellipses.depths, TILE, columns, rows, packed=False
    )
    offsets = isect_offset_encode(keys, images.numel(), columns, rows)
    return Tiles(offsets.unflatten(0, images), ids)


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
