"""What somebody who typed an unknown name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str], n: int = 3) -> str:
    """The end of an error message: the known names nearest to ``given``.

    Returns:
        ``"; did you mean a, b or c?"``, or ``"."`` if nothing is near.
    """
    near = difflib.get_close_matches(given, list(dict.fromkeys(known)), n=n, cutoff=0.55)
    if not near:
        return "."
    *first, last = (repr(name) for name in near)
    return f"; did you mean {', '.join(first)} or {last}?" if first else f"; did you mean {last}?"


def nearest(given: str, known: Iterable[str]) -> str:
    """The middle of a message: ``"; did you mean 'a'?"``, or nothing if no name is near."""
    return did_you_mean(given, known, n=1).removesuffix(".")
