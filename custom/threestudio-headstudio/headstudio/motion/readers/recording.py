"""What the readers of all formats share: a recording, its checks, its frame rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.flame.files import N_EXPRESSION, N_SHAPE
from headstudio.flame.npz import ZIP_DAMAGE
from headstudio.flame.records import DAMAGE
from headstudio.motion.files import LARGEST
from headstudio.motion.motion import FLAME_NAMES, MAX_FPS, MAX_FRAMES, MIN_FPS, Motion, check_rate
from headstudio.motion.readers import pickled
from headstudio.motion.rotations import to_rotvec


@dataclass
class Recording:
    """A motion as it was read, and where it comes from."""

    motion: Motion
    format: str
    """The format's name, as documented."""
    fps_from: str
    """Where the frame rate is from: "the file", "the format", "stated" or "assumed"."""
    notes: list[str] = field(default_factory=list)
    """What was left out or filled in."""


@dataclass(frozen=True)
class Rate:
    """Frames a second, and where the number is from."""

    fps: float
    origin: str


def rate(stated: float | None, found: Rate) -> Rate:
    """The frame rate that was stated, or else the one found.

    Raises:
        HeadStudioError: a rate that no motion has.
    """
    if stated is None:
        if not MIN_FPS <= found.fps <= MAX_FPS:
            raise HeadStudioError(
                f"the file's times make {found.fps:g} frames a second, which nobody records; give "
                "the frame rate by --fps."
            )
        return found
    check_rate(stated, "the frame rate is stated as")
    return Rate(float(stated), "stated")


def numbers(fields: Mapping[str, Any], key: str, path: Path) -> np.ndarray:
    """One entry of a file as an array of finite numbers.

    Raises:
        HeadStudioError: an entry that is no array of numbers, or not finite; says in which frame.
    """
    try:
        array = pickled.array(fields[key])
    except (*DAMAGE, *ZIP_DAMAGE) as error:
        raise HeadStudioError(
            f"{path}: {key!r} is not an array of numbers ({error}). Save it as a numpy array."
        ) from error
    if array.dtype.kind not in "fiub":
        raise HeadStudioError(f"{path}: {key!r} holds {array.dtype}; expected numbers.")
    if array.ndim and array.shape[0] > MAX_FRAMES:
        raise HeadStudioError(
            f"{path}: {key!r} has {array.shape[0]} frames; at most {MAX_FRAMES} are read."
        )
    array = array.astype(np.float64)
    # In place of np.abs(array) < LARGEST, which takes the array's memory once more.
    usable = (array < LARGEST) & (array > -LARGEST)
    if not usable.all():
        frame = int(np.argwhere(~usable)[0][0]) if array.ndim else 0
        raise HeadStudioError(
            f"{path}: {key!r} is not finite in frame {frame}; the tracker lost the face there. Cut "
            "the recording before that frame, or track it again."
        )
    return array


def rotation(fields: Mapping[str, Any], key: str, path: Path) -> np.ndarray:
    """One entry of a file as axis-angle vectors [T, 3]; see `to_rotvec` for the forms read."""
    return to_rotvec(_frames(numbers(fields, key, path), (3,)), f"{path}: {key!r}")


def coefficients(fields: Mapping[str, Any], key: str, path: Path, width: int) -> np.ndarray:
    """One entry of a file as coefficients [T, width], padded with zeros.

    Raises:
        HeadStudioError: another shape, or coefficients in use beyond ``width``.
    """
    array = _frames(numbers(fields, key, path), ())
    while array.ndim > 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 2 or array.shape[1] == 0:
        raise HeadStudioError(
            f"{path}: {key!r} has shape {list(array.shape)}; expected [T, n] with n up to {width}."
        )
    if np.any(array[:, width:] != 0):
        raise HeadStudioError(
            f"{path}: {key!r} has {array.shape[1]} coefficients a frame; FLAME has {width}. Is "
            "this another face model's?"
        )
    padded = np.zeros((array.shape[0], width))
    padded[:, : min(width, array.shape[1])] = array[:, :width]
    return padded


def _frames(array: np.ndarray, one_frame: tuple[int, ...]) -> np.ndarray:
    """A single frame's value gets its frame axis."""
    single = array.ndim == 1 and (not one_frame or array.shape == one_frame)
    return array[None] if single or array.ndim == 0 else array


def flame_motion(
    path: Path, arrays: Mapping[str, np.ndarray], fps: float, name: str | None = None
) -> Motion:
    """A motion in FLAME's own expression space.

    Args:
        path: for messages; its stem is the name if none is given.
        arrays: by `FlameParams`' names, [T, n] or [1, n]; missing ones are zero.
        fps: frames a second.
        name: the motion's name.

    Raises:
        HeadStudioError: no frames, too many, or arrays that disagree about their number.
    """
    rows = {key: array.shape[0] for key, array in arrays.items()}
    frames = max(rows.values(), default=0)
    if frames == 0 or 0 in rows.values():
        raise HeadStudioError(f"{path} has no frames.")
    if frames > MAX_FRAMES:
        raise HeadStudioError(f"{path} has {frames} frames; at most {MAX_FRAMES} are read.")
    if any(count not in (1, frames) for count in rows.values()):
        raise HeadStudioError(
            f"{path}: its parameters have different numbers of frames: {rows}. The file is "
            "damaged, or put together of two recordings."
        )
    params = FlameParams.zeros(1, N_SHAPE, N_EXPRESSION).replace(
        **{
            key: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
            for key, array in arrays.items()
        }
    )
    return Motion(params, fps, path.stem if name is None else name, list(FLAME_NAMES))


