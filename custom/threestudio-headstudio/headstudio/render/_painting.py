"""A numba kernel that blends splats into pictures that nobody differentiates.

What it paints is, but for rounding, what ``_compositing.composite_forward`` does, which keeps what
the backward pass needs and blends depth and features too. Without that a splat is blended in one
loop: a wide one along the rows that it touches, branch-free, as there; a narrow one pixel by pixel
within its box, leaving out what is finished. Most splats of an avatar are narrow.
"""

from __future__ import annotations

import numba
import numpy as np

from headstudio.render._compositing import (
    _F,
    HALF,
    LOOK,
    MAX_ALPHA,
    MIN_TRANSMITTANCE,
    ONE,
    PIXELS,
    ZERO,
    _coverage,
    _rows,
)
from headstudio.render._jit import Array, helper, kernel
from headstudio.render._tiles import TILE

NARROW = 8
"""Pixels across up to which a splat is narrow: a row of 16 costs as much as 10 single ones."""


@helper()
def _paint_rows(
    dx0: float,
    dy0: float,
    a: float,
    b: float,
    c: float,
    opacity: float,
    color: Array,
    light: Array,
    final: Array,
    red: Array,
    green: Array,
    blue: Array,
) -> None:
    """Blend one splat into a run of rows; see ``_compositing._blend``."""
    for i in range(light.size):
        pixel = np.int32(i)
        dx = dx0 - _F(pixel & np.int32(TILE - 1))
        dy = dy0 - _F(pixel // np.int32(TILE))
        covered = _coverage(dx, dy, a, b, c, opacity)
        alpha = covered if covered < MAX_ALPHA else MAX_ALPHA
        now = light[i]
        after = now * (ONE - alpha)
        drawn = alpha > ZERO and after > MIN_TRANSMITTANCE
        weight = now * alpha if drawn else ZERO
        final[i] = after if drawn else final[i]
        light[i] = after if alpha == ZERO or drawn else ZERO
        red[i] += weight * color[0]
        green[i] += weight * color[1]
        blue[i] += weight * color[2]


@helper()
def _paint_box(
    x: float,
    y: float,
    box: tuple[int, int, int, int],
    a: float,
    b: float,
    c: float,
    opacity: float,
    color: Array,
    light: Array,
    final: Array,
    red: Array,
    green: Array,
    blue: Array,
) -> None:
    """The same for the columns and rows of a box, first and one past the last of each."""
    x0, x1, y0, y1 = box
    for row in range(y0, y1):
        for column in range(x0, x1):
            i = row * TILE + column
            now = light[i]
            if now == ZERO:
                continue
            alpha = _coverage(x - _F(column), y - _F(row), a, b, c, opacity)
            if alpha == ZERO:
                continue
            alpha = min(alpha, MAX_ALPHA)
            after = now * (ONE - alpha)
            if after > MIN_TRANSMITTANCE:
                weight = now * alpha
                light[i] = after
                final[i] = after
                red[i] += weight * color[0]
                green[i] += weight * color[1]
                blue[i] += weight * color[2]
            else:
                light[i] = ZERO


@kernel()
def paint(
    means2d: Array,  # [I, N, 2] f32
    conics: Array,  # [I, N, 3] f32
    opacities: Array,  # [N] f32
    colors: Array,  # [N, 3] f32
    radii: Array,  # [I, N, 2] i32
    pairs: Array,  # [M, 2], with tile_start [I * T + 1] from _tiles.list_pairs
    tile_start: Array,
    blended: Array,  # out [I, H, W, 3] f32
    transmittance: Array,  # out [I, H, W] f32
) -> None:
    n_images, height, width, _ = blended.shape
    tiles_x = (width + TILE - 1) // TILE
    n_tiles = tiles_x * ((height + TILE - 1) // TILE)
    for job in numba.prange(n_images * n_tiles):
        image, tile = job // n_tiles, job % n_tiles
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        light, final = np.ones(PIXELS, np.float32), np.ones(PIXELS, np.float32)
        sums = np.zeros((3, PIXELS), np.float32)
        red, green, blue = sums[0], sums[1], sums[2]
        start = tile_start[job]
        for index in range(tile_start[job + 1] - start):
            if index % LOOK == LOOK - 1 and light.max() == ZERO:
                break
            n = pairs[start + index, 0]
            x, y = means2d[image, n, 0], means2d[image, n, 1]
            x0, x1 = _rows(x, radii[image, n, 0], left)
            y0, y1 = _rows(y, radii[image, n, 1], top)
            a, b, c = conics[image, n, 0], conics[image, n, 1], conics[image, n, 2]
            x -= _F(left) + HALF
            if x1 - x0 <= NARROW:
                _paint_box(
                    x, y - _F(top) - HALF, (x0, x1, y0, y1), a, b, c, opacities[n], colors[n],
                    light, final, red, green, blue,
                )  # fmt: skip
            else:
                lo, hi = y0 * TILE, y1 * TILE
                _paint_rows(
                    x, y - _F(top + y0) - HALF, a, b, c, opacities[n], colors[n],
                    light[lo:hi], final[lo:hi], red[lo:hi], green[lo:hi], blue[lo:hi],
                )  # fmt: skip
        for row in range(min(TILE, height - top)):
            for column in range(min(TILE, width - left)):
                i = row * TILE + column
                transmittance[image, top + row, left + column] = final[i]
                for k in range(3):
                    blended[image, top + row, left + column, k] = sums[k, i]
