"""``gsplat-renderer``: the posed splats seen by a batch of cameras."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.plugin.geometry import FlameGaussians, PosedHead
from headstudio.render import Backend, Cameras, render_splats
from headstudio.settings import check_all, setting
from threestudio.models.background.base import BaseBackground
from threestudio.models.materials.base import BaseMaterial
from threestudio.models.renderers.base import Rasterizer

BACKENDS = get_args(Backend)


def batch_cameras(c2w: Tensor, fovy: Tensor, height: int, width: int, poses: int) -> Cameras:
    """threestudio's batch of cameras, shared out over the poses.

    Args:
        c2w: ``[B, 4, 4]``; fovy: ``[B]`` in radians; poses: P, either 1 or B.

    Returns:
        Cameras ``[P, B / P]``: all views of the one pose, or one view of each.
    """
    views = len(c2w)
    if poses not in (1, views):
        raise HeadStudioError(
            f"{poses} poses were given for {views} views; give one pose, or one for each view."
        )
    return Cameras(
        c2w.reshape(poses, -1, 4, 4), fovy.reshape(poses, -1), height=height, width=width
    )


@threestudio.register("gsplat-renderer")
class GsplatRenderer(Rasterizer):
    """gsplat on CUDA, numba on the CPU, behind threestudio's renderer."""

    @dataclass
    class Config(Rasterizer.Config):
        # "auto" takes gsplat for tensors on CUDA, numba for those on the CPU.
        backend: str = setting("auto", one_of=BACKENDS)

        def __post_init__(self) -> None:
            check_all(self, "system.renderer")

    cfg: Config
    geometry: FlameGaussians

    def configure(
        self, geometry: FlameGaussians, material: BaseMaterial, background: BaseBackground
    ) -> None:
        if not isinstance(geometry, FlameGaussians):
            raise HeadStudioError(
                "gsplat-renderer draws the geometry flame-gaussians, not "
                f"{type(geometry).__name__}."
            )
        super().configure(geometry, material, background)

    def forward(
        self,
        c2w: Tensor,
        fovy: Tensor,
        height: int,
        width: int,
        flame: Mapping[str, Tensor] | None = None,
        posed: PosedHead | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Render B views in one batched call.

        Args:
            c2w, fovy, height, width: the batch's cameras, ``[B, 4, 4]`` and ``[B]``.
            flame: FLAME parameters by name, one row or one for each view.
            posed: the head already posed; then ``flame`` is not looked at.
            kwargs: whatever else is in the batch; ignored.

        Returns:
            ``comp_rgb [B,H,W,3]`` over the background, ``opacity [B,H,W,1]``, ``depth [B,H,W,1]``;
            ``posed``, ``cameras``, and for density control ``means2d`` (its gradient is filled in
            by backward) and ``radii``.
        """
        placed = self.place(c2w, fovy, height, width, flame, posed)
        posed, cameras = placed["posed"], placed["cameras"]
        image = render_splats(posed.splats, cameras, backend=self.cfg.backend)
        opacity = image.alpha.flatten(0, 1)
        background = self.background(dirs=self._directions(c2w, fovy, height, width))
        return {
            "comp_rgb": image.rgb.flatten(0, 1) + (1.0 - opacity) * background,
            "opacity": opacity,
            "depth": image.depth.flatten(0, 1),
            "posed": posed,
            "cameras": cameras,
            "means2d": image.means2d,
            "radii": image.radii,
        }

    def place(
        self,
        c2w: Tensor,
        fovy: Tensor,
        height: int,
        width: int,
        flame: Mapping[str, Tensor] | None = None,
        posed: PosedHead | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """``posed`` and ``cameras`` of :meth:`forward`, whose arguments these are."""
        posed = posed or self.geometry.pose(flame)
        cameras = batch_cameras(c2w, fovy, height, width, poses=len(posed.vertices))
        return {"posed": posed, "cameras": cameras}

    def _directions(self, c2w: Tensor, fovy: Tensor, height: int, width: int) -> Tensor:
        """What the background is asked for: of a single colour, one pixel is enough."""
        if isinstance(self.background, threestudio.find("solid-color-background")):
            return c2w.new_zeros(len(c2w), 1, 1, 3)
        return view_directions(c2w, fovy, height, width)


def view_directions(c2w: Tensor, fovy: Tensor, height: int, width: int) -> Tensor:
    """Unit directions of the pixels' rays in the world, ``[B, H, W, 3]``, for a background.

    threestudio's ``get_rays`` gives the same through a 3 x 3 product for every pixel: 300 MB for
    eight views of 1024 px.
    """
    focal = (0.5 * height / (0.5 * fovy).tan())[:, None, None]
    right, up, backward = c2w[:, :3, :3].unbind(-1)
    x = torch.arange(width, device=c2w.device) + 0.5 - width / 2
    y = height / 2 - torch.arange(height, device=c2w.device) - 0.5
    across = x[None, :, None] / focal * right[:, None]  # [B, W, 3]
    along = y[None, :, None] / focal * up[:, None] - backward[:, None]  # [B, H, 3]
    return F.normalize(across[:, None] + along[:, :, None], dim=-1)
