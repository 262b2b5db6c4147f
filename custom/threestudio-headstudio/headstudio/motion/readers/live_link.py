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
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.motion.readers.curves import ANGLES, action, curve_motion
from headstudio.motion.readers.recording import Rate, Recording, on_grid, rate

NAME, OTHER_NAME = "Live Link Face", "ARKit actions (.csv)"
CLOCKS = (24, 25, 30, 48, 50, 60, 120)
"""Rates at which a timecode's frames are counted."""
ASSUMED = Rate(60.0, "assumed")

_WHOLE_RATES = (*CLOCKS, 10, 12, 15, 20)
_VIDEO_RATES = (24000 / 1001, 30000 / 1001, 60000 / 1001)
_TIMECODE = re.compile(r"(\d+)[:;](\d+)[:;](\d+)[:;](\d+(?:\.\d+)?)")
_SECONDS = ("timestamp", "time", "seconds", "timestamp_s")
_MILLISECONDS = ("timestamp_ms", "time_ms", "milliseconds")
_ANGLES = {name.lower(): name for name in ANGLES}
_DAY = 86400.0


def recognises(text: str) -> bool:
    """Whether a text's first line names at least one action among comma-separated columns."""
    header = text.lstrip("\ufeff").partition("\n")[0]
    return sum(action(cell) is not None for cell in header.split(",")) > 0


def read(text: str, path: Path, fps: float | None) -> Recording:
    """A recording of a file's text."""
    header, rows = _table(text, path)
    columns: dict[str, int] = {}
    for number, cell in enumerate(header):
        known = action(cell) or _ANGLES.get(cell.lower())
        if known is not None and columns.setdefault(known, number) != number:
            raise HeadStudioError(f"{path}: the header has {cell!r} twice.")
    places = list(columns.values())
    tracked = [number for number, row in enumerate(rows) if _has_values(row, places)]
    if not tracked:
        raise HeadStudioError(f"{path} has no row with values; was a face in the picture?")
    values = np.array([_values(rows[n], places, header, n + 2, path) for n in tracked])
    notes = []
    if len(tracked) < len(rows):
        notes.append(f"{len(rows) - len(tracked)} rows without a face were filled in")

    timecodes = "timecode" in [cell.lower() for cell in header]
    times, found = _times([rows[n] for n in tracked], header, path)
    chosen = rate(fps, found)
    if times is not None:
        # A clock that was stated to be another runs through the same frames.
        times = times * (found.fps / chosen.fps)
        values, gaps = on_grid(*_increasing(times, values, path), chosen.fps)
        if gaps:
            notes.append(f"{gaps} frames that were not recorded were interpolated")
    data = dict(zip(columns, values.T, strict=True))
    angles = {name: data.pop(name) for name in ANGLES if name in data}
    if any(np.abs(angle).max() > 1.05 * np.pi for angle in angles.values()):
        notes.append("the angles were taken to be degrees: some are larger than π")
        angles = {name: np.deg2rad(angle) for name, angle in angles.items()}
    motion, missing = curve_motion(path, data, chosen.fps, angles)
    name = NAME if timecodes else OTHER_NAME
    return Recording(motion, name, chosen.origin, notes + missing)


def _table(text: str, path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        table = [row for row in csv.reader(io.StringIO(text.lstrip("\ufeff"))) if row]
    except csv.Error as error:
        raise HeadStudioError(
            f"{path} cannot be read as .csv ({error}); export it again."
        ) from error
    if len(table) < 2:
        raise HeadStudioError(f"{path} has a header and no frames; the recording is empty.")
    header = [cell.strip() for cell in table[0]]
    for number, row in enumerate(table[1:], 2):
        if len(row) > len(header):
            raise HeadStudioError(
                f"{path}: row {number} has {len(row)} cells, the header {len(header)}; the file is "
                "damaged. Export it again."
            )
    return header, table[1:]


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
        if not np.isfinite(value):
            raise HeadStudioError(
                f"{path}: row {number} has {cell[:40]!r} as {header[place]}; expected a number. "
                "Export it again, with a dot as decimal mark."
            )
        values.append(value)
    return values


def _times(
    rows: Sequence[Sequence[str]], header: Sequence[str], path: Path
) -> tuple[np.ndarray | None, Rate]:
    """Seconds of each row, where the file has them, and the frame rate."""
    place = {cell.lower(): number for number, cell in reversed(list(enumerate(header)))}
    if "timecode" in place:
        return _from_timecodes([row[place["timecode"]] for row in rows], path)
    for names, unit in ((_SECONDS, 1.0), (_MILLISECONDS, 1e-3)):
        for name in names:
            if name in place:
                column = place[name]
                cells = [row[column] if column < len(row) else "" for row in rows]
                return from_seconds(_seconds(cells, path) * unit, path)
    return None, ASSUMED


def _seconds(cells: Sequence[str], path: Path) -> np.ndarray:
    try:
        seconds = np.array([float(cell) for cell in cells])
    except ValueError as error:
        raise HeadStudioError(f"{path}: a time is no number ({error}); export it again.") from error
    if not np.isfinite(seconds).all():
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
    if np.median(steps) <= 0:
        raise HeadStudioError(
            f"{path}: its times do not increase ({times[0]:g}, {times[1]:g} …). Remove that "
            "column and give the frame rate by --fps."
        )
    # Timestamps are rounded, to milliseconds as a rule, so one step says little and all say more.
    frames = np.maximum(np.round(steps / np.median(steps)), 1).sum()
    duration = float(times[-1] - times[0])
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
        match = _TIMECODE.fullmatch(cell.strip())
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


def _increasing(times: np.ndarray, values: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Without rows that repeat a time.

    Raises:
        HeadStudioError: times that go back.
    """
    steps = np.diff(times)
    if (steps < 0).any():
        row = int(np.flatnonzero(steps < 0)[0]) + 3
        raise HeadStudioError(
            f"{path}: time goes back at row {row}; are these two recordings in one file? Split it."
        )
    keep = np.append(steps > 0, True)
    return times[keep], values[keep]
