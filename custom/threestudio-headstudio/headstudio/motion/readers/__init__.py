"""Motions in the formats that other people's tools write, all to FLAME parameters.

Nothing in a file is executed, and sizes are checked before memory is taken.
"""

from __future__ import annotations

from pathlib import Path

from headstudio.flame import HeadModel
from headstudio.flame.npz import reading
from headstudio.motion.motion import Motion
from headstudio.motion.readers.detect import WHAT, read_file, read_folder
from headstudio.motion.readers.recording import Recording

__all__ = ["Recording", "read_motion", "read_recording"]


def read_recording(path: str | Path, fps: float | None = None) -> Recording:
    """Read a motion in any known format, told by its content; see docs/motion.md.

    Args:
        path: of a file, or of a folder with a file or folder for each frame.
        fps: frames a second, for formats that do not say; overrides what others say.

    Returns:
        The motion as the file has it, and where its frame rate is from. Its expression
        coefficients are FLAME's or ARKit's actions, as ``expression_names`` says.

    Raises:
        HeadStudioError: missing, unreadable, damaged, hostile or unknown file, or an impossible
            ``fps``.
    """
    path = Path(path)
    with reading(path, WHAT):
        folder = path.is_dir()
    return read_folder(path, fps) if folder else read_file(path, fps)


def read_motion(
    path: str | Path,
    head: HeadModel | None = None,
    fps: float | None = None,
    flame: HeadModel | None = None,
) -> Motion:
    """Read a motion in any known format, for a head.

    Args:
        path: of a file, or of a folder with a file or folder for each frame.
        head: whose expression space is wanted; as in the file if left out.
        fps: frames a second, for formats that do not say; overrides what others say.
        flame: the FLAME model a motion was tracked with, which tells what its expression
            coefficients mean on a head that is not FLAME.

    Raises:
        HeadStudioError: as `read_recording` and `headstudio.motion.for_head`.
    """
    from headstudio.motion.retarget import for_head

    motion = read_recording(path, fps).motion
    return motion if head is None else for_head(motion, head, flame)
