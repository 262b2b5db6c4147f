"""``avatar.ply``: one file for any 3DGS viewer and for us.

A viewer sees splats at rest, in world space, under the usual property names. We also find the
triangle of each splat, the learned identity, and comments that say which head it all rides on; the
triangle-local parameters come back by undoing the rest pose.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel, WorldFrame
from headstudio.splats.parameters import Splats
from headstudio.splats.ply import read_ply, write_ply
from headstudio.splats.rig import TriangleFrames, pose_splats, triangle_frames, unpose_geometry

FORMAT_VERSION = 1
_COMMENT = "headstudio "
_LARGEST_SCALE = 30.0  # of a logarithm; far beyond it, exp() is infinite
_GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "colors": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacities": ("opacity",),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}


@dataclass
class Avatar:
    """What an ``avatar.ply`` holds."""

    splats: Splats
    """Triangle-local, on the device of the head model it was loaded with."""
    shape: Tensor
    """``[n_shape]``, the learned identity coefficients."""
    prompt: str
    extent: float
    """Longest extent of the neutral head in world units; see `HeadModel.world_frame`."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The file's other comments: ``format_version``, ``head_name``, ``head_hash``."""


def rest_frames(head: HeadModel, shape: Tensor, frame: WorldFrame) -> TriangleFrames:
    """Frames of a head's triangles at rest, in world space.

    Args:
        head: of F triangles.
        shape: ``[n]`` identity coefficients, n at most ``head.n_shape``.
        frame: from FLAME's frame to the world.

    Returns:
        Frames of one pose, in float64: the file holds float32, and undoing the rest pose should
        not add to its rounding.
    """
    faces = head.faces
    params = FlameParams.zeros(1, head.n_shape, head.n_expression, device=faces.device)
    params = params.replace(shape=shape.detach().to(params.shape)[None])
    vertices = frame.to(faces.device).to_world(head(params))
    return triangle_frames(vertices.detach().double(), faces)


def save_avatar(
    path: str | Path,
    splats: Splats,
    head: HeadModel,
    shape: Tensor,
    frame: WorldFrame,
    prompt: str,
) -> None:
    """Write ``avatar.ply``: at once, or not at all.

    Args:
        path: of the file; its folder is made if need be.
        splats: triangle-local.
        head: the model they ride on.
        shape: ``[n]`` identity coefficients, n at most ``head.n_shape``.
        frame: the one `HeadModel.world_frame` gives for some extent.
        prompt: what the avatar was made from.

    Raises:
        HeadStudioError: if values are not finite, a triangle or coefficient does not exist, or the
            file cannot be written.
    """
    splats = splats.detach().to(head.faces.device)
    _check_values(f"the avatar for {path}", splats, shape, head)
    posed = pose_splats(_double(splats), rest_frames(head, shape, frame))
    n = splats.n
    values = {
        "means": posed.means[0],
        "normals": torch.zeros(n, 3),
        "colors": splats.colors,
        "opacities": splats.opacities,
        "scales": posed.scales[0].log(),
        "quats": posed.quats[0],
    }
    columns = [(name, "<f4") for names in _GROUPS.values() for name in names]
    vertex = np.empty(n, dtype=[*columns, ("face", "<u4")])
    for group, names in _GROUPS.items():
        array = values[group].reshape(n, -1).float().cpu().numpy()
        for column, name in enumerate(names):
            vertex[name] = array[:, column]
    vertex["face"] = splats.face.cpu().numpy()

    coefficients = np.zeros(head.n_shape, dtype=[("coefficient", "<f4")])
    coefficients["coefficient"][: shape.shape[0]] = shape.detach().cpu().numpy()
    notes = {
        "format_version": FORMAT_VERSION,
        "prompt": prompt,
        "head_name": head.name,
        "head_hash": head.content_hash,
        "extent": _extent_of(frame, head),
    }
    # JSON keeps any prompt on one line of ASCII, which is all that a PLY header can hold.
    comments = [f"{_COMMENT}{key} {json.dumps(value)}" for key, value in notes.items()]
    write_ply(path, {"vertex": vertex, "flame_shape": coefficients}, comments)


def load_avatar(path: str | Path, head: HeadModel) -> Avatar:
    """Read what `save_avatar` wrote.

    Args:
        path: of the file.
        head: the model the avatar was saved with.

    Raises:
        HeadStudioError: if the file is missing, damaged, not one of ours, of another format
            version, or rides on another head model.
    """
    elements, comments = read_ply(path)
    notes = _parse_notes(path, comments)
    _check_head(path, notes, head)
    vertex, coefficients = _checked_elements(path, elements)
    shape = torch.from_numpy(coefficients["coefficient"].astype(np.float32))
    extent = notes.pop("extent")

    groups = {
        name: np.stack([vertex[column] for column in columns], axis=-1).astype(np.float64)
        for name, columns in _GROUPS.items()
    }
    world = Splats(
        **{name: torch.from_numpy(groups[name]) for name in ("means", "quats", "scales", "colors")},
        opacities=torch.from_numpy(groups["opacities"][:, 0]),
        face=torch.from_numpy(vertex["face"].astype(np.int64)),
    ).to(head.faces.device)
    _check_values(path, world, shape, head, exactly=True)

    frames = rest_frames(head, shape, head.world_frame(extent))
    means, quats, scales = unpose_geometry(
        world.means, world.quats, world.scales, world.face, frames
    )
    splats = Splats(
        means=means.float(),
        quats=quats.float(),
        scales=scales.float(),
        opacities=world.opacities.float(),
        colors=world.colors.float(),
        face=world.face,
    )
    # Numbers that are finite, and too large to be a head's, are no longer so here.
    _check_values(path, splats, shape, head, exactly=True)
    return Avatar(
        splats=splats,
        shape=shape.to(head.faces.device),
        prompt=notes.pop("prompt"),
        extent=extent,
        metadata=notes,
    )


