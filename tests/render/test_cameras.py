"""Where things of the world appear in the picture."""

from __future__ import annotations

import math

import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.render import Cameras, render


def seen_at(cameras: Cameras, point: tuple[float, float, float]) -> tuple[float, float, float]:
    pixels, depth = cameras.project(torch.tensor([[point]]))
    return (*pixels[0, 0, 0].tolist(), float(depth[0, 0, 0]))


@pytest.mark.parametrize(
    ("azimuth", "front", "right"),
    [(0, (1, 0, 0), (0, 1, 0)), (90, (0, 1, 0), (-1, 0, 0)), (180, (-1, 0, 0), (0, -1, 0))],
)
def test_orbit_puts_the_world_the_right_way_round(
    azimuth: int, front: tuple[float, ...], right: tuple[float, ...]
) -> None:
    """Seen from +x (azimuth 0), +y is on the right and +z is up, which is to small y in pixels."""
    cameras = Cameras.orbit(azimuth, 0.0, 3.0, 40.0, 100, 200)
    torch.testing.assert_close(cameras.positions[0, 0], 3 * torch.tensor(front).float())
    assert seen_at(cameras, (0, 0, 0)) == pytest.approx((100, 50, 3), abs=1e-4)
    x, y, depth = seen_at(cameras, right)  # type: ignore[arg-type]
    assert x > 120
    assert y == pytest.approx(50, abs=1e-4)
    assert depth == pytest.approx(3, abs=1e-4)
    x, y, _ = seen_at(cameras, (0, 0, 0.5))
    assert x == pytest.approx(100, abs=1e-4)
    assert y < 40


def test_elevation_and_straight_down() -> None:
    above = Cameras.orbit(0.0, 30.0, 2.0, 40.0, 64, 64)
    assert float(above.positions[0, 0, 2]) == pytest.approx(1.0, abs=1e-5)
    down = Cameras.orbit(0.0, 90.0, 2.0, 40.0, 64, 64)
    assert torch.isfinite(down.c2w).all()
    assert seen_at(down, (0, 0.3, 0))[0] > 33
    assert seen_at(down, (-0.3, 0, 0))[1] < 31  # the back of the head is at the top


def test_field_of_view_spans_the_height() -> None:
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 50.0, 120, 60)
    top = 2 * math.tan(math.radians(25))
    assert seen_at(cameras, (0, 0, top)) == pytest.approx((30, 0, 2), abs=1e-3)


def test_matrices_say_the_same_as_project() -> None:
    cameras = Cameras.orbit(
        torch.tensor([20.0, 250.0]), torch.tensor([5.0, -40.0]), 2.5, 60.0, 48, 80
    )
    points = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0))
    pixels, depth = cameras.project(points)
    homogeneous = torch.cat([points, torch.ones(1, 7, 1)], dim=-1)
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1]))
    viewmats = torch.linalg.inv(cameras.c2w @ flip)
    torch.testing.assert_close(cameras.viewmats(), viewmats, atol=1e-5, rtol=1e-4)
    inside = torch.einsum("pcij,pnj->pcni", viewmats, homogeneous)[..., :3]
    projected = torch.einsum("pcij,pcnj->pcni", cameras.intrinsics(), inside)
    torch.testing.assert_close(depth, projected[..., 2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pixels, projected[..., :2] / depth[..., None], atol=1e-3, rtol=1e-4)


def test_splats_appear_where_project_says() -> None:
    cameras = Cameras.orbit(torch.tensor([0.0, 70.0, 200.0]), 25.0, 2.5, 45.0, 90, 110)
    point = torch.tensor([[[0.2, 0.4, -0.3]]])
    output = render(
        point,
        torch.tensor([[[1.0, 0, 0, 0]]]),
        torch.full((1, 1, 3), 0.02),
        torch.tensor([0.9]),
        torch.ones(1, 3),
        cameras,
    )
    pixels, depth = cameras.project(point)
    torch.testing.assert_close(output.means2d, pixels, atol=1e-3, rtol=1e-5)
    rows, cols = torch.meshgrid(torch.arange(90) + 0.5, torch.arange(110) + 0.5, indexing="ij")
    weight = output.alpha[0, ..., 0]
    for c in range(3):
        centre = torch.stack([(weight[c] * cols).sum(), (weight[c] * rows).sum()]) / weight[c].sum()
        torch.testing.assert_close(centre, pixels[0, c, 0], atol=0.05, rtol=0)
        brightest = int(weight[c].argmax())
        found = output.depth[0, c].reshape(-1)[brightest]
        torch.testing.assert_close(found, depth[0, c, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("c2w", "fovy", "size", "words"),
    [
        ((4, 4), (1, 1), (8, 8), r"c2w has shape \[4, 4\].*\[P, C, 4, 4\]"),
        ((1, 2, 4, 4), (1, 1), (8, 8), r"fovy has shape \[1, 1\], expected \[1, 2\]"),
        ((1, 1, 4, 4), (1, 1), (0, 8), "8 x 0 px"),
    ],
)
def test_bad_cameras_are_named(
    c2w: tuple[int, ...], fovy: tuple[int, ...], size: tuple[int, int], words: str
) -> None:
    with pytest.raises(HeadStudioError, match=words):
        Cameras(torch.zeros(c2w), torch.ones(fovy), *size)
