"""The CUDA backend: gsplat, imported only when it is used."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.render import constants
from headstudio.render.cameras import Cameras


@lru_cache(maxsize=1)
def require() -> None:
    """Make sure that gsplat's kernels are there, compiling them if this is the first time.

    Raises:
        HeadStudioError: if there is no CUDA device, or gsplat cannot be imported or compiled;
            the message says what to install.
    """
    if not torch.cuda.is_available():
        raise HeadStudioError(
            "backend='gsplat' needs a CUDA device and PyTorch sees none. "
            "Use backend='numba' (or 'auto') to render on the CPU."
        )
    try:
        from gsplat.cuda._backend import _C
    except Exception as error:  # the compiler's output arrives as any of several types
        reason = "\n".join(str(error).strip().splitlines()[-8:])
        raise HeadStudioError(
            f"gsplat could not be compiled or loaded:\n{reason}\n{_what_to_install()}"
        ) from error
    if _C is None:
        raise HeadStudioError(
            "there is a CUDA device, but gsplat found no CUDA compiler (nvcc) to build its "
            f"kernels with.\n{_what_to_install()}"
        )


def _what_to_install() -> str:
    return (
        f"Install the CUDA toolkit {torch.version.cuda} that this PyTorch was built for, a C++ "
        "compiler and `pip install ninja`; then set CUDA_HOME to the toolkit's folder (the one "
        "that holds bin/nvcc) and run again. The first run compiles for some minutes. "
        "Or render on the CPU: backend='numba' with tensors on the CPU."
    )


def rasterize(
    means: Tensor,  # [P, N, 3]
    quats: Tensor,  # [P, N, 4]
    scales: Tensor,  # [P, N, 3]
    opacities: Tensor,  # [P or 1, N]
    values: Tensor,  # [P or 1, N, K]
    cameras: Cameras,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As ``reference.rasterize``; float32, every picture in one call.

    gsplat leaves ``means2d`` of culled splats (radius 0) uninitialised.
    """
    require()
    from gsplat import rasterization

    poses = means.shape[0]
    blended, alpha, info = rasterization(
        means,
        quats,
        scales,
        opacities.expand(poses, -1),
        values.expand(poses, -1, -1),
        cameras.viewmats(),
        cameras.intrinsics(),
        cameras.width,
        cameras.height,
        near_plane=cameras.near,
        far_plane=cameras.far,
        eps2d=constants.EPS2D,
        packed=False,  # keeps means2d as [P, C, N, 2]
        render_mode="RGB+D",
        rasterize_mode="classic",
    )
    means2d = info["means2d"]
    if means2d.requires_grad:
        means2d.retain_grad()
    return blended[..., :-1], blended[..., -1:], alpha, means2d, info["radii"]
