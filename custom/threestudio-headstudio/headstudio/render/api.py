"""The one door: posed splats and cameras in, pictures out, whatever the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.render import constants
from headstudio.render.cameras import Cameras

Backend = Literal["auto", "gsplat", "numba", "reference"]


@dataclass
class RenderOutput:
    """Pictures of ``P`` poses by ``C`` cameras.

    Attributes:
        rgb: colours over the background ``[P, C, H, W, 3]``.
        alpha: how much of each pixel the splats cover ``[P, C, H, W, 1]``, 0..1.
        depth: expected distance along the viewing axis ``[P, C, H, W, 1]``, world units; the mean
            over what covers the pixel, 0 where nothing does.
        features: the extra channels, not normalised, over zero ``[P, C, H, W, K]``, or None.
        means2d: centres in the picture ``[P, C, N, 2]``, px. It retains its gradient: after
            ``backward()``, ``means2d.grad`` is dL/d(centre in px), which density control needs.
        radii: half the larger side of each splat's box ``[P, C, N]``, px, int32; 0 where the
            splat is not visible (there ``means2d`` means nothing).
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    features: Tensor | None
    means2d: Tensor
    radii: Tensor


class Posed(Protocol):
    """What ``render_splats`` reads; ``headstudio.splats.PosedSplats`` is one."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor


def render(
    means: Tensor,  # [P, N, 3]
    quats: Tensor,  # [P, N, 4]
    scales: Tensor,  # [P, N, 3]
    opacities: Tensor,  # [N] or [P, N]
    colors: Tensor,  # [N, 3] or [P, N, 3]
    cameras: Cameras,  # [P, C]
    background: Tensor | None = None,  # [3], [P, C, 3] or [P, C, H, W, 3]
    features: Tensor | None = None,  # [N, K] or [P, N, K]
    backend: Backend = "auto",
) -> RenderOutput:
    """Render 3D Gaussian splats, all poses and cameras in one call.

    The picture is that of ``gsplat.rasterization`` in its classic mode. Gradients reach means,
    quats, scales, opacities, colors, features and background, not the cameras. With
    ``backend="numba"`` results are the same bit for bit from run to run, for any number of
    threads; gsplat adds gradients in no fixed order.

    Args:
        means: centres in the world.
        quats: rotations, wxyz, of any length.
        scales: standard deviations along the splats' own axes, world units, linear.
        opacities: 0..1.
        colors: RGB, linear, 0..1.
        cameras: one pose's cameras serve all poses, and one pose is seen by all cameras.
        background: what is seen where the splats do not cover; None is black.
        features: further channels, blended as the colours are.
        backend: "auto" is gsplat for tensors on CUDA and numba on the CPU; "reference" is slow
            PyTorch, on either, and the only one that computes in float64.

    Raises:
        HeadStudioError: for shapes or devices that do not fit, or a backend that cannot run.
    """
    poses = max(means.shape[0], cameras.poses) if means.ndim == 3 else 0
    _check(means, quats, scales, opacities, colors, cameras, features, poses)
    cameras = cameras.expand(poses)
    means, quats, scales = (x.expand(poses, -1, -1) for x in (means, quats, scales))
    opacities = opacities if opacities.ndim == 2 else opacities[None]
    values = colors if colors.ndim == 3 else colors[None]
    if features is not None:
        extra = features if features.ndim == 3 else features[None]
        rows = max(values.shape[0], extra.shape[0])
        values = torch.cat([values.expand(rows, -1, -1), extra.expand(rows, -1, -1)], dim=-1)

    inputs: tuple[Tensor, ...] = (means, quats, scales, opacities, values)
    rasterize = _rasterizer(backend, means.device)
    if backend != "reference":
        inputs = tuple(x.float() for x in inputs)
    if means.shape[1] == 0:
        rasterize = _nothing
    blended, depth, alpha, means2d, radii = rasterize(*inputs, cameras)

    rgb, rest = blended[..., :3], blended[..., 3:]
    if background is not None:
        rgb = rgb + (1 - alpha) * _background(background, rgb)
    return RenderOutput(
        rgb=rgb,
        alpha=alpha,
        depth=depth / alpha.clamp(min=constants.MIN_COVERAGE),
        features=rest if features is not None else None,
        means2d=means2d,
        radii=radii.amax(-1),
    )


def render_splats(posed: Posed, cameras: Cameras, **options: Any) -> RenderOutput:
    """``render`` for an object with means, quats, scales, opacities and colors."""
    return render(
        posed.means, posed.quats, posed.scales, posed.opacities, posed.colors, cameras, **options
    )


def _rasterizer(backend: str, device: torch.device) -> Callable[..., tuple[Tensor, ...]]:
    if backend == "auto":
        backend = "gsplat" if device.type == "cuda" else "numba"
    if backend == "gsplat":
        from headstudio.render import _gsplat

        _gsplat.require()
        if device.type != "cuda":
            raise HeadStudioError(
                f"backend='gsplat' renders tensors on CUDA, these are on {device}. "
                "Move them, or use backend='auto'."
            )
        return _gsplat.rasterize
    if backend == "numba":
        if device.type != "cpu":
            raise HeadStudioError(
                f"backend='numba' renders tensors on the CPU, these are on {device}. "
                "Move them, or use backend='auto'."
            )
        from headstudio.render import _cpu

        return _cpu.rasterize
    if backend == "reference":
        from headstudio.render import reference

        return reference.rasterize
    raise HeadStudioError(
        f"unknown rendering backend {backend!r}; expected 'auto', 'gsplat', 'numba' or 'reference'."
    )


def _nothing(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    values: Tensor,
    cameras: Cameras,
) -> tuple[Tensor, ...]:
    """The pictures of no splats at all; still part of the graph, so that backward works."""
    images = (means.shape[0], cameras.views)
    means2d = means.new_zeros(*images, 0, 2).requires_grad_(means.requires_grad)
    link = sum(x.sum() for x in (means, quats, scales, opacities, values, means2d))
    picture = link * means.new_zeros(*images, cameras.height, cameras.width, values.shape[-1])
    return picture, picture[..., :1] * 0, picture[..., :1] * 0, means2d, means2d.detach().int()


def _background(background: Tensor, rgb: Tensor) -> Tensor:
    """Broadcast a background to pictures ``[P, C, H, W, 3]``."""
    poses, views, height, width, _ = rgb.shape
    if background.ndim == 3 and background.shape[-1] == 3:
        background = background[:, :, None, None]
    try:
        if background.ndim not in (1, 5):
            raise RuntimeError
        return background.to(rgb.dtype).expand(rgb.shape)
    except RuntimeError:
        raise HeadStudioError(
            f"background has shape {list(background.shape)}, expected [3], "
            f"[{poses}, {views}, 3] or [{poses}, {views}, {height}, {width}, 3]."
        ) from None


def _check(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    cameras: Cameras,
    features: Tensor | None,
    poses: int,
) -> None:
    """Compare every shape and device with what ``render`` documents."""
    if means.ndim != 3 or means.shape[-1] != 3:
        raise HeadStudioError(
            f"means have shape {list(means.shape)}, expected [P, N, 3] (poses, splats). "
            "For a single pose give means[None]."
        )
    own, n = means.shape[:2]
    if own not in (1, poses):
        raise HeadStudioError(
            f"splats have {own} poses and the cameras {cameras.poses}; the two must be equal, or "
            "one of them 1."
        )
    rows: list[tuple[int, ...]] = [(n,), (1, n), (poses, n)]
    expected: dict[str, tuple[Tensor, list[tuple[int, ...]]]] = {
        "quats": (quats, [(own, n, 4)]),
        "scales": (scales, [(own, n, 3)]),
        "opacities": (opacities, rows),
        "colors": (colors, [(*row, 3) for row in rows]),
    }
    if features is not None:
        expected["features"] = (features, [(*row, features.shape[-1]) for row in rows])
    for name, (tensor, shapes) in expected.items():
        if tuple(tensor.shape) not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
            raise HeadStudioError(
                f"{name} have shape {list(tensor.shape)}, expected {wanted} for means of shape "
                f"{list(means.shape)} and cameras of {cameras.poses} poses."
            )
        if tensor.device != means.device:
            raise HeadStudioError(f"{name} are on {tensor.device}, means on {means.device}.")
    if cameras.c2w.device != means.device:
        raise HeadStudioError(
            f"cameras are on {cameras.c2w.device}, means on {means.device}; "
            "move them with cameras.to(means.device)."
        )
