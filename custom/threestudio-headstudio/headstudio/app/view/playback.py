"""Where in a motion we are."""

from __future__ import annotations

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.motion import Motion, frame_of


class Playback:
    """A motion that is played, paused and scrubbed; time is told by whoever calls `advance`."""

    def __init__(self) -> None:
        self.motion: Motion | None = None
        self.seconds = 0.0
        self.playing = False
        self.speed = 1.0
        self.loop = True

    @property
    def duration(self) -> float:
        """Seconds from the first to the last frame; 0 without a motion."""
        return 0.0 if self.motion is None else (len(self.motion) - 1) / self.motion.fps

    def load(self, motion: Motion | None) -> None:
        """Take another motion (or none), from its beginning; it goes on playing if it did."""
        self.motion = motion
        self.seconds = 0.0
        self.playing = self.playing and motion is not None

    def play(self) -> None:
        """Begin, or go on; from the beginning if the end was reached.

        Raises:
            HeadStudioError: if there is no motion.
        """
        if self.motion is None:
            raise HeadStudioError("there is nothing to play; choose a motion.")
        if self.seconds >= self.duration:
            self.seconds = 0.0
        self.playing = True

    def seek(self, seconds: float) -> None:
        """Go to a moment, and stay there."""
        self.playing = False
        self.seconds = min(max(seconds, 0.0), self.duration)

    def advance(self, elapsed: float) -> None:
        """Let ``elapsed`` seconds pass."""
        if not self.playing:
            return
        self.seconds += elapsed * self.speed
        if self.seconds < self.duration:
            return
        if self.loop and self.duration > 0:
            self.seconds %= self.duration
        else:
            self.seconds = self.duration
            self.playing = False

    def params(self) -> FlameParams | None:
        """The pose of this moment; None without a motion."""
        return None if self.motion is None else frame_of(self.motion, self.seconds)
