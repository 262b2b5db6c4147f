"""Numba kernels that list, for every tile of every picture, its splats from front to back.

A *pair* is one splat in one tile. Pairs have two orders: by tile and depth, in which they are
blended, and by splat (*slots*), in which their gradients are summed, so that no two threads ever
add to the same number and the sum does not depend on how many threads there are.
"""

from __future__ import annotations

import numba
import numpy as np

from headstudio.render._jit import Array, helper, kernel, run

TILE = 16
"""Width and height of a tile in pixels."""


@helper()
def _tile_range(centre: float, radius: float, n_tiles: int) -> tuple[int, int]:
    """First tile and one past the last that [centre - radius, centre + radius] touches."""
    first = int(max(0.0, np.floor((centre - radius) / TILE)))
    last = int(min(float(n_tiles), np.ceil((centre + radius) / TILE)))
    return first, max(first, last)


@helper()
def _sort_by_depth(depths: Array, radii: Array, order: Array, spare: Array) -> int:
    """Write the visible splats to ``order`` by depth, equal depths by index; returns how many.

    A radix sort: depths are positive floats, which are ordered as their bits are.
    """
    keys = depths.view(np.uint32)
    n = 0
    for splat in range(depths.size):
        if radii[splat, 0] > 0:
            order[n] = splat
            n += 1
    count = np.empty(2048, np.int64)
    for shift in (0, 11, 22):
        count[:] = 0
        for i in range(n):
            count[(keys[order[i]] >> np.uint32(shift)) & np.uint32(2047)] += 1
        total = 0
        for bucket in range(2048):
            total, count[bucket] = total + count[bucket], total
        for i in range(n):
            at = (keys[order[i]] >> np.uint32(shift)) & np.uint32(2047)
            spare[count[at]] = order[i]
            count[at] += 1
        for i in range(n):
            order[i] = spare[i]
    return n


@kernel()
def _count(
    means2d: Array, radii: Array, tiles_x: int, tiles_y: int, per_splat: Array, per_tile: Array
) -> None:
    """Count the tiles of each splat ``[I, N]`` and the splats of each tile ``[I, T]``."""
    for i in numba.prange(means2d.shape[0]):
        per_tile[i, :] = 0
        for n in range(means2d.shape[1]):
            per_splat[i, n] = 0
            if radii[i, n, 0] > 0:
                x0, x1 = _tile_range(means2d[i, n, 0], radii[i, n, 0], tiles_x)
                y0, y1 = _tile_range(means2d[i, n, 1], radii[i, n, 1], tiles_y)
                per_splat[i, n] = (x1 - x0) * (y1 - y0)
                for y in range(y0, y1):
                    for x in range(x0, x1):
                        per_tile[i, y * tiles_x + x] += 1


@kernel()
def _fill(
    means2d: Array,
    radii: Array,
    depths: Array,
    tiles_x: int,
    tiles_y: int,
    slot_start: Array,
    tile_start: Array,
    pairs: Array,
) -> None:
    """Write (splat, slot) of every pair, by tile and depth; shapes as in ``list_pairs``."""
    n_splats = means2d.shape[1]
    for i in numba.prange(means2d.shape[0]):
        order, spare = np.empty(n_splats, np.int64), np.empty(n_splats, np.int64)
        n_visible = _sort_by_depth(depths[i], radii[i], order, spare)
        cursor = tile_start[i * tiles_x * tiles_y : (i + 1) * tiles_x * tiles_y].copy()
        for n in order[:n_visible]:
            slot = slot_start[i * n_splats + n]
            x0, x1 = _tile_range(means2d[i, n, 0], radii[i, n, 0], tiles_x)
            y0, y1 = _tile_range(means2d[i, n, 1], radii[i, n, 1], tiles_y)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    at = cursor[y * tiles_x + x]
                    cursor[y * tiles_x + x] = at + 1
                    pairs[at, 0] = n
                    pairs[at, 1] = slot
                    slot += 1


def list_pairs(
    means2d: np.ndarray,  # [I, N, 2] f32
    radii: np.ndarray,  # [I, N, 2] i32
    depths: np.ndarray,  # [I, N] f32
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the splats of each picture into tiles.

    Returns:
        pairs ``[M, 2]`` i64, (splat, slot) by picture, tile and depth;
        tile_start ``[I * T + 1]`` i64, where each tile's pairs begin;
        slot_start ``[I * N + 1]`` i64, where each splat's slots begin.
    """
    n_images, n_splats = depths.shape
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    slot_start = np.zeros(n_images * n_splats + 1, np.int64)
    tile_start = np.zeros(n_images * tiles_x * tiles_y + 1, np.int64)
    per_splat = slot_start[1:].reshape(n_images, n_splats)
    per_tile = tile_start[1:].reshape(n_images, tiles_x * tiles_y)
    run(_count, means2d, radii, tiles_x, tiles_y, per_splat, per_tile)
    np.cumsum(slot_start, out=slot_start)
    np.cumsum(tile_start, out=tile_start)
    pairs = np.empty((int(slot_start[-1]), 2), np.int64)
    run(_fill, means2d, radii, depths, tiles_x, tiles_y, slot_start, tile_start, pairs)
    return pairs, tile_start, slot_start
