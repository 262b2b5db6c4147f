"""Scores of MediaPipe's face landmarker, as people save them as ``.json``.

There is no one format. Read are: a list of frames, or a dictionary with such a list under
``frames``, ``results`` or ``data``, or a dictionary of columns (action to list of scores). A frame
is a list of categories ``{"categoryName", "score"}`` (``category_name`` in Python), or a dictionary
of scores by action, or a dictionary that has either under a key such as ``blendshapes`` or
``faceBlendshapes``, as the landmarker's own results have. A frame may have a time
(``timestamp_ms``, ``timestamp``, ``time``) and the face's matrix
(``facialTransformationMatrixes``), which turns the neck.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.flame.npz import ALLOWANCE
from headstudio.motion.motion import MAX_FRAMES
from headstudio.motion.readers.curves import action, curve_motion
from headstudio.motion.readers.live_link import from_seconds
from headstudio.motion.readers.recording import (
    FileFrames,
    Rate,
    Recording,
    in_every_frame,
    rate,
)
from headstudio.motion.rotations import to_rotvec

NAME = "MediaPipe blendshapes"
ASSUMED = Rate(30.0, "assumed")

_LISTS = ("frames", "results", "data", "blendshapes")
_SCORES = (
    *("blendshapes", "blendShapes", "face_blendshapes", "faceBlendshapes", "categories"),
    *("arkit", "scores"),
)
_MATRICES = (
    *("facialTransformationMatrixes", "facial_transformation_matrixes"),
    *("facial_transformation_matrix", "transformation_matrix", "matrix"),
)
_RATES = ("fps", "frameRate", "frame_rate", "framerate")
_TIMES = {
    **{"timestamp_ms": 1e-3, "timestampMs": 1e-3, "time_ms": 1e-3, "timestamp_us": 1e-6},
    **{"timestamp": 0.0, "time": 0.0, "t": 0.0, "timestamp_s": 1.0},
}
"""Seconds in a unit of each; 0 where people disagree, and the steps decide."""
_DEPTH = 6


def read(text: str, path: Path, fps: float | None) -> Recording:
    """A recording of a file's text."""
    root = _parse(text, path)
    found = ASSUMED
    if isinstance(root, dict):
        stated = next((root[key] for key in _RATES if key in root), None)
        if stated is not None:
            found = _stated(stated, path)
    frames = _frames(root, path)
    scores = [_scores(frame, _DEPTH) for frame in frames]
    tracked = [number for number, score in enumerate(scores) if score]
    if not tracked:
        raise HeadStudioError(
            f"{path} has {len(frames)} frames and no score of a facial action in them; expected "
            '{"categoryName": "jawOpen", "score": 0.3} or {"jawOpen": 0.3}.'
        )
    names = sorted({name for number in tracked for name in scores[number]})
    table = _table([scores[number] for number in tracked], names, path)
    timed, found = _timed(frames, tracked, found, path)
    chosen = rate(fps, found)
    turns = {n: turn for n in tracked if (turn := _rotation(frames[n], path)) is not None}
    if turns:
        table = np.hstack([table, _in_frames(turns, tracked, timed)])
    # A rate that was stated runs through the same frames: the file's own makes them.
    table, notes = in_every_frame(table, tracked, timed, found.fps)
    if 0 < len(turns) < len(tracked):
        lacking = len(tracked) - len(turns)
        notes.append(f"the head's rotation was interpolated in {lacking} frames without a matrix")
    curves = {name: table[:, column] for column, name in enumerate(names)}
    neck = table[:, len(names) :] if turns else None
    motion, missing = curve_motion(path, curves, chosen.fps, neck_pose=neck)
    return Recording(motion, NAME, chosen.origin, notes + missing)


def _parse(text: str, path: Path) -> Any:
    def refuse(word: str) -> float:
        raise ValueError(f"{word} stands for no score")

    try:
        # What Python makes of brackets and commas is many times as large as they are.
        cost = 100 * text.count("{") + 64 * text.count("[") + 32 * text.count(",")
        if cost > 10 * len(text) + ALLOWANCE:
            raise ValueError(f"{cost / 2**20:.0f} MiB of empty lists and the like")
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise HeadStudioError(
            f"{path} cannot be read as .json ({error}). It is damaged or cut off; save it again."
        ) from error


def _stated(value: Any, path: Path) -> Rate:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-3 <= value < 1e4:
        raise HeadStudioError(
            f"{path}: its frame rate is {str(value)[:40]}; expected a number such as 30."
        )
    return Rate(float(value), "the file")


def _frames(root: Any, path: Path) -> list[Any]:
    """The list of frames, wherever it is."""
    if isinstance(root, dict):
        columns = {name: value for name, value in root.items() if action(name) is not None}
        if columns and all(isinstance(value, list) for value in columns.values()):
            lengths = {name: len(value) for name, value in columns.items()}
            if len(set(lengths.values())) > 1:
                raise HeadStudioError(f"{path}: its columns have different lengths: {lengths}.")
            count = next(iter(lengths.values()))
            if count > MAX_FRAMES:
                raise HeadStudioError(f"{path} has {count} frames; at most {MAX_FRAMES} are read.")
            return [{name: value[i] for name, value in columns.items()} for i in range(count)]
        for key in _LISTS:
            if isinstance(root.get(key), list):
                return list(root[key])
        root = [root]  # a single result
    if not isinstance(root, list) or not root:
        raise HeadStudioError(f"{path} is no list of frames, or an empty one; nothing was tracked.")
    if all(_category(item) is not None for item in root):
        return [root]  # the categories of a single picture
    return root


