"""The error that is meant for the person at the keyboard."""

from __future__ import annotations


class HeadStudioError(ValueError):
    """Something given to us cannot be used.

    The message says what was given, what was expected and what to do. The command line prints it
    without a traceback.
    """
