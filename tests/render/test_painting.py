"""Pictures that nobody differentiates are those that somebody does, but for rounding."""

from __future__ import annotations

import numpy as np
import pytest

from headstudio.render import _compositing, _painting, _tiles
from headstudio.render._jit import run

HEIGHT, WIDTH, N = 50, 70, 3000  # not whole tiles


def ellipses(sigma: float, opacity: float) -> tuple[np.ndarray, ...]:
    """Two pictures of N splats of about ``sigma`` pixels, turned and stretched at random."""
    rng = np.random.default_rng(3)
    means = rng.uniform(-5, (WIDTH + 5, HEIGHT + 5), (2, N, 2)).astype(np.float32)
    long = sigma * rng.uniform(0.5, 2.0, (2, N))
    short = long * rng.uniform(0.2, 1.0, (2, N))
    angle = rng.uniform(0, np.pi, (2, N))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    turn = turn.reshape(2, N, 2, 2)
    covariance = turn * np.stack([long**2, short**2], -1)[..., None, :] @ turn.swapaxes(-1, -2)
    inverse = np.linalg.inv(covariance)
    conics = np.stack([inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 1, 1]], -1)
    diagonal = covariance[..., [0, 1], [0, 1]]
    # Laid out as the renderer's are; for others numba would compile all the kernels once more.
    radii = np.ascontiguousarray(np.ceil(3.34 * np.sqrt(diagonal)).astype(np.int32))
    radii[:, ::97] = 0  # not seen
    depths = rng.uniform(1, 2, (2, N)).astype(np.float32)
    opacities = (opacity * rng.uniform(0.3, 1.0, N)).astype(np.float32)
    colors = rng.uniform(0, 1, (N, 3)).astype(np.float32)
    return means, conics.astype(np.float32), opacities, colors, depths, radii


@pytest.mark.parametrize("opacity", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("sigma", [0.4, 1.2, 2.5, 9.0])
def test_it_paints_what_compositing_does(sigma: float, opacity: float) -> None:
    means, conics, opacities, colors, depths, radii = ellipses(sigma, opacity)
    wide = 2 * radii[..., 0] + 1 > _painting.NARROW
    if sigma in (1.2, 2.5):
        assert 0.01 < wide.mean() < 0.999  # both loops are tried
    pairs, tile_start, _ = _tiles.list_pairs(means, radii, depths, HEIGHT, WIDTH)
    blended = np.empty((2, HEIGHT, WIDTH, 4), np.float32)
    expected, last = (
        np.empty((2, HEIGHT, WIDTH), np.float32),
        np.empty((2, HEIGHT, WIDTH), np.int32),
    )
    run(
        _compositing.composite_forward, means, conics, opacities[None], colors[None], depths,
        radii, pairs, tile_start, 2, 2, blended, expected, last, chunk=4,
    )  # fmt: skip
    painted = np.full((2, HEIGHT, WIDTH, 3), np.nan, np.float32)
    transmittance = np.full((2, HEIGHT, WIDTH), np.nan, np.float32)
    run(
        _painting.paint, means, conics, opacities, colors, radii, pairs, tile_start, painted,
        transmittance, chunk=4,
    )  # fmt: skip
    assert (expected < 0.99).mean() > 0.2
    np.testing.assert_allclose(transmittance, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(painted, blended[..., :3], rtol=1e-5, atol=1e-6)