def _category(item: Any) -> tuple[str, Any] | None:
    """Name and score of a category."""
    if not isinstance(item, dict) or "score" not in item:
        return None
    name = item.get("categoryName", item.get("category_name", item.get("name")))
    return (name, item["score"]) if isinstance(name, str) else None


def _scores(frame: Any, depth: int) -> dict[str, Any]:
    """The scores of a frame by ARKit's names; empty if no face was found."""
    if depth == 0:
        return {}
    if isinstance(frame, list):
        pairs = [pair for pair in map(_category, frame) if pair is not None]
        if pairs:
            return _named(dict(pairs))
        return _scores(frame[0], depth - 1) if frame else {}  # the first of several faces
    if isinstance(frame, dict):
        named = _named(frame)
        if named:
            return named
        for key in _SCORES:
            if key in frame:
                return _scores(frame[key], depth - 1)
    return {}


def _named(scores: Mapping[str, Any]) -> dict[str, Any]:
    named = ((action(name), score) for name, score in scores.items() if isinstance(name, str))
    return {name: score for name, score in named if name is not None}


def _table(scores: list[dict[str, Any]], names: list[str], path: Path) -> np.ndarray:
    """Scores [T, names]; an action that a frame leaves out is at rest there."""
    for number, frame in enumerate(scores):
        for name, score in frame.items():
            number_like = isinstance(score, (int, float)) and not isinstance(score, bool)
            if not number_like or not abs(score) < 1e6:
                raise HeadStudioError(
                    f"{path}: {name} is {str(score)[:40]} in the frame {number}; expected a number "
                    "from 0 to 1."
                )
    return np.array([[float(frame.get(name, 0.0)) for name in names] for frame in scores])


def _rotation(frame: Any, path: Path) -> np.ndarray | None:
    """Axis-angle [3] of the face's matrix, if the frame has one.

    MediaPipe's frame is FLAME's: y up, the face along +z, x to the subject's left. Its JavaScript
    gives 16 numbers column by column, Python nested rows; a shift fills the last column of an
    affine matrix and never its last row, which tells the two apart.
    """
    found = None
    if isinstance(frame, dict):
        found = next((frame[key] for key in _MATRICES if frame.get(key)), None)
    if isinstance(found, list) and found and isinstance(found[0], dict):
        found = found[0]
    if isinstance(found, dict):
        found = found.get("data", found.get("packedData"))
    if found is None:
        return None
    try:
        matrix = np.asarray(found, np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(0)
    matrix = matrix[0] if matrix.ndim == 3 and len(matrix) else matrix
    if matrix.size != 16 or not (np.abs(matrix) < 1e9).all():
        raise HeadStudioError(f"{path}: a face's transformation matrix is not 4 by 4 numbers.")
    matrix = matrix.reshape(4, 4)
    if np.abs(matrix[3, :3]).max() > np.abs(matrix[:3, 3]).max():
        matrix = matrix.T
    turn = matrix[:3, :3]
    scale = np.cbrt(abs(np.linalg.det(turn)))
    if scale < 1e-6:
        raise HeadStudioError(f"{path}: a face's transformation matrix is singular.")
    result: np.ndarray = to_rotvec((turn / scale)[None], f"{path}: a face's matrix")[0]
    return result


def _in_frames(turns: dict[int, np.ndarray], tracked: list[int], frames: FileFrames) -> np.ndarray:
    """Axis-angle [R, 3] of all tracked frames, from that [3] of those with a matrix, by number."""
    known, wanted = frames.times_of(list(turns)), frames.times_of(tracked)
    parts = np.stack(list(turns.values()), axis=1)
    return np.stack([np.interp(wanted, known, part) for part in parts], axis=1)


def _timed(
    frames: list[Any], tracked: list[int], found: Rate, path: Path
) -> tuple[FileFrames, Rate]:
    """All frames, with their times if all that have a face have one, and the frame rate.

    Raises:
        HeadStudioError: times that do not increase, or that are none.
    """
    for key, unit in _TIMES.items():
        values = [frame.get(key) if isinstance(frame, dict) else None for frame in frames]
        known = {n: value for n, value in enumerate(values) if isinstance(value, (int, float))}
        if len(known) < 2 or not known.keys() >= set(tracked):
            continue
        if not all(abs(value) < 1e18 for value in known.values()):
            raise HeadStudioError(f"{path}: {key} is no time in some frame; save the file again.")
        times = np.array(list(known.values()), np.float64)
        steps = np.diff(times)
        if (steps <= 0).any():
            frame = list(known)[int(np.flatnonzero(steps <= 0)[0]) + 1]
            raise HeadStudioError(
                f"{path}: {key} does not increase at frame {frame}; are these two recordings in "
                "one file? Split it."
            )
        step = float(np.median(steps))
        # Nobody tracks a face once a second: steps of 33 are milliseconds, of 33333 microseconds.
        unit = unit or (1.0 if step < 1 else 1e-3 if step < 1000 else 1e-6)
        seconds, seen = from_seconds(times * unit, path)
        assert seconds is not None  # there are two and more
        found = found if found.origin != "assumed" else seen
        return FileFrames("frames", len(frames), np.array(list(known)), seconds), found
    return FileFrames.untimed("frames", len(frames), found.fps), found
