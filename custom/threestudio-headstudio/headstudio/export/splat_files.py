"""Posed splats as the files that viewers read, written by gsplat's exporter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write
from headstudio.splats import PosedSplats, matrix_to_quaternion, quaternion_product, rgb_to_sh

SPLAT_FORMATS = ("ply", "compressed-ply", "splat")

UPS = ("z", "y", "y-down")
"""Which way the head stands in the file: as in our world (z up, face along +x); y up, face along
+z; or y down, face along -z, as scenes that were captured with COLMAP lie in theirs."""

_MIN_OPACITY = 1 / 255  # the compressed format leaves out what is fainter
_AXES = {
    "z": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "y": [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
    "y-down": [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]],
}


def write_splats(
    path: str | Path, posed: PosedSplats, file_format: str = "ply", up: str = "z"
) -> int:
    """Write splats in one pose, at once or not at all.

    Args:
        path: of the file.
        posed: in world space; of exactly one pose.
        file_format: one of `SPLAT_FORMATS`. "ply" is float32, as 3DGS writes it, without normals.
            "compressed-ply" is SuperSplat's, 16 bytes a splat. "splat" is antimatter15's, 32
            bytes a splat.
        up: one of `UPS`.

    Returns:
        How many splats the file has: the compressed format leaves out what is fainter than 1/255.

    Raises:
        HeadStudioError: for an unknown format or direction, several poses, values that are not
            finite, or a file that cannot be written.
    """
    if file_format not in SPLAT_FORMATS:
        raise HeadStudioError(
            f"unknown splat format {file_format!r}; there are {', '.join(SPLAT_FORMATS)}."
        )
    means, scales, quats, opacities, colors = _arrays(posed, up)
    visible = int((opacities.sigmoid() > _MIN_OPACITY).sum())
    if file_format == "compressed-ply" and visible == 0:
        raise HeadStudioError(
            f"all {len(means)} splats are fainter than 1/255, and the compressed format leaves "
            "such splats out; nothing would remain."
        )
    # Not gsplat.export_splats: it cannot reshape the higher harmonics of splats that have none.
    from gsplat import exporter

    higher = means.new_zeros(len(means), 0)
    if file_format == "ply":
        data = exporter.splat2ply_bytes(means, scales, quats, opacities, colors, higher)
    elif file_format == "splat":
        data = exporter.splat2splat_bytes(means, scales, quats, opacities, colors)
    else:
        data = exporter.splat2ply_bytes_compressed(means, scales, quats, opacities, colors, higher)
        data = _without_empty_element(data)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return visible if file_format == "compressed-ply" else len(means)


def turned(posed: PosedSplats, up: str) -> PosedSplats:
    """Splats of our world (z up) turned to stand another way, one of `UPS`.

    Raises:
        HeadStudioError: for any other direction.
    """
    if up not in _AXES:
        raise HeadStudioError(f"unknown direction {up!r} for up; there are {', '.join(UPS)}.")
    means, quats = posed.means, posed.quats
    rotation = means.new_tensor(_AXES[up])
    return PosedSplats(
        means=means @ rotation.mT,
        quats=quaternion_product(matrix_to_quaternion(rotation), quats),
        scales=posed.scales,
        opacities=posed.opacities,
        colors=posed.colors,
    )


def _arrays(posed: PosedSplats, up: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, log scales, quaternions, logits and SH coefficients of the one pose, on the CPU."""
    if posed.means.shape[0] != 1:
        raise HeadStudioError(
            f"a splat file holds one pose; {posed.means.shape[0]} were given. Write one file each."
        )
    posed = turned(posed, up)
    values = {
        "means": posed.means[0],
        "scales": posed.scales[0].log(),
        "quaternions": posed.quats[0],
        "opacities": posed.opacities.logit(eps=1e-6),
        "colours": rgb_to_sh(posed.colors),
    }
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise HeadStudioError(f"the splats cannot be written: {name} are not all finite.")
    means, scales, quats, opacities, colors = (x.detach().float().cpu() for x in values.values())
    return means, scales, quats, opacities, colors


def _without_empty_element(data: bytes) -> bytes:
    """A PLY file without the element of higher harmonics that has no properties.

    gsplat writes it also for splats of degree 0. It has no data, but SuperSplat knows its format
    by the elements, and this one with no properties is not among those it knows.
    """
    header, end, body = data.partition(b"end_header\n")
    lines = [line for line in header.splitlines(True) if not line.startswith(b"element sh ")]
    return b"".join(lines) + end + body
