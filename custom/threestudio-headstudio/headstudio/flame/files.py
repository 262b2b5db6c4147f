"""Head files: what is in them, and whether it can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.landmarks import (
    FLAME_VERTICES,
    LANDMARK_KEYS,
    LandmarkEmbedding,
    embedding_from_arrays,
)
from headstudio.flame.npz import as_texts, read_npz, require_file
from headstudio.flame.pickles import read_flame_pickle

N_SHAPE, N_EXPRESSION = 300, 100
N_JOINTS = 5
PARENTS = (-1, 0, 1, 1, 1)
"""Of root, neck, jaw, left eye, right eye."""

REQUIRED = (
    "v_template",
    "f",
    "shapedirs",
    "posedirs",
    "J_regressor",
    "kintree_table",
    "weights",
)
_OPTIONAL = (
    "region_names",
    "face_region",
    "expression_names",
    "shape_names",
    "name",
    "licence",
    *LANDMARK_KEYS,
)


@dataclass
class HeadArrays:
    """A checked head model in FLAME's layout, floats as float32."""

    v_template: np.ndarray  # [V, 3] metres, y up, face +z
    faces: np.ndarray  # [F, 3] int64
    shapedirs: np.ndarray  # [V, 3, n_shape + n_expression]
    posedirs: np.ndarray  # [V, 3, 36]
    J_regressor: np.ndarray  # [5, V]
    weights: np.ndarray  # [V, 5]
    name: str
    licence: str = ""
    n_shape: int = N_SHAPE
    face_region: np.ndarray | None = None  # [F] int64
    region_names: list[str] = field(default_factory=list)
    expression_names: list[str] = field(default_factory=list)
    shape_names: list[str] = field(default_factory=list)
    landmarks: LandmarkEmbedding | None = None


def read_head(path: str | Path) -> HeadArrays:
    """Read ``open_head.npz``, or FLAME 2020/2023 as ``.pkl`` or ``.npz``.

    Raises:
        HeadStudioError: missing or damaged file, missing entries, or arrays that do not fit.
    """
    path = require_file(path, "a head model (.npz or FLAME's .pkl)")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        entries = read_npz(path, "a head model", (*REQUIRED, *_OPTIONAL))
    elif suffix == ".pkl":
        entries = read_flame_pickle(path, REQUIRED)
    else:
        raise HeadStudioError(
            f"{path} ends in {suffix or 'nothing'!r}; a head model is an .npz or FLAME's .pkl."
        )
    return head_from_entries(entries, path)


def head_from_entries(entries: Mapping[str, np.ndarray], path: Path) -> HeadArrays:
    """Check the entries of a head file, whose name is used in messages.

    Raises:
        HeadStudioError: as :func:`read_head`.
    """
    missing = [key for key in REQUIRED if key not in entries]
    if missing:
        raise HeadStudioError(
            f"{path} lacks {', '.join(missing)}; a head model in FLAME's format has "
            f"{', '.join(REQUIRED)}."
        )
    n_vertices, n_faces = _check_shapes(entries, path)
    if entries["f"].dtype.kind not in "iu":
        raise HeadStudioError(f"{path}: f holds {entries['f'].dtype}; expected vertex numbers.")
    name = _text(entries, "name", path) if "name" in entries else path.stem
    if "name" not in entries and n_vertices == FLAME_VERTICES:
        name = f"FLAME {path.stem}"
    head = HeadArrays(
        v_template=_floats(entries, "v_template", path),
        faces=np.ascontiguousarray(entries["f"], dtype=np.int64),
        shapedirs=_floats(entries, "shapedirs", path),
        posedirs=_floats(entries, "posedirs", path),
        J_regressor=_floats(entries, "J_regressor", path),
        weights=_floats(entries, "weights", path),
        name=name,
        licence=_text(entries, "licence", path) if "licence" in entries else "",
        expression_names=_names(entries, "expression_names", path),
        shape_names=_names(entries, "shape_names", path),
        region_names=_names(entries, "region_names", path),
    )
    _check_values(head, entries["kintree_table"], path)
    if "face_region" in entries:
        head.face_region = _regions(entries["face_region"], head, path)
    if any(key in entries for key in LANDMARK_KEYS):
        head.landmarks = embedding_from_arrays(entries, n_faces, path)
    return head


