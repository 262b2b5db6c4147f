"""Numba kernels that blend splats into pictures, forward and backward.

One tile is 256 pixels, held in arrays of 256 floats. A splat touches a run of the tile's rows,
which is a contiguous run of those arrays, so that each inner loop is a long branch-free loop over
contiguous memory that the compiler turns into vector instructions.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from headstudio.render import constants
from headstudio.render._jit import Array, helper, kernel
from headstudio.render._tiles import TILE

PIXELS = TILE * TILE
LOOK = 16
"""Pairs between two looks at whether every pixel of the tile is finished."""

# float32 constants: a Python float would turn the inner loops into float64.
_F = np.float32
ZERO, HALF, ONE = _F(0), _F(0.5), _F(1)
MIN_ALPHA, MAX_ALPHA = _F(constants.MIN_ALPHA), _F(constants.MAX_ALPHA)
MIN_TRANSMITTANCE = _F(constants.MIN_TRANSMITTANCE)
MAX_SIGMA = _F(5.6)  # e^-5.6 < 1/255: what lies beyond is too faint to be drawn
EIGHTH, MIDDLE, SCALE = _F(1 / 8), _F(0.35), _F(math.exp(-8 * 0.35))
C2, C3, C4, C5, C6, C7 = (_F(1 / math.factorial(k)) for k in range(2, 8))


@helper()
def _falloff(sigma: float) -> np.float32:
    """e^-sigma for sigma in [0, 5.6], relative error below 1e-6.

    (e^(-sigma / 8))^8 with a Taylor polynomial about the middle of the range: unlike the C
    library's exponential it is arithmetic only, which the compiler can vectorise.
    """
    t = MIDDLE - EIGHTH * sigma
    p = ONE + t * (ONE + t * (C2 + t * (C3 + t * (C4 + t * (C5 + t * (C6 + t * C7))))))
    p *= p
    p *= p
    return SCALE * (p * p)


@helper()
def _coverage(dx: float, dy: float, a: float, b: float, c: float, opacity: float) -> np.float32:
    """Opacity times falloff at an offset from a splat's centre; 0 where it is not drawn."""
    sigma = HALF * (a * dx * dx + c * dy * dy) + b * dx * dy
    near = ZERO <= sigma <= MAX_SIGMA
    covered = opacity * _falloff(sigma if near else MAX_SIGMA)
    return covered if near and covered >= MIN_ALPHA else ZERO


@helper()
def _rows(centre_y: float, radius_y: float, top: int) -> tuple[int, int]:
    """First row and one past the last of the tile that a splat's box touches."""
    first = max(0.0, math.floor(centre_y - radius_y) - top)
    last = min(float(TILE), math.ceil(centre_y + radius_y) - top)
    return int(first), int(max(first, last))


