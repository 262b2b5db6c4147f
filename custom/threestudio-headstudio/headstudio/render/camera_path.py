"""A camera that moves around the head: fixed, a turntable, or key frames from a file."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.nearest import did_you_mean
from headstudio.render.cameras import Cameras

FARTHEST = 95.0
"""From a camera to the middle of the head: `Cameras.far` less room for what belongs to the head.
What is farther than that would not be drawn."""


@dataclass(frozen=True)
class View:
    """Where a camera stands: angles in degrees, lengths in world units (the head is 1.5 long).

    Raises:
        HeadStudioError: numbers that no camera can have.
    """

    azimuth: float = 0.0
    """0 is in front of the face, 90 the subject's left; any number of turns."""
    elevation: float = 5.0
    distance: float = 2.6
    """To the target; with what that is away from the head, at most `FARTHEST`."""
    fov: float = 40.0
    """Vertical field of view."""
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What it looks at and circles, in the world (x to the front, y to the left, z up)."""

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("azimuth", math.isfinite(self.azimuth), "a number of degrees"),
            ("elevation", -90 <= self.elevation <= 90, "degrees from -90 to 90"),
            (
                "distance",
                0 < self.distance <= FARTHEST,
                f"a positive length up to {FARTHEST:g}; farther away nothing is drawn, and a "
                "smaller fov brings the head nearer",
            ),
            ("fov", 0 < self.fov < 180, "degrees above 0 and below 180"),
            (
                "target",
                math.hypot(*self.target) + self.distance <= FARTHEST,
                f"three numbers, whose distance from 0, 0, 0 and the camera's {self.distance:g} "
                f"add up to {FARTHEST:g} at most; farther away the head is not drawn",
            ),
        ):
            if not fits:
                raise HeadStudioError(
                    f"a camera's {name} cannot be {getattr(self, name)}; expected {expected}."
                )

    def row(self) -> list[float]:
        return [self.azimuth, self.elevation, self.distance, self.fov, *self.target]


_MAX_BYTES = 1 << 24
_NAMES = tuple(field.name for field in fields(View))


@dataclass(frozen=True)
class CameraPath:
    """Views at moments; before the first and after the last the camera stands still.

    Between key frames the movement is smooth and does not overshoot (PCHIP, Fritsch & Butland
    1984); it is even between two. Angles are not wrapped: from 350 to 10 the camera goes back.

    Raises:
        HeadStudioError: moments that do not grow, or more or fewer of them than views.
    """

    seconds: tuple[float, ...]
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        if len(self.seconds) != len(self.views) or not self.views:
            raise HeadStudioError(
                f"{len(self.seconds)} times were given for {len(self.views)} views; expected one "
                "for each, and one view at least."
            )
        for earlier, later in itertools.pairwise(self.seconds):
            if not later > earlier:
                raise HeadStudioError(f"time {later:g} follows {earlier:g}; times must grow.")

    @classmethod
    def fixed(cls, view: View) -> CameraPath:
        """A camera that stands still."""
        return cls((0.0,), (view,))

    @classmethod
    def turntable(cls, view: View, seconds: float, turns: float = 1.0) -> CameraPath:
        """Around the head to the subject's left, beginning at ``view``.

        Args:
            view: the first and, after whole turns, the last.
            seconds: that it takes; more than 0.
            turns: any number; to the subject's right if negative.

        Raises:
            HeadStudioError: no time to turn in.
        """
        if not 0 < seconds < math.inf:
            raise HeadStudioError(
                f"a turntable cannot take {seconds:g} seconds; expected more than 0. For a camera "
                "that stands still take CameraPath.fixed."
            )
        end = replace(view, azimuth=view.azimuth + 360.0 * turns)
        return cls((0.0, seconds), (view, end))

    def at(self, seconds: Tensor, height: int, width: int) -> Cameras:
        """Cameras ``P = T, C = 1`` at moments [T], for pictures of this size."""
        t = seconds.double().numpy()
        rows = np.array([view.row() for view in self.views])
        if len(rows) > 1:
            t = t.clip(self.seconds[0], self.seconds[-1])
            rows = PchipInterpolator(self.seconds, rows)(t)
        rows = np.broadcast_to(rows, (len(t), rows.shape[1])).astype(np.float32)
        azimuth, elevation, distance, fov = torch.from_numpy(rows[:, :4]).unbind(1)
        orbit = Cameras.orbit(azimuth % 360, elevation, distance, fov, height, width)
        c2w = orbit.c2w[0].clone()
        c2w[:, :3, 3] += torch.from_numpy(rows[:, 4:])
        return replace(orbit, c2w=c2w[:, None], fovy=orbit.fovy[0][:, None])


def turntable_azimuths(frames: int, turns: float = 1.0) -> Tensor:
    """Degrees [frames] in [0, 360): even steps from 0 that a loop goes on with."""
    return torch.linspace(0, 360 * turns, frames + 1)[:-1] % 360


def load_camera_path(path: str | Path, default: View) -> CameraPath:
    """Read key frames.

    The file is JSON: ``{"keyframes": [{"time": 0, "azimuth": -40}, {"time": 2, "azimuth": 40}]}``.
    ``time`` is in seconds and grows; the other keys are the fields of `View`.

    Args:
        path: of the file.
        default: what a key frame does not give.

    Raises:
        HeadStudioError: a file that cannot be read or is no JSON, keys that do not exist, values
            that a camera cannot have, or times that do not grow.
    """
    path = Path(path)
    if not path.is_file():  # nor a device, which never ends
        raise HeadStudioError(f"cannot read the camera file {path}: there is no such file.")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise HeadStudioError(
                f"{path} has {path.stat().st_size / 2**20:.1f} MiB; key frames take a few kB."
            )
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HeadStudioError(f"cannot read the camera file {path}: {error.strerror}.") from error
    except HeadStudioError:
        raise
    except (ValueError, RecursionError) as error:
        raise HeadStudioError(f"{path} is not a JSON file: {error}.") from error
    frames = data.get("keyframes") if isinstance(data, dict) else data
    if not isinstance(frames, list) or not frames:
        raise HeadStudioError(
            f"{path} has no key frames; expected "
            '{"keyframes": [{"time": 0, "azimuth": 30}, …]}.'
        )
    keys = [_key_frame(frame, f"{path}, key frame {n}", default) for n, frame in enumerate(frames)]
    times, views = zip(*keys, strict=True)
    try:
        return CameraPath(times, views)
    except HeadStudioError as error:
        raise HeadStudioError(f"{path}: {error}") from error


def _key_frame(frame: Any, where: str, default: View) -> tuple[float, View]:
    """Time and view of one entry of the file."""
    if not isinstance(frame, dict) or "time" not in frame:
        raise HeadStudioError(f"{where}: expected an object with a time; got {frame!r}.")
    values: dict[str, Any] = {}
    for key, value in frame.items():
        if key not in ("time", *_NAMES):
            raise HeadStudioError(
                f"{where}: unknown key {key!r}{did_you_mean(key, ('time', *_NAMES))} There are "
                f"time, {', '.join(_NAMES)}."
            )
        if key == "target":
            values[key] = _numbers(value, 3, where, key)
        else:
            (values[key],) = _numbers([value], 1, where, key)
    time = values.pop("time")
    if time < 0:
        raise HeadStudioError(f"{where}: time is {time:g}; expected 0 or more seconds.")
    try:
        return time, replace(default, **values)
    except HeadStudioError as error:
        raise HeadStudioError(f"{where}: {error}") from error


def _numbers(value: Any, count: int, where: str, key: str) -> tuple[float, ...]:
    numbers: Sequence[Any] = value if isinstance(value, list) else []
    good = [x for x in numbers if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(numbers) != count or len(good) != count or not all(abs(x) < 1e9 for x in good):
        shown = value[0] if count == 1 and isinstance(value, list) else value
        wanted = "a number" if count == 1 else f"{count} numbers"
        raise HeadStudioError(f"{where}: {key} is {shown!r}; expected {wanted}.")
    return tuple(float(x) for x in good)
