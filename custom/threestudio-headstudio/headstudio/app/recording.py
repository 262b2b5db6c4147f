"""Pictures one after the other into an .mp4, a .gif or a folder of PNG files.

A result is whole or absent: it is written under another name and renamed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write

FORMATS = (".mp4", ".gif", "")
"""By the suffix of the file; without one it is a folder."""
MAX_GIF_FPS = 50
"""A picture of a GIF stays for 1/100 s at least, and players take less than 2/100 for a mistake."""
_FRAME = "frame_{:05d}.png"
_IS_FRAME = re.compile(r"frame_\d{5,}\.png")
_CRF = 16
"""H.264's constant rate factor: to the eye the pictures themselves."""

Write = Callable[[np.ndarray], None]


@dataclass(frozen=True)
class Sound:
    """An audio file that ffmpeg can read."""

    path: Path
    seconds: float | None
    """None: the file does not say."""


def check_output(path: Path, fps: float, transparent: bool, sound: bool, force: bool) -> None:
    """Refuse what `recording` could not write, before there is work to lose.

    Raises:
        HeadStudioError: another suffix, an existing result without ``force``, a folder that cannot
            be replaced, a format without transparency or sound for pictures or a film that have
            them, too fast a GIF.
    """
    kind = _format(path)
    if transparent and kind != "":
        raise HeadStudioError(
            f"{path}: {kind} holds no transparency; give a folder, for PNG files, or a colour."
        )
    if sound and kind != ".mp4":
        raise HeadStudioError(f"{path}: only an .mp4 has sound; name one, or leave out --audio.")
    if kind == ".gif" and fps > MAX_GIF_FPS:
        raise HeadStudioError(
            f"{path}: a GIF shows {MAX_GIF_FPS} frames a second at most, not {fps:g}; "
            "give --fps 25."
        )
    if kind != "" and path.is_dir():
        raise HeadStudioError(f"{path} is a folder; give the name of a file.")
    if kind == "" and path.is_file():
        raise HeadStudioError(f"{path} is a file; give a folder, or a name in .mp4 or .gif.")
    if path.is_dir() and (path.samefile(Path.cwd()) or path.is_mount()):
        raise HeadStudioError(
            f"{path} is the working directory or a disk's, which cannot be replaced; name a folder "
            f"in it: --out {path / 'frames'}"
        )
    if path.exists() and not force:
        raise HeadStudioError(
            f"{path} exists already; give another name, or --force to write over it."
        )
    if path.is_dir():
        foreign = next((f for f in path.iterdir() if not _IS_FRAME.fullmatch(f.name)), None)
        if foreign is not None:
            raise HeadStudioError(
                f"{path} holds {foreign.name}, which is no frame of a film, and will not be "
                "replaced; give another folder."
            )


def read_sound(path: Path) -> Sound:
    """Look at an audio file.

    Raises:
        HeadStudioError: if it does not exist, or ffmpeg finds no sound in it.
    """
    if not path.is_file():
        raise HeadStudioError(f"the audio file {path} does not exist.")
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", f"file:{path}"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if re.search(r"Stream #.*: Audio:", done.stderr) is None:
        raise HeadStudioError(
            f"{path} holds no sound that ffmpeg can read; expected such as .wav, .mp3, .m4a or "
            f".flac. It says: {_last_line(done.stderr)}"
        )
    match = re.search(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", done.stderr)
    if match is None:
        return Sound(path, None)
    hours, minutes, seconds = match.groups()
    return Sound(path, 3600 * int(hours) + 60 * int(minutes) + float(seconds))


@contextmanager
def recording(
    path: Path, frames: int, fps: float, width: int, height: int, sound: Sound | None = None
) -> Iterator[Write]:
    """Yield a function that takes pictures ``[n, height, width, 3 or 4]`` uint8, in order.

    The format is the path's suffix, see `FORMATS`. An .mp4 is H.264 with 4:2:0 colours, which
    every player knows, for which width and height have to be even; sound is cut or followed by
    silence to the length of the film.

    Raises:
        HeadStudioError: if the result cannot be written, or ffmpeg fails; it then says why.
    """
    kind = _format(path)
    if kind == "":
        with _folder(path) as folder:
            yield _png_writer(folder)
        return
    rate = Fraction(fps).limit_denominator(1001 * 120)
    with atomic_write(path) as temporary:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        command += ["-r", str(rate), "-i", "-"]
        command += _mp4_options(sound, frames / fps) if kind == ".mp4" else _gif_options()
        with _ffmpeg([*command, f"file:{temporary}"]) as write:
            yield write


def _format(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise HeadStudioError(
            f"{path} ends in {path.suffix}; expected .mp4, .gif, or a folder (no suffix) for PNG "
            "files."
        )
    return kind


def _mp4_options(sound: Sound | None, seconds: float) -> list[str]:
    options = []
    if sound is not None:
        options += ["-i", f"file:{sound.path}", "-map", "0:v:0", "-map", "1:a:0"]
        # Silence after the sound's end, and everything cut at the film's.
        options += ["-af", "apad", "-c:a", "aac", "-b:a", "192k", "-t", f"{seconds:.6f}"]
    # RGB by BT.709's matrix and said so, lest players guess BT.601 and shift the colours.
    bt709 = "color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    options += ["-vf", f"scale=out_color_matrix=bt709:out_range=tv,setparams={bt709}"]
    options += ["-c:v", "libx264", "-crf", str(_CRF), "-pix_fmt", "yuv420p"]
    return [*options, "-movflags", "+faststart"]


def _gif_options() -> list[str]:
    palette = "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=sierra2_4a"
    return ["-filter_complex", palette, "-loop", "0"]


@contextmanager
def _ffmpeg(command: list[str]) -> Iterator[Write]:
    """Run ffmpeg, which reads pictures from its input."""
    # Its messages go to a file: a pipe that nobody empties would stop it.
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=messages
        )
        assert process.stdin is not None

        def failure() -> HeadStudioError:
            process.wait()
            messages.seek(0)
            said = _last_line(messages.read().decode(errors="replace"))
            return HeadStudioError(f"ffmpeg could not write {command[-1][5:]}: {said}")

        def write(pictures: np.ndarray) -> None:
            assert process.stdin is not None
            try:
                process.stdin.write(np.ascontiguousarray(pictures).data)
            except BrokenPipeError:
                raise failure() from None

        try:
            yield write
            process.stdin.close()
            if process.wait() != 0:
                raise failure()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``path`` in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    except OSError as error:
        raise HeadStudioError(
            f"cannot write {path}: {error.strerror}. Choose a folder that can be written to."
        ) from error
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        _exchange(path, new, old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(path: Path, new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``path``, which goes to ``old`` if there is one, or stays."""
    try:
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    except OSError as error:
        raise HeadStudioError(
            f"cannot replace {path}: {error.strerror}. Give a folder that does not exist yet."
        ) from error


def _png_writer(folder: Path) -> Write:
    from headstudio.render.pictures import save_png

    written = 0

    def write(pictures: np.ndarray) -> None:
        nonlocal written
        for picture in pictures:
            save_png(folder / _FRAME.format(written), picture)
            written += 1

    return write


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing."
