"""Python, memory, disk and the program that writes videos."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from headstudio.app.doctor.findings import Finding

SUPPORTED = ((3, 10), (3, 12))
_GIB = 2**30
LOW_MEMORY_GIB = 4
LOW_DISK_GIB = 1


def check() -> list[Finding]:
    return [_python(), _memory(), _disk(), _ffmpeg()]


def python_version() -> tuple[int, int, int]:
    return sys.version_info[:3]


def memory_bytes() -> int | None:
    """Of the machine, or of the container's limit; None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def free_disk_bytes() -> int:
    return shutil.disk_usage(Path.cwd()).free


def output_folder_writable() -> bool:
    """Whether ``outputs/``, or where it would be made, can be written to."""
    outputs = Path.cwd() / "outputs"
    return os.access(outputs if outputs.exists() else outputs.parent, os.W_OK)


def ffmpeg() -> str:
    """The path of the ffmpeg that imageio uses; raises RuntimeError if there is none."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _python() -> Finding:
    version = python_version()
    text = f"Python {'.'.join(map(str, version))} ({sys.executable}), {platform.platform()}"
    if SUPPORTED[0] <= version[:2] <= SUPPORTED[1]:
        return Finding.ok(text)
    return Finding.problem(
        f"{text}: 3.10 to 3.12 is needed", "rm -r .venv; PYTHON=python3.11 ./install.sh"
    )


def _memory() -> Finding:
    total, cores = memory_bytes(), os.cpu_count()
    if total is None:
        return Finding.note(f"{cores} CPU cores; the system does not say how much memory it has")
    text = f"{total / _GIB:.1f} GiB of memory, {cores} CPU cores"
    if total < LOW_MEMORY_GIB * _GIB:
        return Finding.note(
            f"{text}: less than {LOW_MEMORY_GIB} GiB may be too little",
            "close other programs, or give launch.py data.batch_size=1",
        )
    return Finding.ok(text)


def _disk() -> Finding:
    if not output_folder_writable():
        return Finding.problem(
            f"results go to {Path.cwd() / 'outputs'}, which cannot be written to",
            "run from another folder, or give launch.py exp_root_dir=FOLDER",
        )
    free = free_disk_bytes()
    text = f"{free / _GIB:.1f} GiB of disk free in {Path.cwd()}"
    if free < LOW_DISK_GIB * _GIB:
        return Finding.note(
            f"{text}: little for results", "free some, or give launch.py exp_root_dir=FOLDER"
        )
    return Finding.ok(text)


def _ffmpeg() -> Finding:
    try:
        return Finding.ok(f"ffmpeg for videos: {ffmpeg()}")
    except (ImportError, RuntimeError) as error:
        return Finding.problem(
            f"no ffmpeg, which writes the video: {error}",
            "python -m pip install --force-reinstall imageio-ffmpeg",
        )
