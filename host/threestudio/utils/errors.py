"""The error that is meant for the person at the keyboard."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class UserError(ValueError):
    """Something that was typed or configured cannot be used.

    The message says what was given and what to do about it. The launcher prints it as it is,
    without a traceback, and ends with status 2.
    """

    __str__ = Exception.__str__  # subclasses that are also KeyErrors would print a repr


class RunFailed(RuntimeError):
    """A run that had begun could not go on: a full disk, a lost GPU, numbers that are not finite.

    The message says what happened and how to go on. The launcher prints it as it is, and ends with
    status 1.
    """


def nearest(given: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the known name most like the given one, or nothing."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def user_errors() -> tuple[type[Exception], ...]:
    """All classes of errors that are meant for the person at the keyboard.

    Besides ours, that of HeadStudio, whose library knows no host and cannot derive from ours.
    """
    library = sys.modules.get("headstudio.errors")
    return (UserError, library.HeadStudioError) if library else (UserError,)
