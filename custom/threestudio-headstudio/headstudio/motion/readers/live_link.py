"""Live Link Face, and whatever else writes ARKit's actions as ``.csv``.

Live Link Face (Epic Games' app for Apple's face tracking) writes a header, and a row a frame:
``Timecode, BlendShapeCount``, the 52 actions with a capital first letter, and nine angles (head,
left eye, right eye; yaw, pitch, roll; radians). A timecode is ``HH:MM:SS:FF.fff``: frames, and a
fraction of a frame, at the rate of the phone's clock, 60 as a rule. A face tracked 30 times a
second skips every other number; a lost face leaves a gap, or a row without values.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.motion.motion import MAX_FRAMES
from headstudio.motion.readers.curves import ANGLES, action, curve_motion
from headstudio.motion.readers.recording import (
    FileFrames,
    Rate,
    Recording,
    in_every_frame,
    rate,
)

NAME, OTHER_NAME = "Live Link Face", "ARKit actions (.csv)"
CLOCKS = (24, 25, 30, 48, 50, 60, 120)
"""Rates at which a timecode's frames are counted."""
ASSUMED = Rate(60.0, "assumed")

_WHOLE_RATES = (*CLOCKS, 10, 12, 15, 20)
_VIDEO_RATES = (24000 / 1001, 30000 / 1001, 60000 / 1001)
_TIMECODE = re.compile(r"(\d{1,9})[:;](\d{1,9})[:;](\d{1,9})[:;](\d{1,9}(?:\.\d{1,20})?)", re.ASCII)
_SECONDS = ("timestamp", "time", "seconds", "timestamp_s")
_MILLISECONDS = ("timestamp_ms", "time_ms", "milliseconds")
_ANGLES = {name.lower(): name for name in ANGLES}
_DAY = 86400.0
_ENDLESS = 1e15
"""Units of time; beyond it they are not told apart."""
_MAX_COLUMNS = 10_000


def recognises(text: str) -> bool:
    """Whether a text's first line names at least one action among comma-separated columns."""
    header = text.lstrip("\ufeff").partition("\n")[0]
    return sum(action(cell) is not None for cell in header.split(",")) > 0


def read(text: str, path: Path, fps: float | None) -> Recording:
    """A recording of a file's text."""
    header, rows = _table(text, path)
    clock = _clock_column(header)
    columns: dict[str, int] = {}
    for number, cell in enumerate(header):
        known = action(cell) or _ANGLES.get(cell.lower())
        if known is not None and columns.setdefault(known, number) != number:
            raise HeadStudioError(f"{path}: the header has {cell!r} twice.")
    places = list(columns.values())
    take = _take(rows, places, clock, header, path)
    timecodes = clock is not None and clock.unit is None
    frames, found = _frames(take.cells, take.tracked, clock, path)
    chosen = rate(fps, found)
    # A rate that was stated runs through the same frames: the file's own makes them.
    values, notes = in_every_frame(take.values, take.tracked, frames, found.fps)
    data = dict(zip(columns, values.T, strict=True))
    angles = {name: data.pop(name) for name in ANGLES if name in data}
    if any(np.abs(angle).max() > 1.05 * np.pi for angle in angles.values()):
        notes.append("the angles were taken to be degrees: some are larger than π")
        angles = {name: np.deg2rad(angle) for name, angle in angles.items()}
    motion, missing = curve_motion(path, data, chosen.fps, angles)
    name = NAME if timecodes else OTHER_NAME
    return Recording(motion, name, chosen.origin, notes + missing)


@dataclass(frozen=True)
class _Take:
    """What the rows of a file hold."""

    values: np.ndarray
    """[R, K] of the rows that have any."""
    tracked: array[int]
    """[R] their numbers; the first row behind the header is 0."""
    cells: list[str]
    """Times of all rows, as they are written; empty where there is none."""


