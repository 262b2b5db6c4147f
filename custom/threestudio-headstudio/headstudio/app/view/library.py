"""The avatars that the page offers: files beside those given, and files it was sent."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstudio.app.player import Player
from headstudio.errors import HeadStudioError
from headstudio.flame import HeadModel
from headstudio.splats import load_avatar

MAX_AVATARS = 500
"""Avatars that are listed of one folder; a list that is longer is of no use."""
MAX_LOOKED_AT = 20_000
"""Files of one folder whose header is read: seconds, where most are no avatars."""
MAX_UPLOAD = 256 << 20
"""Bytes of an avatar that is sent through the page: four million splats."""
_MARK = b"comment headstudio format_version"
_HEADER_BYTES = 1 << 16


class Library:
    """Avatar files by the names the page shows: their paths below the folder of all places.

    Args:
        places: avatar files, whose folders are offered too, and folders, which are searched.
        head: the head model they ride on.

    Raises:
        HeadStudioError: for a place that does not exist.
    """

    def __init__(self, places: Iterable[Path], head: HeadModel) -> None:
        self.head = head
        self._places = [Path(os.path.abspath(place)) for place in places]
        self._uploads = tempfile.TemporaryDirectory(prefix="headstudio-view-")
        self._files: dict[str, Path] = {}
        self.left_out: list[str] = []
        """What `refresh` did not look at, in sentences for people; nothing, most often."""
        for place in self._places:
            if not place.exists():
                raise HeadStudioError(
                    f"{place} does not exist. `headstudio sample --seed 3 --out avatar.ply` makes "
                    "an avatar to try things with."
                )
        # Now, not at each look: in place of a folder that is gone its parent would be searched.
        self._searched = dict.fromkeys(
            (place, "**/*.ply") if place.is_dir() else (place.parent, "*.ply")
            for place in self._places
        )
        # Of the places, not of what is found in them: no name changes because of a new file.
        self.folder = Path(os.path.commonpath([folder for folder, _ in self._searched]))
        """Where all places are; names are relative to it."""
        self.refresh()

    def refresh(self) -> list[str]:
        """Look for files again; returns all names, those given first.

        A file that stays keeps its name. `left_out` says where not all was looked at.
        """
        self.left_out = []
        files = dict.fromkeys([*self._given(), *self._found()])
        self._files = {str(file.relative_to(self.folder)): file for file in files}
        for file in sorted(Path(self._uploads.name).glob("*.ply")):
            self._files[self._upload_name(file)] = file
        return self.names

    @property
    def names(self) -> list[str]:
        """What `open` takes."""
        return list(self._files)

    def name_of(self, place: Path) -> str:
        """What `open` takes for a place: itself if it is a file, else the first file in it.

        Raises:
            HeadStudioError: for a folder without avatars.
        """
        place = Path(os.path.abspath(place))
        for name, file in self._files.items():
            if file == place or place in file.parents:
                return name
        told = (
            f"there is no avatar in {place}; expected .ply files that `launch.py --export` or "
            "`headstudio sample` has written."
        )
        raise HeadStudioError(" ".join([told, *self.left_out]))

    def open(self, name: str) -> Player:
        """Load an avatar.

        Raises:
            HeadStudioError: for a name that is not offered, and as `load_avatar` does.
        """
        if name not in self._files:
            raise HeadStudioError(f"there is no avatar {name!r} any more; look for files again.")
        return Player.of(load_avatar(self._files[name], self.head), self.head)

    def add_upload(self, name: str, content: bytes) -> str:
        """Keep a file that was sent, until the program ends; returns what `open` takes.

        Files of one name are kept side by side: ``a.ply``, ``a (2).ply`` …

        Raises:
            HeadStudioError: if it is too large, or no avatar of this head.
        """
        if len(content) > MAX_UPLOAD:
            raise HeadStudioError(
                f"{name} has {len(content) >> 20} MiB; at most {MAX_UPLOAD >> 20} can be sent."
            )
        plain = re.sub(r"[^\w.-]+", "_", Path(name.replace("\\", "/")).stem).strip(".") or "avatar"
        # In a folder of its own until it is known to be good.
        with tempfile.TemporaryDirectory(dir=self._uploads.name) as folder:
            sent = Path(folder) / "sent.ply"
            sent.write_bytes(content)
            try:
                load_avatar(sent, self.head)
            except HeadStudioError as error:
                raise HeadStudioError(str(error).replace(str(sent), name)) from error
            file = sent.rename(self._free_place(plain[:80]))
        self.refresh()
        return self._upload_name(file)

    def close(self) -> None:
        """Remove the files that were sent."""
        self._uploads.cleanup()

    def _free_place(self, stem: str) -> Path:
        """Where a file that was sent is kept; nothing is there yet."""
        numbered = (f"{stem} ({number})" for number in itertools.count(2))
        places = (Path(self._uploads.name) / f"{x}.ply" for x in itertools.chain([stem], numbered))
        return next(place for place in places if not place.exists())

    def _upload_name(self, file: Path) -> str:
        return f"{file.name} (sent)"

    def _given(self) -> Iterator[Path]:
        for place in self._places:
            if place.is_file():
                yield place

    def _found(self) -> Iterator[Path]:
        for folder, pattern in self._searched:
            yield from sorted(self._avatars(folder, pattern))

    def _avatars(self, folder: Path, pattern: str) -> list[Path]:
        """The avatars among a folder's files of a pattern, in any order."""
        found: list[Path] = []
        for looked_at, file in enumerate(folder.glob(pattern)):
            if len(found) == MAX_AVATARS or looked_at == MAX_LOOKED_AT:
                self.left_out.append(
                    f"There are more .ply files in {folder} than the {looked_at:,} that were "
                    f"looked at, of which {len(found):,} are avatars; no others are listed. Give "
                    "an avatar itself, or a folder with fewer files."
                )
                break
            if is_avatar(file):
                found.append(file)
        return found


def is_avatar(path: Path) -> bool:
    """Whether a file's header says that it is an avatar of ours."""
    try:
        with path.open("rb") as file:
            return _MARK in file.read(_HEADER_BYTES).partition(b"end_header")[0]
    except OSError:
        return False