def _check_shapes(entries: Mapping[str, np.ndarray], path: Path) -> tuple[int, int]:
    """Compare every array with FLAME's layout; returns (V, F)."""
    v_template, faces = entries["v_template"], entries["f"]
    if v_template.ndim != 2 or v_template.shape[0] < 4:
        raise HeadStudioError(
            f"{path}: v_template has shape {list(v_template.shape)}; expected [V, 3]."
        )
    n = v_template.shape[0]
    expected: dict[str, tuple[int, ...]] = {
        "v_template": (n, 3),
        "f": (faces.shape[0] if faces.ndim else 0, 3),
        "shapedirs": (n, 3, N_SHAPE + N_EXPRESSION),
        "posedirs": (n, 3, 9 * (N_JOINTS - 1)),
        "J_regressor": (N_JOINTS, n),
        "kintree_table": (2, N_JOINTS),
        "weights": (n, N_JOINTS),
    }
    for key, shape in expected.items():
        given = entries[key].shape
        if given == shape:
            continue
        advice = ""
        if key == "shapedirs" and given[:2] == shape[:2]:
            advice = (
                f" The columns are {N_SHAPE} identity, then {N_EXPRESSION} expression directions, "
                "as in FLAME 2020 and 2023; a trimmed file will not do."
            )
        elif key == "weights" and given == (n, 24):
            advice = " This looks like a SMPL body; take FLAME from https://flame.is.tue.mpg.de."
        raise HeadStudioError(
            f"{path}: {key} has shape {list(given)}; expected {list(shape)}.{advice}"
        )
    return n, faces.shape[0]


def _check_values(head: HeadArrays, kintree: np.ndarray, path: Path) -> None:
    """Triangle indices, joint tree and skinning weights, which a wrong file gets wrong first."""
    if head.faces.size and not (head.faces.min() >= 0 and head.faces.max() < len(head.v_template)):
        raise HeadStudioError(
            f"{path}: f names vertices {head.faces.min()} to {head.faces.max()}; there are "
            f"{len(head.v_template)}."
        )
    if kintree.dtype.kind not in "iuf" or not np.isfinite(kintree).all():
        raise HeadStudioError(f"{path}: kintree_table holds {kintree.dtype}; expected integers.")
    parents = [int(parent) for parent in kintree[0]]
    if parents[0] == 2**32 - 1:  # -1 in the unsigned integers of the published files
        parents[0] = -1
    if tuple(parents) != PARENTS:
        raise HeadStudioError(
            f"{path}: kintree_table gives parents {parents}; expected {list(PARENTS)} "
            "(root, neck, jaw, left eye, right eye)."
        )
    total = head.weights.sum(axis=1)
    if not np.allclose(total, 1.0, atol=1e-2):
        raise HeadStudioError(
            f"{path}: the skinning weights of a vertex must sum to 1; found {total.min():.3g} to "
            f"{total.max():.3g}."
        )


def _floats(entries: Mapping[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    array = entries[key]
    if array.dtype.kind not in "fiu":
        raise HeadStudioError(f"{path}: {key} holds {array.dtype}; expected numbers.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        floats = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(floats).all():
        raise HeadStudioError(f"{path}: {key} has values that are not finite; the file is damaged.")
    return floats


def _names(entries: Mapping[str, np.ndarray], key: str, path: Path) -> list[str]:
    array = entries.get(key)
    if array is None:
        return []
    if array.ndim != 1 or array.dtype.kind != "U":
        raise HeadStudioError(
            f"{path}: {key} is {array.dtype} {list(array.shape)}; expected a list of texts."
        )
    try:
        return as_texts(array)
    except ValueError as error:
        raise HeadStudioError(f"{path}: {key} is damaged: {error}.") from error


def _text(entries: Mapping[str, np.ndarray], key: str, path: Path) -> str:
    """A single text, such as the head's name."""
    array = entries[key]
    if array.shape != ():
        raise HeadStudioError(f"{path}: {key} is {array.dtype} {list(array.shape)}; expected text.")
    return _names({key: array.reshape(1)}, key, path)[0]


def _regions(region: np.ndarray, head: HeadArrays, path: Path) -> np.ndarray:
    n_faces, n_regions = len(head.faces), len(head.region_names)
    if region.shape != (n_faces,) or region.dtype.kind not in "iu":
        raise HeadStudioError(
            f"{path}: face_region is {region.dtype} {list(region.shape)}; expected integers "
            f"[{n_faces}]."
        )
    region = region.astype(np.int64)
    if n_faces and not (region.min() >= -1 and region.max() < n_regions):
        raise HeadStudioError(
            f"{path}: face_region goes from {region.min()} to {region.max()}; expected -1 to "
            f"{n_regions - 1}, as region_names has {n_regions}."
        )
    return region
