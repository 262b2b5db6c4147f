"""Which format a file has, told by what is in it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstudio.errors import HeadStudioError
from headstudio.flame import read_npz
from headstudio.flame.npz import ZIP_DAMAGE, reading, require_file
from headstudio.motion.files import KEYS as MOTION_KEYS
from headstudio.motion.files import MAX_BYTES, load_motion
from headstudio.motion.readers import deca, gaussian_avatars, live_link, mediapipe, pickled, show
from headstudio.motion.readers.mat import read_mat
from headstudio.motion.readers.npy import read_npy
from headstudio.motion.readers.recording import Rate, Recording, rate

OURS = "HeadStudio"
WHAT = "a motion file or folder"
"""What is expected, for messages."""
KNOWN = (
    "Read are SHOW and TalkSHOW (.pkl, .npy), VHAP and GaussianAvatars (.npz), DECA and EMOCA "
    "(.npy, .npz, .pkl, .mat, folders), Live Link Face (.csv), MediaPipe's scores (.json) and "
    "HeadStudio's own .npz; see docs/motion.md."
)
_WANTED = {*deca.KEYS, *gaussian_avatars.KEYS, "expression", "leye_pose", "reye_pose"}


def read_file(path: Path, fps: float | None) -> Recording:
    """A recording of a file in any of the formats.

    Raises:
        HeadStudioError: a format that is not known, or whatever is wrong with the file.
    """
    path = require_file(path, WHAT)
    with path.open("rb") as stream:
        start = stream.read(256)
    if not start:
        raise HeadStudioError(f"{path} is empty; get it again.")
    if start.startswith(b"PK\x03\x04") and _is_npz(path):
        return _read_npz(path, fps)
    if start.startswith(b"\x93NUMPY"):
        return _read_npy(path, fps)
    if start.startswith(b"MATLAB 5.0 MAT-file"):
        arrays, names = read_mat(path, _WANTED)
        return _of_dictionary(arrays, path, fps, names)
    if start.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise HeadStudioError(f"{path} is an HDF5 file; save it with -v7, or as .npz.")
    if start.startswith(b"PK\x03\x04") or _is_pickle(start):
        return _read_fields(pickled.read_pickle(path), path, fps)
    return _read_text(path, fps)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except ZIP_DAMAGE:
        return True  # whose reader says what is wrong


def _is_pickle(start: bytes) -> bool:
    """Protocol 2 and later begin with their number; 0 and 1 with a mark or an empty container."""
    if len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return True
    return re.match(rb"\((dp|lp|d|l|i)[0-9\n]|[}\]]q|c[A-Za-z_.]+\n", start) is not None


def _read_npz(path: Path, fps: float | None) -> Recording:
    fields = read_npz(path, "a motion (.npz)", _WANTED, MAX_BYTES)
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    if "fps" in names or "expression_names" in names or names <= set(MOTION_KEYS):
        motion = load_motion(path)
        found = rate(fps, Rate(motion.fps, "the file"))
        motion.fps = found.fps
        return Recording(motion, OURS, found.origin)
    return _of_dictionary(fields, path, fps, names)


def _read_npy(path: Path, fps: float | None) -> Recording:
    """TalkSHOW's array, a pickled dictionary in numpy's wrapping, or a part of EMOCA's folder."""
    array, offset = read_npy(path)
    if array is None:
        value = pickled.read_pickle(path, path.read_bytes()[offset:])
        items = pickled.sequence(value)
        single = items is not None and len(items) == 1
        return _read_fields(items[0] if items is not None and single else value, path, fps)
    if array.ndim >= 2 and array.shape[-1] in show.TALKSHOW_WIDTHS:
        return show.read_talkshow(array, path, fps)
    if path.stem in deca.KEYS:
        return read_folder(path.parent, fps)
    raise HeadStudioError(
        f"{path} is an array of shape {list(array.shape)}, which is none of the formats. {KNOWN}"
    )


