"""A sequence of FLAME parameters, and what can be done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.motion.interpolate import blend, ease, interpolate, pad_expression

FLAME_NAMES = tuple(f"flame{number:03d}" for number in range(1, 101))
"""Names for FLAME's 100 expression directions, which have none of their own."""

MIN_FPS, MAX_FPS = 1e-3, 1e5
"""Frame rates that there are; what is beyond them is a slip of the keyboard, or damage."""
MAX_FRAMES = 200_000
"""Nearly an hour at 60 frames a second. A frame takes 1.7 kB however few numbers a file has of it,
so that a small file, or a slip in a frame rate, could ask for much memory."""


def check_rate(fps: float, what: str) -> None:
    """Refuse a frame rate that no motion has.

    Args:
        fps: frames a second.
        what: what has it, or is to have it, such as "motion 'nod' has".

    Raises:
        HeadStudioError: if it is not from `MIN_FPS` to `MAX_FPS`.
    """
    if not MIN_FPS <= fps <= MAX_FPS:  # what is no number is not, either
        raise HeadStudioError(
            f"{what} {fps:g} frames a second; expected from {MIN_FPS:g} to {MAX_FPS:g}, such as 25."
        )


def check_count(frames: int, what: str) -> None:
    """Refuse more frames than a motion may have, before memory is taken for them.

    Args:
        frames: how many there are to be.
        what: what has them, or would.

    Raises:
        HeadStudioError: if they are more than `MAX_FRAMES`.
    """
    if frames > MAX_FRAMES:
        raise HeadStudioError(
            f"{what} {frames} frames; a motion has at most {MAX_FRAMES}. Give a lower frame rate, "
            "or make it shorter."
        )


@dataclass
class Motion:
    """T frames at ``fps`` frames a second.

    ``expression_names`` says what the leading expression coefficients are: ARKit's actions, or
    `FLAME_NAMES` for FLAME's directions. Without names they are those of whatever head plays them.

    Raises:
        HeadStudioError: no frames, or a frame rate that is not from `MIN_FPS` to `MAX_FPS`.
    """

    params: FlameParams  # T rows; a field with one row holds throughout
    fps: float
    name: str = ""
    expression_names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_rate(self.fps, f"motion {self.name!r} has")
        if len(self) == 0:
            raise HeadStudioError(f"motion {self.name!r} has no frames.")

    def __len__(self) -> int:
        return self.params.batch_size

    @property
    def duration(self) -> float:
        """Seconds from the first to the end of the last frame."""
        return len(self) / self.fps

    def __getitem__(self, frames: slice) -> Motion:
        """The frames of a slice; a step other than 1 changes the speed.

        Raises:
            HeadStudioError: if the slice is empty.
        """
        return replace(self, params=self.params.expand()[frames])


def resample(motion: Motion, fps: float) -> Motion:
    """The same movement at another frame rate.

    Rotations are interpolated on the sphere, the rest linearly. Frame 0 stays; the last frame is
    the latest that lies inside the original, ``round((T - 1) * fps / motion.fps)`` at most.

    Raises:
        HeadStudioError: if ``fps`` is not from `MIN_FPS` to `MAX_FPS`, or makes more than
            `MAX_FRAMES` frames.
    """
    check_rate(fps, f"cannot resample motion {motion.name!r} to")
    if fps == motion.fps:
        return motion
    last = len(motion) - 1
    count = int(last * fps / motion.fps + 1e-6) + 1
    check_count(count, f"motion {motion.name!r}, resampled to {fps:g} frames a second, would have")
    positions = torch.arange(count, dtype=torch.float64) * (motion.fps / fps)
    params = interpolate(motion.params, positions.clamp(max=last))
    return replace(motion, params=params, fps=float(fps))


def loop(motion: Motion, n_frames: int, fade: float = 0.4) -> Motion:
    """``n_frames`` of the motion repeated without a jump.

    One period is the motion less its last ``fade`` seconds (half the motion at most); these are
    cross-faded into the first ones, so that the period's end runs on into its beginning.

    Raises:
        HeadStudioError: if ``n_frames`` or ``fade`` make no sense.
    """
    if n_frames < 1 or fade < 0:
        raise HeadStudioError(
            f"cannot loop for {n_frames} frames with a fade of {fade} s; give at least 1 frame and "
            "a fade of 0 or more."
        )
    frames = motion.params.expand()
    overlap = min(round(fade * motion.fps), len(motion) // 2)
    period = len(motion) - overlap
    if overlap:
        weight = ease(torch.arange(1, overlap + 1) / (overlap + 1))
        seam = blend(frames[period:], frames[:overlap], weight)
        frames = FlameParams.cat([seam, frames[overlap:period]])
    return replace(motion, params=frames[torch.arange(n_frames) % period])


def concatenate(motions: Sequence[Motion], transition: float = 0.3, name: str = "") -> Motion:
    """One motion after another, at the frame rate of the first.

    Between two, ``transition`` seconds lead from the last frame of one to the first frame of the
    next, starting and ending gently.

    Raises:
        HeadStudioError: no motions, a negative transition, or expressions that mean different
            things.
    """
    if not motions or transition < 0:
        raise HeadStudioError(
            f"cannot join {len(motions)} motions with {transition} s between them; give at least "
            "one motion and 0 s or more."
        )
    first = motions[0]
    for other in motions[1:]:
        if other.expression_names != first.expression_names:
            raise HeadStudioError(
                f"motions {first.name!r} and {other.name!r} name their expression coefficients "
                "differently; bring both to one head with `for_head` first."
            )
    width = max(motion.params.expression.shape[1] for motion in motions)
    parts: list[FlameParams] = []
    steps = round(transition * first.fps)
    weight = ease(torch.arange(1, steps + 1) / (steps + 1))
    for motion in motions:
        params = pad_expression(resample(motion, first.fps).params, width).expand()
        if parts and steps:
            still = torch.zeros(steps, dtype=torch.int64)
            parts.append(blend(parts[-1][-1][still], params[0][still], weight))
        parts.append(params)
    return replace(first, params=FlameParams.cat(parts), name=name or first.name)


def frame_of(motion: Motion, seconds: float | Tensor) -> FlameParams:
    """The pose at a moment (or moments), interpolated; clamped to the motion's ends."""
    positions = torch.as_tensor(seconds, dtype=torch.float64).reshape(-1) * motion.fps
    return interpolate(motion.params, positions.clamp(0, len(motion) - 1))
