"""What the command lines of several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from headstudio.errors import HeadStudioError


def at_least(least: float, kind: type = float, *, above: bool = False) -> Callable[[str], Any]:
    """An argument's type: a finite number not below ``least`` (``above``: greater than it)."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < least or (above and value == least):
            bound = f"above {least:g}" if above else f"of at least {least:g}"
            noun = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r}; expected a {noun} {bound}")
        return value

    return parse


def refuse_existing(paths: Iterable[Path], force: bool, source: Path | None = None) -> None:
    """Stop before the work if a result would replace something.

    Args:
        paths: of the results.
        force: whether they may replace files.
        source: what they are made from, which they may not replace even so.

    Raises:
        HeadStudioError: if one of the paths exists and ``force`` is false, if it is a folder where
            a file is to be, or if it is the source.
    """
    for path in paths:
        if path.is_dir():
            raise HeadStudioError(f"{path} is a folder; give the name of a file.")
        if not path.exists():
            continue
        if source is not None and source.exists() and path.samefile(source):
            raise HeadStudioError(
                f"{path} is what is read, and would be lost; give another name for the result."
            )
        if not force:
            raise HeadStudioError(
                f"{path} exists already; give another name, or --force to write over it."
            )
