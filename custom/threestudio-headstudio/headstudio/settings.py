"""What the fields of a ``Config`` dataclass may be, said where they are declared.

    n_splats: int = setting(100_000, at_least=1)
    backend: str = setting("auto", one_of=("auto", "gsplat"))

The annotations say the types; these say the ranges. `violations` lists everything that is wrong
with some values, and `check_all` raises it, in a dataclass's ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstudio.errors import HeadStudioError
from headstudio.nearest import nearest

_KEY = "headstudio.valid"


@dataclass(frozen=True)
class Valid:
    """A range; what is left out does not count. ``None`` is let through: types see to it."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()
    schedule: bool = False
    """A number, or a schedule ``[start_step, start, end, end_step]`` of such numbers."""
    stages: bool = False
    """A number, or a list of such numbers."""
    each: bool = False
    """A list of such numbers, which may be empty."""
    whole: bool = False
    """Without a fraction, where the annotation is ``Any``."""
    strict: bool = False
    """Not ``None`` and no settings by name either, where the annotation is ``Any``."""
    pair: bool = False
    """Two such numbers, the first not above the second."""
    of: Any = None
    """Dataclass of the nested settings, or of each in a list of them."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        if not self.strict and (value is None or isinstance(value, Mapping)):
            return None
        if self.one_of:
            if isinstance(value, str) and value not in self.one_of:
                near = nearest(value, self.one_of)
                return f"is {value!r}; choose one of {', '.join(self.one_of)}{near}"
            return None
        if self.pair:
            return self._pair(value)
        if self.schedule and not isinstance(value, (int, float)):
            return self._schedule(value)
        if self.each or (self.stages and not isinstance(value, (int, float))):
            numbers = list(value) if isinstance(value, (list, tuple)) else [value]
            if self.stages and not numbers:
                return "is an empty list; expected a number, or one for each stage"
            return next((text for text in map(self._number, numbers) if text), None)
        return self._number(value)

    def _number(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            if self.bounded:
                return f"is {shown(value)}; expected a number{self.expected()}"
            return None
        finite = isinstance(value, int) or math.isfinite(value)
        fits = (
            finite
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )
        if not fits:
            return f"is {value}; expected a number{self.expected()}"
        fraction = self.whole and not isinstance(value, int)
        return f"is {value}; expected a whole number" if fraction else None

    def _pair(self, value: Any) -> str | None:
        pair = list(value) if isinstance(value, (list, tuple)) else []
        numbers = [n for n in pair if isinstance(n, (int, float)) and not isinstance(n, bool)]
        if len(pair) != 2 or len(numbers) != 2:
            return f"is {shown(value)}; expected two numbers [from, to]"
        if numbers[0] > numbers[1]:
            return f"is {shown(value)}; expected [from, to] with from not above to"
        return next((text for text in map(self._number, numbers) if text), None)

    def _schedule(self, value: Any) -> str | None:
        bends = schedule_bends(value)
        if bends is None:
            return (
                f"is {shown(value)}; expected a number{self.expected()} or a schedule "
                "[start_step, start, end, end_step]"
            )
        steps, values = bends
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            return f"is {shown(value)}; the steps of a schedule have to grow"
        return next((text for text in map(self._number, values) if text), None)

    @property
    def bounded(self) -> bool:
        """Whether it asks for a number."""
        return any(n is not None for n in (self.at_least, self.above, self.at_most, self.below))

    def expected(self) -> str:
        """Such as ``" from 0 to 1"``."""
        parts = [
            f"{word} {bound:g}"
            for word, bound in (
                ("of at least", self.at_least),
                ("above", self.above),
                ("of at most", self.at_most),
                ("below", self.below),
            )
            if bound is not None
        ]
        return " " + " and ".join(parts) if parts else " that is finite"


def setting(default: Any = dataclasses.MISSING, *, factory: Any = None, **valid: Any) -> Any:
    """A dataclass field with a range.

    Args:
        default: its default; or ``factory``, which makes one.
        valid: the fields of `Valid`.
    """
    metadata = {_KEY: Valid(**valid)}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def declared(config: Any) -> dict[str, Valid]:
    """The ranges of a dataclass's fields, by name: inherited ones in its ``RANGES`` too."""
    ranges = dict(getattr(config, "RANGES", {}))
    for field in dataclasses.fields(config):
        if _KEY in field.metadata:
            ranges[field.name] = field.metadata[_KEY]
    return ranges


def violations(config: Any, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and problem of each value that is out of its range, then what `Config.conflicts` says.

    Args:
        config: the dataclass.
        values: by field name; fields that are not among them are not looked at.
    """
    found = set()
    for name, valid in declared(config).items():
        text = valid.problem(values[name]) if name in values else None
        if text is not None:
            found.add(name)
            yield name, text
    conflicts: Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]] | None
    conflicts = getattr(config, "conflicts", None)
    if conflicts is not None:
        sound = {name: value for name, value in values.items() if name not in found}
        yield from conflicts(sound)


def check_all(config: Any, where: str, kind: Any = None) -> None:
    """Raise everything that is wrong with a dataclass's values; for its ``__post_init__``.

    Args:
        config: an instance; or OmegaConf's form of one, and ``kind``, its dataclass.
        where: what the settings are called in messages, such as ``system.geometry``.

    Raises:
        HeadStudioError: lists all.
    """
    kind = type(config) if kind is None else kind
    values = {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(kind)}
    problems = [f"{where}.{name} {text}" for name, text in violations(kind, values)]
    if problems:
        raise HeadStudioError("\n".join(problems))


def schedule_bends(value: Any) -> tuple[list[float], list[float]] | None:
    """Steps and values of a schedule ``[start_step, start, end, end_step, end, end_step, ...]``,
    whose ``start_step`` may be left out of three numbers; None if it is none."""
    points = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    points = [0, *points] if len(points) == 3 else points
    numbers = [n for n in points if isinstance(n, (int, float)) and not isinstance(n, bool)]
    if len(points) < 4 or len(points) % 2 or len(numbers) != len(points):
        return None
    return [points[0], *points[3::2]], [points[1], *points[2::2]]


def plain(value: Any) -> Any:
    """Lists and dictionaries of OmegaConf's as Python's."""
    if isinstance(value, (str, bytes)) or value is None:
        return value
    if hasattr(value, "items"):
        return {key: plain(item) for key, item in value.items()}
    if hasattr(value, "__iter__"):
        return [plain(item) for item in value]
    return value


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
