"""Folders of results that go on where they were stopped, and their JSON files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write


def claim(
    folder: Path,
    settings: dict[str, Any],
    parts: Sequence[str],
    force: bool,
    scratch: Sequence[str] = (),
) -> None:
    """Make sure that all a folder holds is made with the same settings.

    Args:
        folder: with its ``settings.json``.
        settings: what results have to have in common, as JSON can hold it.
        parts: its folders of results; while there is nothing in any, it holds none.
        force: remove what is there.
        scratch: its folders of work under way, in which nothing is a result: what a first attempt
            that failed leaves there does not tie the folder to that attempt's settings.

    Raises:
        HeadStudioError: it holds results of other settings.
    """
    path = folder / "settings.json"
    settings = json.loads(json.dumps(settings))
    if force:
        for part in (*parts, *scratch):
            shutil.rmtree(folder / part, ignore_errors=True)
    elif path.exists() and any(any((folder / part).glob("*")) for part in parts):
        before = read_json(path)
        differing = [k for k in {**before, **settings} if before.get(k) != settings.get(k)]
        if differing:
            raise HeadStudioError(
                f"{folder} holds results of other settings ({', '.join(differing)}); "
                "give another --out, or --force to replace them."
            )
    write_json(path, settings)


def read_json(path: Path) -> dict[str, Any]:
    """A mapping from a JSON file.

    Raises:
        HeadStudioError: it cannot be read.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HeadStudioError(f"{path} cannot be read ({error}); remove it to go on.") from error
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON, at once or not at all."""
    with atomic_write(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
