"""The CPU backend: numba kernels as differentiable PyTorch functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from headstudio.render import _compositing, _painting, _projection, _tiles
from headstudio.render._jit import Array, run
from headstudio.render.cameras import Cameras

if TYPE_CHECKING:
    from headstudio.render.grouped import GroupedSplats


def _array(tensor: Tensor) -> Array:
    """The tensor's memory as a contiguous numpy array."""
    return tensor.detach().contiguous().numpy()


class _Project(torch.autograd.Function):
    """(means, quats, scales) -> (means2d, conics, depths, radii); see ``reference.project``."""

    @staticmethod
    def forward(
        ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, cameras: Cameras
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = (means.shape[0], cameras.views, means.shape[1])
        means2d, conics = means.new_empty(*shape, 2), means.new_empty(*shape, 3)
        depths = means.new_empty(shape)
        radii = torch.empty(*shape, 2, dtype=torch.int32)
        ctx.camera = (
            _array(cameras.viewmats().double()),
            _array(cameras.focal().double()),
            cameras.height,
            cameras.width,
        )
        run(
            _projection.project_forward,
            _array(means),
            _array(quats),
            _array(scales),
            _array(opacities),
            *ctx.camera,
            float(cameras.near),
            float(cameras.far),
            means2d.numpy(),
            conics.numpy(),
            depths.numpy(),
            radii.numpy(),
        )
        ctx.save_for_backward(means, quats, scales, radii)
        ctx.mark_non_differentiable(radii)
        return means2d, conics, depths, radii

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, v_means2d: Tensor, v_conics: Tensor, v_depths: Tensor, _: Any
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, radii = ctx.saved_tensors
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format)
                     for x in (means, quats, scales)]  # fmt: skip
        run(
            _projection.project_backward,
            *(_array(x) for x in (means, quats, scales)),
            *ctx.camera,
            *(_array(x) for x in (radii, v_means2d, v_conics, v_depths)),
            *(x.numpy() for x in gradients),
        )
        return (*gradients, None, None)


class _Composite(torch.autograd.Function):
    """Ellipses -> (accumulated values and depth, alpha); see ``reference.composite``."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,  # [P, C, N, 2]
        conics: Tensor,  # [P, C, N, 3]
        opacities: Tensor,  # [P or 1, N]
        values: Tensor,  # [P or 1, N, K]
        depths: Tensor,  # [P, C, N]
        radii: Tensor,  # [P, C, N, 2]
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor]:
        poses, views = depths.shape[:2]
        n_images = poses * views
        centers, sizes, distances = (_array(x.flatten(0, 1)) for x in (means2d, radii, depths))
        pairs, tile_start, slot_start = _tiles.list_pairs(centers, sizes, distances, height, width)
        # Picture i of pose i // views reads that row, or row 0 where all poses share one.
        rows = [views if x.shape[0] == poses else n_images for x in (opacities, values)]
        blended = means2d.new_empty(n_images, height, width, values.shape[-1] + 1)
        transmittance = means2d.new_empty(n_images, height, width)
        last = torch.empty(n_images, height, width, dtype=torch.int32)
        inputs = (means2d, conics, opacities, values, depths, radii)
        run(
            _compositing.composite_forward,
            *_per_image(*inputs),
            pairs,
            tile_start,
            *rows,
            *(x.numpy() for x in (blended, transmittance, last)),
            chunk=4,
        )
        ctx.save_for_backward(*inputs, transmittance, last)
        ctx.lists = (pairs, tile_start, slot_start, rows)
        alpha = (1 - transmittance)[..., None]
        return blended.unflatten(0, (poses, views)), alpha.unflatten(0, (poses, views))

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, v_blended: Tensor, v_alpha: Tensor
    ) -> tuple[Tensor | None, ...]:
        *inputs, transmittance, last = ctx.saved_tensors
        pairs, tile_start, slot_start, rows = ctx.lists
        v_pairs = np.zeros((len(pairs), 6 + v_blended.shape[-1]), np.float32)
        run(
            _compositing.composite_backward,
            *_per_image(*inputs),
            pairs,
            tile_start,
            *rows,
            transmittance.numpy(),
            last.numpy(),
            _array(v_blended.flatten(0, 1)),
            _array(v_alpha.flatten(0, 1)[..., 0]),
            v_pairs,
            chunk=4,
        )
        v_means2d, v_conics, v_opacities, v_values, v_depths = (
            torch.zeros(x.shape) for x in inputs[:5]
        )
        run(
            _compositing.sum_pairs,
            v_pairs,
            slot_start,
            *rows,
            *(x.flatten(0, 1).numpy() for x in (v_means2d, v_conics, v_depths)),
            v_opacities.numpy(),
            v_values.numpy(),
        )
        return v_means2d, v_conics, v_opacities, v_values, v_depths, None, None, None


def _per_image(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    values: Tensor,
    depths: Tensor,
    radii: Tensor,
) -> tuple[Array, ...]:
    """The inputs of compositing as arrays, [P, C] joined to the number of pictures."""
    ellipses = [_array(x.flatten(0, 1)) for x in (means2d, conics, depths, radii)]
    return (*ellipses[:2], _array(opacities), _array(values), *ellipses[2:])


def rasterize(
    means: Tensor,  # [P, N, 3]
    quats: Tensor,  # [P, N, 4]
    scales: Tensor,  # [P, N, 3]
    opacities: Tensor,  # [P or 1, N]
    values: Tensor,  # [P or 1, N, K]
    cameras: Cameras,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As ``reference.rasterize``; float32."""
    means2d, conics, depths, radii = _Project.apply(means, quats, scales, opacities, cameras)
    if means2d.requires_grad:
        means2d.retain_grad()
    blended, alpha = _Composite.apply(
        means2d, conics, opacities, values, depths, radii, cameras.height, cameras.width
    )
    return blended[..., :-1], blended[..., -1:], alpha, means2d, radii


def rasterize_grouped(
    splats: GroupedSplats, maps: Tensor, cameras: Cameras
) -> tuple[Tensor, Tensor]:
    """Colours and alpha; see ``grouped.render_grouped``."""
    shape = (maps.shape[0], cameras.views, splats.n)
    means2d, conics = torch.empty(*shape, 2), torch.empty(*shape, 3)
    depths, radii = torch.empty(shape), torch.empty(*shape, 2, dtype=torch.int32)
    run(
        _projection.project_grouped,
        *(_array(x) for x in (maps, splats.group, splats.means, splats.axes, splats.opacities)),
        _array(cameras.viewmats().double()),
        _array(cameras.focal().double()),
        cameras.height,
        cameras.width,
        float(cameras.near),
        float(cameras.far),
        *(x.numpy() for x in (means2d, conics, depths, radii)),
    )
    images = [_array(x.flatten(0, 1)) for x in (means2d, conics, radii)]
    height, width = cameras.height, cameras.width
    pairs, tile_start, _ = _tiles.list_pairs(
        images[0], images[2], _array(depths.flatten(0, 1)), height, width
    )
    rgb = torch.empty(*shape[:2], height, width, 3)
    transmittance = torch.empty(*shape[:2], height, width)
    run(
        _painting.paint,
        *images[:2],
        *(_array(x) for x in (splats.opacities, splats.colors)),
        images[2],
        pairs,
        tile_start,
        *(x.flatten(0, 1).numpy() for x in (rgb, transmittance)),
        chunk=4,
    )
    return rgb, (1 - transmittance)[..., None]
