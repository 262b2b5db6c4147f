"""The avatar that ``bench/animate.py`` measures with: as many splats as asked for."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from bench.animate import refined
from headstudio.splats import Splats


def some(n: int) -> Splats:
    g = torch.Generator().manual_seed(0)
    return Splats(
        means=torch.randn(n, 3, generator=g),
        quats=torch.randn(n, 4, generator=g),
        scales=torch.randn(n, 3, generator=g).mul(0.5).sub(1),
        opacities=torch.randn(n, generator=g),
        colors=torch.randn(n, 3, generator=g),
        face=torch.arange(n),
    )


def covariance(splats: Splats) -> torch.Tensor:
    """Of each splat, ``[N, 3, 3]``."""
    turn = torch.from_numpy(Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]]).as_matrix()).float()
    axes = turn * splats.scales.exp()[:, None]
    return axes @ axes.mT


def test_many_small_splats_fill_the_place_of_a_large_one():
    one = some(1)
    many = refined(one, 5000)
    assert many.n == 5000
    assert torch.equal(many.colors, one.colors.expand(5000, 3))
    spread = many.means.T.cov() + covariance(many).mean(0)
    expected = covariance(one)[0]
    assert (spread - expected).norm() < 0.1 * expected.norm()
    assert (many.means.mean(0) - one.means[0]).norm() < 0.05 * expected.trace().sqrt()
    assert float(many.scales[0, 0] - one.scales[0, 0]) == pytest.approx(-math.log(5000) / 3)


@pytest.mark.parametrize("n", [3, 10, 11, 25])
def test_any_number_is_made_of_all_splats_alike(n):
    faces = refined(some(10), n).face.bincount(minlength=10)
    assert faces.sum() == n
    assert faces.max() <= -(-n // 10)


def test_fewer_are_some_of_them_as_they_are():
    splats = some(10)
    few = refined(splats, 4)
    assert torch.equal(few.means, splats.means[few.face])
    assert torch.equal(few.scales, splats.scales[few.face])