def stack(frames: Iterable[Mapping[str, Any]], keys: Iterable[str], path: Path) -> dict[str, Any]:
    """One array a key from one dictionary a frame.

    Raises:
        HeadStudioError: frames that lack a key others have, or whose shapes differ.
    """
    frames = list(frames)
    stacked: dict[str, Any] = {}
    for key in keys:
        if not any(key in frame for frame in frames):
            continue
        missing = [number for number, frame in enumerate(frames) if key not in frame]
        if missing:
            raise HeadStudioError(f"{path}: frame {missing[0]} lacks {key!r}, which others have.")
        values = [numbers(frame, key, path) for frame in frames]
        shapes = {value.shape for value in values}
        if len(shapes) > 1:
            raise HeadStudioError(f"{path}: {key!r} has different shapes in frames: {shapes}.")
        joined = values[0].ndim > 1 and values[0].shape[0] == 1
        stacked[key] = np.concatenate(values) if joined else np.stack(values)
    return stacked


@dataclass(frozen=True)
class FileFrames:
    """The frames of a file, some of which may lack a face or a time."""

    word: str
    """What the file has for frames, in the plural, for notes."""
    count: int
    """How many there are in the file."""
    numbers: np.ndarray
    """[N] of those whose time is known, increasing."""
    times: np.ndarray
    """[N] seconds, not decreasing."""

    @classmethod
    def untimed(cls, word: str, count: int, fps: float) -> FileFrames:
        """One after another, at ``fps`` frames a second."""
        numbers = np.arange(count)
        return cls(word, count, numbers, numbers / fps)

    def times_of(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Seconds [R] of some of the frames whose time is known."""
        found: np.ndarray = self.times[np.searchsorted(self.numbers, numbers)]
        return found


def in_every_frame(
    samples: np.ndarray, tracked: Sequence[int] | np.ndarray, frames: FileFrames, fps: float
) -> tuple[np.ndarray, list[str]]:
    """What was tracked in some frames of a file, brought to all of them.

    Args:
        samples: [R, K], of the frames with a face.
        tracked: [R] their numbers, increasing; all of them have a time. Of several at one time the
            last one counts.
        frames: all of the file's.
        fps: frames a second of the result, which goes from the first of the times to the last.

    Returns:
        The samples [T, K], interpolated where they are missing and held before the first and after
        the last of them; and notes about what was filled in or left out.

    Raises:
        HeadStudioError: as `on_grid`.
    """
    seen, numbers = frames.times_of(tracked), frames.numbers
    new = np.append(np.diff(seen) > 0, True)
    ends = float(frames.times[0]), float(frames.times[-1])
    table, missing = on_grid(seen[new], samples[new], fps, ends)
    filled = int(numbers[-1] - numbers[0]) + 1 - len(tracked)
    untimed = frames.count - len(tracked) - filled
    notes = []
    if filled:
        notes.append(f"{filled} {frames.word} without a face were filled in")
    if untimed:
        notes.append(f"{untimed} {frames.word} without a face and without a time were left out")
    if missing > filled:
        notes.append(f"{missing - filled} frames that were not recorded were interpolated")
    return table, notes


def on_grid(
    times: np.ndarray, columns: np.ndarray, fps: float, ends: tuple[float, float]
) -> tuple[np.ndarray, int]:
    """Samples at irregular times, brought to ``fps`` frames a second.

    Args:
        times: [T] seconds, increasing.
        columns: [T, K].
        fps: of the grid.
        ends: seconds of the grid's first and last frame; no sample lies outside of them.

    Returns:
        The columns [N, K], as they are where there is a sample for every frame and otherwise
        interpolated between samples and held beyond them; and the number of frames that had no
        sample.

    Raises:
        HeadStudioError: times that span more frames than are read.
    """
    first, last = ends
    span = (last - first) * fps
    if not span < MAX_FRAMES:
        raise HeadStudioError(f"the times span {span:.12g} frames; at most {MAX_FRAMES} are read.")
    if span > 60 * len(times) + 20_000:
        raise HeadStudioError(
            f"{len(times)} frames were recorded in the time of {span:.0f}; are these two "
            "recordings in one file? Split it."
        )
    count = round(span) + 1
    place = np.round((times - first) * fps).astype(np.int64)
    if np.array_equal(place, np.arange(count)):
        return columns, 0
    wanted = first + np.arange(count) / fps
    filled = [np.interp(wanted, times, column) for column in columns.T]
    return np.stack(filled, axis=1), int(count - len(np.unique(place)))
