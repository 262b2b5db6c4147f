"""The error that is meant for the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something that was typed or configured cannot be used.

    The message says what was given and what to do about it. The launcher prints it as it is,
    without a traceback, and ends with status 2.
    """

    __str__ = Exception.__str__  # subclasses that are also KeyErrors would print a repr


def nearest(given: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the known name most like the given one, or nothing."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