def _double(splats: Splats) -> Splats:
    return Splats(**{k: v.double() for k, v in splats.parameters().items()}, face=splats.face)


def _extent_of(frame: WorldFrame, head: HeadModel) -> float:
    """The extent for which the head model gives this frame."""
    neutral = head.neutral()
    longest = float((neutral.amax(0) - neutral.amin(0)).max())
    extent = float(f"{frame.scale * longest:.6g}")  # 1.5, and not 1.4999999
    expected = head.world_frame(extent)
    same_scale = math.isclose(expected.scale, frame.scale, rel_tol=1e-5)
    center = frame.center.to(expected.center)
    if not same_scale or not torch.allclose(expected.center, center, atol=1e-6 * longest):
        raise HeadStudioError(
            "the avatar's world frame is not one of its head model's; take head.world_frame(extent)"
            " so that whoever reads the file finds the same."
        )
    return extent


def _parse_notes(path: str | Path, comments: list[str]) -> dict[str, Any]:
    notes = {}
    for comment in comments:
        if comment.startswith(_COMMENT):
            key, _, value = comment[len(_COMMENT) :].partition(" ")
            try:
                notes[key] = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise HeadStudioError(f"{path} is damaged: its comment {key!r} is.") from error
    if "format_version" not in notes:
        raise HeadStudioError(
            f"{path} is a PLY file, but not an avatar of ours: it does not say what head its "
            "splats ride on. If another program saved it, take the file it was opened from."
        )
    if notes["format_version"] != FORMAT_VERSION:
        raise HeadStudioError(
            f"{path} has format version {notes['format_version']!r}; this program reads version "
            f"{FORMAT_VERSION}. Update the program, or export the avatar again."
        )
    for key, kind in (("prompt", str), ("head_name", str), ("head_hash", str)):
        if not isinstance(notes.get(key), kind):
            raise HeadStudioError(f"{path} is damaged: its comment {key!r} is missing or wrong.")
    extent: Any = notes.get("extent")
    if type(extent) not in (int, float) or not 1e-6 < extent < 1e6:
        raise HeadStudioError(f"{path} is damaged: its extent is {str(extent)[:40]}, not a length.")
    return notes


def _check_head(path: str | Path, notes: dict[str, Any], head: HeadModel) -> None:
    if notes["head_hash"] != head.content_hash:
        raise HeadStudioError(
            f"{path} rides on the head model {notes['head_name']!r} "
            f"({notes['head_hash'][:12]}), and was opened with {head.name!r} "
            f"({head.content_hash[:12]}). Open it with the head model it was made with."
        )


def _checked_elements(
    path: str | Path, elements: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The elements ``vertex`` and ``flame_shape``, with every property that is needed."""
    columns = [name for names in _GROUPS.values() for name in names]
    for name, needed in (("vertex", [*columns, "face"]), ("flame_shape", ["coefficient"])):
        present = elements[name].dtype.names if name in elements else ()
        missing = [column for column in needed if column not in (present or ())]
        if missing:
            raise HeadStudioError(
                f"{path} is not an avatar of ours: element {name} lacks {', '.join(missing)}. If "
                "another program saved it, take the file it was opened from."
            )
    vertex, coefficients = elements["vertex"], elements["flame_shape"]
    if len(vertex) == 0:
        raise HeadStudioError(f"{path} has no splats.")
    if vertex.dtype["face"].kind not in "iu":
        raise HeadStudioError(f"{path} is damaged: its property face is not an integer.")
    return vertex, coefficients


def _check_values(
    where: str | Path, splats: Splats, shape: Tensor, head: HeadModel, exactly: bool = False
) -> None:
    """Refuse numbers that are not finite, and indices of what the head model does not have."""
    for name, value in {**splats.parameters(), "shape": shape}.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise HeadStudioError(f"{where}: {bad} values of {name} are not finite numbers.")
    if not (torch.linalg.vector_norm(splats.quats, dim=-1) > 0).all():
        raise HeadStudioError(f"{where}: a quaternion has no length.")
    if exactly and float(splats.scales.max()) > _LARGEST_SCALE:
        raise HeadStudioError(f"{where} is damaged: a splat is larger than anything there is.")
    n_faces = head.faces.shape[0]
    if int(splats.face.min()) < 0 or int(splats.face.max()) >= n_faces:
        raise HeadStudioError(
            f"{where}: splats ride on triangles {int(splats.face.min())} to "
            f"{int(splats.face.max())}; the head model {head.name!r} has {n_faces}."
        )
    n = shape.shape[0]
    if n > head.n_shape or (exactly and n != head.n_shape):
        raise HeadStudioError(
            f"{where}: {n} shape coefficients, where the head model {head.name!r} has "
            f"{head.n_shape}."
        )