def _read_fields(value: Any, path: Path, fps: float | None) -> Recording:
    """A recording of what a pickle holds: a dictionary, or one for each frame."""
    frames = pickled.sequence(value)
    root = pickled.mapping(value)
    if root is not None:
        fields = pickled.fields(root)
        nested = {name: pickled.mapping(entry) for name, entry in fields.items()}
        frames = [nested[name] for name in sorted(nested, key=_natural)]
        per_frame = bool(frames) and all(frame is not None for frame in frames)
        if not per_frame:
            return _of_dictionary(fields, path, fps, set(fields))
    codes = [pickled.mapping(frame) for frame in frames or []]
    if not codes or any(code is None for code in codes):
        raise HeadStudioError(
            f"{path} is a pickle of a {type(value).__name__.lstrip('_')}; expected a dictionary of "
            f"arrays, or one for each frame. {KNOWN}"
        )
    dictionaries = [pickled.fields(code) for code in codes if code is not None]
    if not all(deca.recognises(fields) for fields in dictionaries):
        raise HeadStudioError(f"{path}: {_unknown(set(dictionaries[0]))}")
    return deca.read_frames(list(dictionaries), path, fps)


def _of_dictionary(
    fields: Mapping[str, Any], path: Path, fps: float | None, names: set[str]
) -> Recording:
    """A recording of a dictionary of arrays; ``names`` are all its keys, for messages."""
    for format_ in (gaussian_avatars, show, deca):
        if format_.recognises(fields):  # type: ignore[attr-defined]
            return format_.read(fields, path, fps)  # type: ignore[attr-defined,no-any-return]
    if deca.is_mesh(dict.fromkeys(names)):
        raise HeadStudioError(f"{path} {deca.MESH_ADVICE}")
    raise HeadStudioError(f"{path}: {_unknown(names)}")


def _unknown(names: set[str]) -> str:
    listed = ", ".join(sorted(names)[:12]) or "nothing"
    return f"it holds {listed}, which is none of the formats. {KNOWN}"


def _read_text(path: Path, fps: float | None) -> Recording:
    if path.stat().st_size > MAX_BYTES:
        raise HeadStudioError(f"{path} has {path.stat().st_size / 2**20:.0f} MiB; cut it up.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HeadStudioError(f"{path} is none of the formats. {KNOWN}") from None
    if text.lstrip()[:1] in ("{", "["):
        return mediapipe.read(text, path, fps)
    if live_link.recognises(text):
        return live_link.read(text, path, fps)
    raise HeadStudioError(f"{path} is none of the formats. {KNOWN}")


def read_folder(folder: Path, fps: float | None) -> Recording:
    """A recording of a folder with a file, or a folder of EMOCA's, for each frame.

    Raises:
        HeadStudioError: no such files, or none that may be read, or whatever is wrong with one.
    """
    files = sorted(folder.glob("*.npz"), key=lambda file: _natural(file.name))
    if files:
        what = "a frame's parameters (.npz)"
        frames = [read_npz(file, what, _WANTED, MAX_BYTES) for file in files]
        if all(gaussian_avatars.recognises(frame) for frame in frames):
            return gaussian_avatars.read_folder(frames, folder, fps)
        if all(deca.recognises(frame) for frame in frames):
            return deca.read_frames(list(frames), folder, fps)
    images = _images(folder)
    if not images:
        raise HeadStudioError(
            f"{folder} is a folder without motions: neither .npz files of VHAP nor folders of "
            f"EMOCA with exp.npy and pose.npy. {KNOWN}"
        )
    codes = [_code(image) for image in images]
    return (
        deca.read(codes[0], folder, fps)
        if len(codes) == 1
        else deca.read_frames(list(codes), folder, fps)
    )


def _images(folder: Path) -> list[Path]:
    """Folders of EMOCA's, in order: this one, or those inside of it."""
    with reading(folder, WHAT):
        if _has_code(folder):
            return [folder]
        found = [sub for sub in folder.iterdir() if sub.is_dir() and _has_code(sub)]
    return sorted(found, key=lambda image: _natural(image.name))


def _has_code(folder: Path) -> bool:
    return any((folder / f"{key}.npy").is_file() for key in deca.EXPRESSIONS)


def _code(folder: Path) -> dict[str, Any]:
    """The arrays of one folder of EMOCA's."""
    code: dict[str, Any] = {}
    for key in deca.KEYS:
        file = folder / f"{key}.npy"
        if file.is_file():
            array, _ = read_npy(file)
            if array is None:
                raise HeadStudioError(f"{file} holds Python objects; expected numbers.")
            code[key] = array
    return code


def _natural(name: Any) -> list[Any]:
    """A key that sorts frame 10 behind frame 9."""
    parts = re.split(r"(\d+)", str(name))
    return [
        (True, int(part)) if part.isdecimal() and len(part) < 20 else (False, part)
        for part in parts
    ]