def _take(
    rows: Iterator[list[str]],
    places: Sequence[int],
    clock: _Clock | None,
    header: Sequence[str],
    path: Path,
) -> _Take:
    # Row by row: as texts, the cells of a long take would be ten times the file.
    values, tracked, cells = array("d"), array("q"), []
    for number, row in enumerate(rows):
        if number == MAX_FRAMES:
            raise HeadStudioError(
                f"{path} has more than {MAX_FRAMES} rows, of which no more are read. Split it."
            )
        cells.append(row[clock.column].strip() if clock and clock.column < len(row) else "")
        if _has_values(row, places):
            values.extend(_values(row, places, header, number + 2, path))
            tracked.append(number)
    if not tracked:
        raise HeadStudioError(f"{path} has no row with values; was a face in the picture?")
    return _Take(np.array(values).reshape(-1, len(places)), tracked, cells)


def _table(text: str, path: Path) -> tuple[list[str], Iterator[list[str]]]:
    """The cells of the header, and of one row after another."""
    table = _rows(text, path)
    header = [cell.strip() for cell in next(table, [])]
    first = next(table, None)
    if first is None:
        raise HeadStudioError(f"{path} has a header and no frames; the recording is empty.")
    if len(header) > _MAX_COLUMNS:
        raise HeadStudioError(f"{path} has {len(header)} columns; a face has a hundred at most.")

    def checked() -> Iterator[list[str]]:
        for number, row in enumerate(itertools.chain([first], table), 2):
            if len(row) > len(header):
                raise HeadStudioError(
                    f"{path}: row {number} has {len(row)} cells, the header {len(header)}; the "
                    "file is damaged. Export it again."
                )
            yield row

    return header, checked()


def _rows(text: str, path: Path) -> Iterator[list[str]]:
    try:
        for row in csv.reader(io.StringIO(text.lstrip("\ufeff"))):
            if row:
                yield row
    except csv.Error as error:
        raise HeadStudioError(
            f"{path} cannot be read as .csv ({error}); export it again."
        ) from error


def _has_values(row: Sequence[str], places: Sequence[int]) -> bool:
    return any(place < len(row) and row[place].strip() for place in places)


def _values(
    row: Sequence[str], places: Sequence[int], header: Sequence[str], number: int, path: Path
) -> list[float]:
    values = []
    for place in places:
        cell = row[place].strip() if place < len(row) else ""
        try:
            value = float(cell or "0")
        except ValueError:
            value = np.nan
        if not abs(value) < 1e9:
            raise HeadStudioError(
                f"{path}: row {number} has {cell[:40]!r} as {header[place]}; expected a number. "
                "Export it again, with a dot as decimal mark."
            )
        values.append(value)
    return values


@dataclass(frozen=True)
class _Clock:
    """The column that has the times."""

    column: int
    unit: float | None
    """Of its numbers, in seconds; None for timecodes."""


def _clock_column(header: Sequence[str]) -> _Clock | None:
    place = {cell.lower(): number for number, cell in reversed(list(enumerate(header)))}
    for names, unit in ((("timecode",), None), (_SECONDS, 1.0), (_MILLISECONDS, 1e-3)):
        for name in names:
            if name in place:
                return _Clock(place[name], unit)
    return None


def _frames(
    cells: Sequence[str], tracked: Sequence[int], clock: _Clock | None, path: Path
) -> tuple[FileFrames, Rate]:
    """All rows of a file, with their times, and the frame rate.

    Raises:
        HeadStudioError: a row with values and a time that is none, or times that go back.
    """
    seen = set(tracked)
    timed = [
        number
        for number, cell in enumerate(cells)
        if clock is not None and (number in seen or _is_time(cell, clock))
    ]
    times, found = _times([cells[number] for number in timed], clock, path)
    if times is None:
        return FileFrames.untimed("rows", len(cells), found.fps), found
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        raise HeadStudioError(
            f"{path}: time goes back at row {timed[back[0] + 1] + 2}; are these two recordings in "
            "one file? Split it."
        )
    return FileFrames("rows", len(cells), np.array(timed), times), found


def _is_time(cell: str, clock: _Clock) -> bool:
    """Whether the time of a row without values can be read; such a row may lack it, too."""
    if clock.unit is None:
        return _TIMECODE.fullmatch(cell) is not None
    try:
        return abs(float(cell)) < _ENDLESS
    except ValueError:
        return False


