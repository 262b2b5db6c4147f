"""The losses that keep splats where and how large they should be."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headstudio.plugin.geometry import FlameGaussians
from headstudio.splats import position_regulariser, scale_regulariser

REGULARISERS = ("position", "scaling", "shape", "sparsity", "opaque")


def regularisers(
    out: dict[str, Any],
    geometry: FlameGaussians,
    active: set[str],
    threshold: float,
    adaptive: bool,
) -> dict[str, Tensor]:
    """The regularisers whose weights are named in ``active``, as ``loss_<name>``.

    ============  =============================================================================
    ``position``  distance of a splat from its triangle's centroid, beyond the threshold
    ``scaling``   size of a splat, beyond the threshold
    ``shape``     norm of the learned FLAME shape
    ``sparsity``  opacity of the picture, ``mean sqrt(a^2 + 0.01)``
    ``opaque``    entropy of the picture's opacity: 0 where it is 0 or 1
    ============  =============================================================================

    Args:
        out: of ``gsplat-renderer``.
        geometry: the splats it was rendered from.
        active: names of weights, ``lambda_<name>``; others, such as ``lambda_sds``, are ignored.
        threshold, adaptive: see :func:`headstudio.splats.position_regulariser`.
    """
    rig = (out["posed"].splats, geometry.splats.face, out["posed"].frames)
    losses = {
        "position": lambda: position_regulariser(*rig, threshold, adaptive),
        "scaling": lambda: scale_regulariser(*rig, threshold, adaptive),
        "shape": lambda: torch.linalg.vector_norm(geometry.shape),
        "sparsity": lambda: (out["opacity"].square() + 0.01).sqrt().mean(),
        "opaque": lambda: _entropy(out["opacity"].clamp(1e-3, 1 - 1e-3)),
    }
    return {f"loss_{name}": loss() for name, loss in losses.items() if f"lambda_{name}" in active}


def _entropy(probability: Tensor) -> Tensor:
    return F.binary_cross_entropy(probability, probability)
