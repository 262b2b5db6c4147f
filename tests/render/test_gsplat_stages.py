"""gsplat's forward pass in parts, on replaced kernels; splats that move in groups."""

from __future__ import annotations

import math
from typing import Any

import gsplat
import numpy as np
import pytest
import torch
from gsplat.cuda import _torch_impl
from torch import Tensor

from headstudio.render import Cameras, _gsplat_stages, _tiles, reference, render
from headstudio.render._gsplat_stages import Ellipses, Tiles, grid
from headstudio.render.grouped import GroupedSplats, place, render_grouped
from headstudio.splats import matrix_to_quaternion

CAMERAS = Cameras.orbit(torch.tensor([20.0, 160.0]), 15.0, 1.4, 50.0, 40, 72).expand(2)


def tiles_of(found: Ellipses) -> Tiles:
    """What gsplat lists, by the CPU renderer."""
    means2d, radii, depths = (
        x.flatten(0, 1).nan_to_num().numpy() for x in (found.means2d, found.radii, found.depths)
    )
    pairs, start, _ = _tiles.list_pairs(means2d, radii, depths, CAMERAS.height, CAMERAS.width)
    shape = (*found.depths.shape[:2], *grid(CAMERAS))
    offsets = torch.as_tensor(np.asarray(start)[: math.prod(shape)]).int().view(shape)
    image = np.searchsorted(
        np.asarray(start)[:: math.prod(shape[2:])], np.arange(len(pairs)), "right"
    )
    ids = pairs[:, 0] + (image - 1) * found.depths.shape[2]
    return Tiles(offsets, torch.as_tensor(ids).int())


def fake_projection(
    means: Tensor, covars: Tensor, quats: None, scales: None, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, *, eps2d: float, near_plane: float, far_plane: float, packed: bool,
    opacities: Tensor,
) -> tuple[Any, ...]:  # fmt: skip
    assert quats is None
    assert scales is None
    assert not packed
    assert opacities.shape == means.shape[:2]
    full = covars[..., torch.tensor([[0, 1, 2], [1, 3, 4], [2, 4, 5]])]
    return _torch_impl._fully_fused_projection(
        means, full, viewmats, Ks, width, height, eps2d, near_plane, far_plane, False, "pinhole"
    )


def fake_rasterize(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, width: int, height: int,
    size: int, offsets: Tensor, ids: Tensor, *, backgrounds: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As gsplat's kernel reads them: a tile's splats lie between its offset and the next."""
    images = means2d.shape[:2]
    assert offsets.shape[:2] == images
    assert colors.shape == (*means2d.shape[:-1], 3)
    flat = [x.flatten(0, 2) for x in (means2d, conics, opacities, colors)]
    bounds = [*offsets.flatten().tolist(), len(ids)]
    rows, columns = offsets.shape[2:]
    rgb, alpha = torch.zeros(*images, height, width, 3), torch.zeros(*images, height, width, 1)
    for image, (p, c) in enumerate(np.ndindex(*images)):
        for row, column in np.ndindex(rows, columns):
            at = (image * rows + row) * columns + column
            mine = ids[bounds[at] : bounds[at + 1]].long()
            top, left = row * size, column * size
            if top >= height or len(mine) == 0:
                continue
            order = torch.arange(len(mine), dtype=torch.float32)
            centre, conic, opacity, color = (x[mine] for x in flat)
            blended, covered = reference.composite(
                centre - torch.tensor([float(left), float(top)]), conic, opacity, color, order,
                torch.full((len(mine), 2), 10_000, dtype=torch.int32), size, size,
            )  # fmt: skip
            h, w = min(size, height - top), min(size, width - left)
            rgb[p, c, top : top + h, left : left + w] = blended[:h, :w, :3]
            alpha[p, c, top : top + h, left : left + w] = covered[:h, :w]
    if backgrounds is not None:
        assert backgrounds.shape == (*images, 3)
        rgb = rgb + (1 - alpha) * backgrounds[:, :, None, None]
    return rgb, alpha


def grouped(n: int = 200) -> tuple[GroupedSplats, Tensor]:
    g = torch.Generator().manual_seed(1)
    turns = torch.linalg.qr(torch.randn(n, 3, 3, generator=g)).Q
    splats = GroupedSplats(
        means=torch.randn(n, 3, generator=g) * 0.3,
        axes=turns * (0.05 * torch.exp(0.5 * torch.randn(n, 1, 3, generator=g))),
        opacities=torch.rand(n, generator=g),
        colors=torch.rand(n, 3, generator=g),
        group=torch.randint(7, (n,), generator=g),
    )
    linear = torch.linalg.qr(torch.randn(2, 7, 3, 3, generator=g)).Q * 1.2
    return splats, torch.cat([linear, 0.2 * torch.randn(2, 7, 3, 1, generator=g)], -1)


@pytest.mark.parametrize("background", [None, torch.tensor([0.9, 0.2, 0.5])])
def test_the_parts_put_together_make_the_picture(monkeypatch, background):
    monkeypatch.setattr(gsplat, "fully_fused_projection", fake_projection)
    monkeypatch.setattr(gsplat, "rasterize_to_pixels", fake_rasterize)
    splats, maps = grouped()
    means, covariances = place(splats, maps)
    found = _gsplat_stages.project(means, covariances, splats.opacities, CAMERAS)
    tiles = tiles_of(found)
    assert len(tiles.ids) > 0
    rgb, alpha = _gsplat_stages.rasterize(found, tiles, splats, CAMERAS, background)
    expected, covered = render_grouped(splats, maps, CAMERAS, background)
    assert torch.allclose(rgb, expected, atol=2e-3)
    assert torch.allclose(alpha, covered, atol=2e-3)
    assert float(covered.mean()) > 0.2


def test_groups_are_drawn_as_single_splats_are():
    splats, maps = grouped()
    means, covariances = place(splats, maps)
    full = covariances[..., torch.tensor([[0, 1, 2], [1, 3, 4], [2, 4, 5]])].double()
    values, vectors = torch.linalg.eigh(full)
    vectors = vectors * vectors.det().sign()[..., None, None]
    background = torch.tensor([0.3, 0.1, 0.8])
    expected = render(
        means,
        matrix_to_quaternion(vectors).float(),
        values.clamp(min=0).sqrt().float(),
        splats.opacities,
        splats.colors,
        CAMERAS,
        background=background,
    )
    rgb, alpha = render_grouped(splats, maps, CAMERAS, background)
    assert torch.allclose(rgb, expected.rgb, atol=1e-4)
    assert torch.allclose(alpha, expected.alpha, atol=1e-4)


def test_what_is_too_faint_is_left_out_and_the_rest_ordered_by_group():
    splats, maps = grouped()
    splats.opacities[::2] = 0.5 / 255
    visible = splats.visible()
    assert visible.n < splats.n
    assert (visible.group.diff() >= 0).all()
    pictures = [render_grouped(x, maps, CAMERAS)[0] for x in (splats, visible)]
    assert torch.allclose(*pictures, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_splats(n):
    splats, maps = grouped()
    few = splats[torch.arange(n)]
    rgb, alpha = render_grouped(few, maps, CAMERAS)
    assert rgb.shape == (2, 2, 40, 72, 3)
    assert (float(alpha.max()) > 0) == (n > 0)