def _times(
    cells: Sequence[str], clock: _Clock | None, path: Path
) -> tuple[np.ndarray | None, Rate]:
    """Seconds of each row, where the file has them, and the frame rate."""
    if clock is None:
        return None, ASSUMED
    if clock.unit is None:
        return _from_timecodes(cells, path)
    return from_seconds(_seconds(cells, path) * clock.unit, path)


def _seconds(cells: Sequence[str], path: Path) -> np.ndarray:
    try:
        seconds = np.array([float(cell) for cell in cells])
    except ValueError as error:
        raise HeadStudioError(f"{path}: a time is no number ({error}); export it again.") from error
    if not (np.abs(seconds) < _ENDLESS).all():
        raise HeadStudioError(f"{path}: a time is not finite; export it again.")
    return seconds


def from_seconds(times: np.ndarray, path: Path) -> tuple[np.ndarray | None, Rate]:
    """Times in seconds and their rate: one in use, if it is near enough.

    Raises:
        HeadStudioError: times that do not increase.
    """
    if len(times) < 2:
        return None, ASSUMED
    steps = np.diff(times)
    duration = float(times[-1] - times[0])
    if np.median(steps) <= 0 or duration <= 0:
        raise HeadStudioError(
            f"{path}: its times do not increase ({times[0]:g}, {times[1]:g} …). Remove that "
            "column and give the frame rate by --fps."
        )
    # Timestamps are rounded, to milliseconds as a rule, so one step says little and all say more.
    frames = np.maximum(np.round(steps / np.median(steps)), 1).sum()
    fps = float(frames) / duration
    tolerance = fps * (2e-4 + 1e-3 / duration)
    for rates in (_WHOLE_RATES, _VIDEO_RATES):
        near = min(rates, key=lambda clock: abs(clock - fps))
        if abs(near - fps) < tolerance:
            return times, Rate(float(near), "the file")
    return times, Rate(round(fps, 4), "the file")


def _from_timecodes(cells: Sequence[str], path: Path) -> tuple[np.ndarray | None, Rate]:
    """Seconds and rate of timecodes ``HH:MM:SS:FF.fff``."""
    seconds, frames = np.zeros(len(cells)), np.zeros(len(cells))
    for number, cell in enumerate(cells):
        match = _TIMECODE.fullmatch(cell)
        if match is None:
            raise HeadStudioError(
                f"{path}: {cell[:40]!r} is no timecode; expected HH:MM:SS:FF.fff, such as "
                "13:04:31:27.652."
            )
        hours, minutes, whole = (int(part) for part in match.groups()[:3])
        seconds[number] = hours * 3600 + minutes * 60 + whole
        frames[number] = float(match[4])
    if len(cells) < 2:
        return None, ASSUMED
    seconds += _DAY * np.cumsum(np.diff(seconds, prepend=seconds[0]) < -_DAY / 2)  # midnight
    clock, counted = _clock(seconds, frames)
    times = seconds + frames / clock
    step = max(1, round(float(np.median(np.diff(times))) * clock))
    return times, Rate(clock / step, "the file" if counted else "assumed")


def _clock(seconds: np.ndarray, frames: np.ndarray) -> tuple[int, bool]:
    """At what rate a timecode's frames are counted, and whether that could be seen.

    It shows where a second begins: after frame 58 comes 0, at steps of 2, if the clock counts 60.
    """
    begins = np.flatnonzero(np.diff(seconds) == 1)
    largest = float(np.floor(frames).max())
    fitting = [clock for clock in CLOCKS if clock > largest]
    if not fitting:
        return int(largest) + 1, False
    steps = np.diff(frames)[np.diff(seconds) == 0]
    if len(begins) == 0 or len(steps) == 0:
        return max(60, fitting[0]), False
    counts = frames[begins] - frames[begins + 1] + np.median(steps)
    return min(fitting, key=lambda clock: abs(clock - float(np.median(counts)))), True