@helper()
def _blend(
    dx0: float,
    dy0: float,
    a: float,
    b: float,
    c: float,
    opacity: float,
    index: int,
    light: Array,
    final: Array,
    last: Array,
    weight: Array,
) -> None:
    """Blend one splat into a run of rows.

    ``light`` is the transmittance, 0 once the pixel is finished; ``final`` the same, but kept;
    ``last`` the last pair that was drawn; ``weight`` receives the splat's share of each pixel.
    """
    for i in range(weight.size):
        pixel = np.int32(i)
        dx = dx0 - _F(pixel & np.int32(TILE - 1))
        dy = dy0 - _F(pixel // np.int32(TILE))
        covered = _coverage(dx, dy, a, b, c, opacity)
        alpha = covered if covered < MAX_ALPHA else MAX_ALPHA
        now = light[i]
        after = now * (ONE - alpha)
        drawn = alpha > ZERO and after > MIN_TRANSMITTANCE
        weight[i] = now * alpha if drawn else ZERO
        final[i] = after if drawn else final[i]
        last[i] = index if drawn else last[i]
        light[i] = after if alpha == ZERO or drawn else ZERO


@kernel()
def composite_forward(
    means2d: Array,  # [I, N, 2] f32
    conics: Array,  # [I, N, 3] f32
    opacities: Array,  # [I or 1.., N] f32, row i // per_opacity
    values: Array,  # [.., N, K] f32, row i // per_value
    depths: Array,  # [I, N] f32
    radii: Array,  # [I, N, 2] i32
    pairs: Array,  # [M, 2], with tile_start [I * T + 1] from _tiles.list_pairs
    tile_start: Array,
    per_opacity: int,
    per_value: int,
    blended: Array,  # out [I, H, W, K + 1] f32, depth last
    transmittance: Array,  # out [I, H, W] f32
    last_pair: Array,  # out [I, H, W] i32, relative to the tile's first; -1 = none
) -> None:
    n_images, height, width, n_channels = blended.shape
    tiles_x = (width + TILE - 1) // TILE
    n_tiles = tiles_x * ((height + TILE - 1) // TILE)
    for job in numba.prange(n_images * n_tiles):
        image, tile = job // n_tiles, job % n_tiles
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        v, o = image // per_value, image // per_opacity
        light, final = np.ones(PIXELS, np.float32), np.ones(PIXELS, np.float32)
        last, weight = np.full(PIXELS, -1, np.int32), np.empty(PIXELS, np.float32)
        sums = np.zeros((n_channels, PIXELS), np.float32)
        start = tile_start[job]
        for index in range(tile_start[job + 1] - start):
            if index % LOOK == LOOK - 1 and light.max() == ZERO:
                break
            n = pairs[start + index, 0]
            x, y = means2d[image, n, 0], means2d[image, n, 1]
            first, stop = _rows(y, radii[image, n, 1], top)
            lo, hi = first * TILE, stop * TILE
            _blend(
                x - _F(left) - HALF, y - _F(top + first) - HALF,
                conics[image, n, 0], conics[image, n, 1], conics[image, n, 2],
                opacities[o, n], np.int32(index),
                light[lo:hi], final[lo:hi], last[lo:hi], weight[lo:hi],
            )  # fmt: skip
            for k in range(n_channels):
                value = values[v, n, k] if k < n_channels - 1 else depths[image, n]
                _add_scaled(sums[k, lo:hi], weight[lo:hi], value)
        for row in range(min(TILE, height - top)):
            for col in range(min(TILE, width - left)):
                pixel = row * TILE + col
                transmittance[image, top + row, left + col] = final[pixel]
                last_pair[image, top + row, left + col] = last[pixel]
                for k in range(n_channels):
                    blended[image, top + row, left + col, k] = sums[k, pixel]


@helper()
def _add_scaled(total: Array, source: Array, factor: float) -> None:
    for i in range(total.size):
        total[i] += source[i] * factor


@helper()
def _blend_backward(
    dx0: float,
    dy0: float,
    a: float,
    b: float,
    c: float,
    opacity: float,
    index: int,
    light: Array,
    behind: Array,
    last: Array,
    shade: Array,
    v_sigma: Array,
) -> None:
    """Take one splat off a run of rows, from the back.

    On entry ``shade`` is dL/d(splat's colour, if it filled the pixel), on return the splat's
    share of each pixel; ``light`` is the transmittance behind the splat, on return before it;
    ``behind`` is what the splats behind it and the final transmittance give to the loss;
    ``v_sigma`` receives dL/d(exponent).
    """
    for i in range(shade.size):
        pixel = np.int32(i)
        dx = dx0 - _F(pixel & np.int32(TILE - 1))
        dy = dy0 - _F(pixel // np.int32(TILE))
        covered = _coverage(dx, dy, a, b, c, opacity)
        covered = covered if index <= last[i] else ZERO
        alpha = covered if covered < MAX_ALPHA else MAX_ALPHA
        passed = ONE / (ONE - alpha)
        before = light[i] * passed
        v_alpha = shade[i] * before - behind[i] * passed
        v_sigma[i] = -covered * v_alpha if covered <= MAX_ALPHA else ZERO
        share = alpha * before
        behind[i] += share * shade[i]
        light[i] = before
        shade[i] = share


# Sums over pixels go down the columns, which are the lanes of a vector, and then across. The
# order is in the source and not left to the compiler ("fastmath"), whose choice is not the same
# from one compilation to the next: the same seed has to give the same bits everywhere.
@helper()
def _moments(dx0: float, dy0: float, v_sigma: Array, columns: Array, out: Array) -> None:
    """Sums over the pixels of v_sigma times 1, dx, dy, dx², dx dy, dy²."""
    columns[:3] = ZERO
    none, one, two = columns[0], columns[1], columns[2]
    for row in range(v_sigma.size // TILE):
        dy = dy0 - _F(row)
        line = v_sigma[row * TILE : (row + 1) * TILE]
        for col in range(TILE):
            value = line[col]
            none[col] += value
            one[col] += value * dy
            two[col] += value * dy * dy
    out[:6] = ZERO
    for col in range(TILE):
        dx = dx0 - _F(col)
        out[0] += none[col]
        out[1] += none[col] * dx
        out[2] += one[col]
        out[3] += none[col] * dx * dx
        out[4] += one[col] * dx
        out[5] += two[col]


@helper()
def _dot(first: Array, second: Array, column: Array) -> np.float32:
    column[:] = ZERO
    for row in range(first.size // TILE):
        one, two = first[row * TILE : (row + 1) * TILE], second[row * TILE : (row + 1) * TILE]
        for col in range(TILE):
            column[col] += one[col] * two[col]
    total = ZERO
    for col in range(TILE):
        total += column[col]
    return total


@kernel()
def composite_backward(
    means2d: Array,  # as in composite_forward
    conics: Array,
    opacities: Array,
    values: Array,
    depths: Array,
    radii: Array,
    pairs: Array,
    tile_start: Array,
    per_opacity: int,
    per_value: int,
    transmittance: Array,
    last_pair: Array,
    v_blended: Array,  # [I, H, W, K + 1] f32
    v_alpha: Array,  # [I, H, W] f32
    v_pairs: Array,  # out [M, 7 + K] f32, zeroed; by slot, as sum_pairs reads it
) -> None:
    n_images, height, width, n_channels = v_blended.shape
    tiles_x = (width + TILE - 1) // TILE
    n_tiles = tiles_x * ((height + TILE - 1) // TILE)
    for job in numba.prange(n_images * n_tiles):
        image, tile = job // n_tiles, job % n_tiles
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        v, o = image // per_value, image // per_opacity
        light, behind = np.ones(PIXELS, np.float32), np.zeros(PIXELS, np.float32)
        last, shade = np.full(PIXELS, -1, np.int32), np.empty(PIXELS, np.float32)
        upstream = np.zeros((n_channels, PIXELS), np.float32)
        v_sigma, moments = np.empty(PIXELS, np.float32), np.empty(6, np.float32)
        columns = np.empty((3, TILE), np.float32)
        for row in range(min(TILE, height - top)):
            for col in range(min(TILE, width - left)):
                pixel = row * TILE + col
                light[pixel] = transmittance[image, top + row, left + col]
                last[pixel] = last_pair[image, top + row, left + col]
                # alpha = 1 - final transmittance: light that no splat stops is lost to it.
                behind[pixel] = -light[pixel] * v_alpha[image, top + row, left + col]
                for k in range(n_channels):
                    upstream[k, pixel] = v_blended[image, top + row, left + col, k]
        for index in range(last.max(), -1, -1):
            n, slot = pairs[tile_start[job] + index, 0], pairs[tile_start[job] + index, 1]
            x, y = means2d[image, n, 0], means2d[image, n, 1]
            first, stop = _rows(y, radii[image, n, 1], top)
            lo, hi = first * TILE, stop * TILE
            shade[lo:hi] = ZERO
            for k in range(n_channels):
                value = values[v, n, k] if k < n_channels - 1 else depths[image, n]
                _add_scaled(shade[lo:hi], upstream[k, lo:hi], value)
            a, b, c = conics[image, n, 0], conics[image, n, 1], conics[image, n, 2]
            dx0, dy0 = x - _F(left) - HALF, y - _F(top + first) - HALF
            _blend_backward(
                dx0, dy0, a, b, c, opacities[o, n], np.int32(index),
                light[lo:hi], behind[lo:hi], last[lo:hi], shade[lo:hi], v_sigma[lo:hi],
            )  # fmt: skip
            _moments(dx0, dy0, v_sigma[lo:hi], columns, moments)
            v_pairs[slot, 0] = a * moments[1] + b * moments[2]
            v_pairs[slot, 1] = b * moments[1] + c * moments[2]
            v_pairs[slot, 2] = HALF * moments[3]
            v_pairs[slot, 3] = moments[4]
            v_pairs[slot, 4] = HALF * moments[5]
            v_pairs[slot, 5] = -moments[0] / opacities[o, n]
            for k in range(n_channels):
                v_pairs[slot, 6 + k] = _dot(shade[lo:hi], upstream[k, lo:hi], columns[0])


@kernel()
def sum_pairs(
    v_pairs: Array,  # [M, 7 + K] f32 by slot: mean2d 2, conic 3, opacity, values K, depth
    slot_start: Array,  # [I * N + 1]
    per_opacity: int,
    per_value: int,
    v_means2d: Array,  # out [I, N, 2]
    v_conics: Array,  # out [I, N, 3]
    v_depths: Array,  # out [I, N]
    v_opacities: Array,  # out [.., N]; zeroed
    v_values: Array,  # out [.., N, K]; zeroed
) -> None:
    """Sum the gradients of each splat over its tiles, and over the pictures that share a row."""
    n_images, n_splats = v_depths.shape
    n_values = v_values.shape[2]
    for n in numba.prange(n_splats):
        total = np.empty(v_pairs.shape[1], np.float32)
        for image in range(n_images):
            at = image * n_splats + n
            total[:] = 0
            for slot in range(slot_start[at], slot_start[at + 1]):
                for k in range(total.size):
                    total[k] += v_pairs[slot, k]
            v_means2d[image, n, 0], v_means2d[image, n, 1] = total[0], total[1]
            for k in range(3):
                v_conics[image, n, k] = total[2 + k]
            v_depths[image, n] = total[6 + n_values]
            v_opacities[image // per_opacity, n] += total[5]
            for k in range(n_values):
                v_values[image // per_value, n, k] += total[6 + k]
