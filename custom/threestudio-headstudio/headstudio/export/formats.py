"""The formats by name, and one door to all of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from headstudio.errors import HeadStudioError
from headstudio.export.splat_files import UPS, write_splats
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import Motion
from headstudio.nearest import did_you_mean
from headstudio.splats import Avatar, pose_splats, triangle_frames

SUFFIXES = {
    "ply": ".ply",
    "compressed-ply": ".compressed.ply",
    "splat": ".splat",
    "glb": ".glb",
}
"""What files of each format are called."""


def check_format(file_format: str, up: str | None = None) -> None:
    """Refuse a format that does not exist, and a direction that it cannot have.

    Raises:
        HeadStudioError: saying which there are.
    """
    if file_format not in SUFFIXES:
        raise HeadStudioError(
            f"there is no export format {file_format!r}{did_you_mean(file_format, SUFFIXES)} "
            f"There are {', '.join(SUFFIXES)}."
        )
    if file_format == "glb" and up not in (None, "y"):
        raise HeadStudioError(f"a .glb is y up by its specification; it cannot be {up} up.")
    if up is not None and up not in UPS:
        raise HeadStudioError(f"unknown direction {up!r} for up; there are {', '.join(UPS)}.")


@torch.no_grad()
def export_avatar(
    path: str | Path,
    file_format: str,
    avatar: Avatar,
    head: HeadModel,
    pose: FlameParams | None = None,
    motion: Motion | None = None,
    up: str | None = None,
    subdivisions: int = 1,
) -> None:
    """Write an avatar for another program, at once or not at all.

    Args:
        path: of the file.
        file_format: a key of `SUFFIXES`.
        avatar: as `load_avatar` gives it.
        head: the model it rides on.
        pose: of one row; its shape is not used, the avatar has its own. None is at rest.
        motion: the animation in a ``.glb``; the other formats have none.
        up: for splats, one of `headstudio.export.UPS`; None is "z", our world.
        subdivisions: of the mesh of a ``.glb``; see `export_glb`.

    Raises:
        HeadStudioError: for what the format cannot do; see also `write_splats` and `export_glb`.
    """
    check_format(file_format, up)
    if file_format == "glb":
        _require_pygltflib()
        from headstudio.export.head_mesh import export_glb

        export_glb(path, avatar, head, pose, motion, subdivisions)
        return
    if motion is not None:
        raise HeadStudioError(f"a {SUFFIXES[file_format]} file holds one pose and no motion.")
    device = head.faces.device
    if pose is None:
        pose = FlameParams.zeros(1, head.n_shape, head.n_expression)
    pose = pose.to(device).replace(shape=avatar.shape[None].to(device))
    vertices = head.world_frame(avatar.extent).to_world(head(pose))
    posed = pose_splats(avatar.splats, triangle_frames(vertices, head.faces))
    write_splats(path, posed, file_format, up or "z")


def _require_pygltflib() -> None:
    """In a threestudio checkout it may not be installed, and only this format needs it.

    Raises:
        HeadStudioError: if it is missing.
    """
    if importlib.util.find_spec("pygltflib") is None:
        raise HeadStudioError("writing a .glb needs pygltflib: pip install pygltflib")
